"""What becomes of dependents when a job fails or is cancelled, by their policy; and how a rerun undoes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openagents_json.errors import InvalidTransitionError
from openagents_json.job._changes import (
    AddDependency,
    Applied,
    Cancel,
    Delete,
    Finish,
    NewJob,
    Pause,
    RemoveDependency,
    Rerun,
)
from openagents_json.job.model import Attempt, AttemptOutcome, DependencyFailurePolicy, JobError, JobStatus
from openagents_json.testing._rules.base import StoreRules, shown
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_job

if TYPE_CHECKING:
    from openagents_json.testing.clock import ManualClock

FAILED = AttemptOutcome.FAILED

#: How a job can break, by the state it ends in.
BREAKS = ["failed", "cancelled"]


def waiting(job_id: str, *dependencies: str) -> NewJob:
    """Build a job that waits on when one it depends on breaks."""
    return a_job(job_id, *dependencies, on_dependency_failure=DependencyFailurePolicy.WAIT)


def running(job_id: str, *dependencies: str) -> NewJob:
    """Build a job that runs also when one it depends on breaks."""
    return a_job(job_id, *dependencies, on_dependency_failure=DependencyFailurePolicy.RUN)


async def break_job(driver: StoreDriver, job_id: str, how: str) -> None:
    """Make a ready job fail, or cancel it."""
    if how == "failed":
        await driver.fail(job_id)
    else:
        await driver.do(Cancel(job_id, "not needed"))


def _named_first(answer: Applied, job_id: str) -> set[str]:
    """Check which job the answer begins with; give the ids of the others, each of which must be there once."""
    first, *others = [job.job_id for job in answer.jobs]
    assert first == job_id
    assert len(set(others)) == len(others)
    return set(others)


class CascadeRules(StoreRules):
    """What becomes of dependents when a job fails or is cancelled."""

    @pytest.mark.parametrize("how", BREAKS)
    async def test_dependents_are_cancelled_with_it_all_the_way_down(
        self, driver: StoreDriver, clock: ManualClock, how: str
    ) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"), a_job("d", "c"), a_job("free"))
        clock.advance(1)
        await break_job(driver, "a", how)
        cancelled = dict.fromkeys("bcd", "cancelled")
        assert await driver.statuses(*"abcd", "free") == {"a": how, **cancelled, "free": "pending"}
        for job_id, direct in [("b", "a"), ("c", "b"), ("d", "c")]:
            job = await driver.job(job_id)
            assert (job.cancelled_by, job.completed_at) == (direct, clock.now())
            assert job.error is not None
            assert job.error.type == "DependencyFailed"
            assert "'a'" in job.error.message
            assert how in job.error.message
            assert job.attempts == ()

    async def test_the_error_of_a_cancelled_dependent_quotes_the_cause(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"))
        await driver.fail("a")
        for job_id in "bc":
            error = (await driver.job(job_id)).error
            assert error is not None
            assert str(BOOM) in error.message

    async def test_an_outcome_is_answered_with_what_it_cancelled(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("near", "a"), a_job("far", "near", "a"), a_job("end", "far"))
        lease = await driver.run("a")
        failed = Finish("a", lease, FAILED, error=BOOM)
        answer = await driver.do(failed)
        assert list(answer.jobs) == await driver.store.get([job.job_id for job in answer.jobs])
        ids = [job.job_id for job in answer.jobs]
        assert sorted(ids) == ["end", "far", "near"]
        assert shown(await driver.do(failed)) == ((), False)

    async def test_what_a_cancel_cancels_is_answered_after_the_job_itself(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"))
        answer = await driver.do(Cancel("a", "why"))
        assert _named_first(answer, "a") == {"b", "c"}
        assert sorted(answer.jobs) == await driver.store.get(["a", "b", "c"])
        again = await driver.do(Cancel("a", "why"))
        assert ([job.job_id for job in again.jobs], again.changed) == (["a"], False)

    async def test_a_retry_cancels_nobody(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"))
        await driver.fail("a", retry_in=1.0)
        assert await driver.status("b") is JobStatus.PENDING

    async def test_a_dependent_is_cancelled_once_and_names_the_first_that_broke(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"), a_job("c", "a", "b"))
        await driver.fail("b")
        before = await driver.job("c")
        await driver.fail("a")
        assert await driver.job("c") == before
        assert before.cancelled_by == "b"

    async def test_dependents_in_every_state_are_cancelled_too(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(
            a_job("a"),
            a_job("unstarted", "a", queued=False),
            a_job("delayed", "a", delay=9.0),
            a_job("paused", "a"),
            a_job("running", "a"),
            a_job("held", "a"),
            a_job("completed", "a"),
        )
        await driver.complete("a")
        await driver.complete("completed")
        lease = await driver.run("running", "held")
        started = clock.now()
        await driver.do(Pause("held"))
        await driver.do(Pause("paused"))
        await driver.do(Rerun("a"))
        clock.advance(1)
        await driver.fail("a")
        assert await driver.statuses("unstarted", "delayed", "paused", "running", "held", "completed") == {
            "unstarted": "cancelled",
            "delayed": "cancelled",
            "paused": "cancelled",
            "running": "cancelled",
            "held": "cancelled",
            "completed": "completed",
        }
        for job_id in ("running", "held"):
            job = await driver.job(job_id)
            assert (job.lease, job.cancelled_by) == (None, "a")
            ended = Attempt(1, WORKER, started, clock.now(), AttemptOutcome.CANCELLED, job.error)
            assert job.attempts == (ended,)
            await driver.refusal(Finish(job_id, lease, AttemptOutcome.COMPLETED, b"1"))

    @pytest.mark.parametrize("how", BREAKS)
    async def test_under_the_policy_wait_dependents_go_on_waiting(self, driver: StoreDriver, how: str) -> None:
        await driver.add(a_job("a"), waiting("b", "a"), a_job("c", "b"))
        await break_job(driver, "a", how)
        b = await driver.job("b")
        assert (b.status, b.unmet, b.ready_at) == (JobStatus.PENDING, 1, None)
        assert await driver.status("c") is JobStatus.PENDING
        await driver.do(Rerun("a"))
        await driver.complete("a")
        await driver.complete("b")

    @pytest.mark.parametrize("how", BREAKS)
    async def test_under_the_policy_run_dependents_run_all_the_same(
        self, driver: StoreDriver, clock: ManualClock, how: str
    ) -> None:
        await driver.add(a_job("a"), a_job("other"), running("b", "a", "other"), running("c", "a"))
        clock.advance(1)
        await break_job(driver, "a", how)
        assert (await driver.job("b")).unmet == 1
        c = await driver.job("c")
        assert (c.unmet, c.ready_at) == (0, clock.now())
        await driver.complete("other")
        await driver.complete("b", "c")

    async def test_under_the_policy_run_dependents_wait_again_for_a_broken_job_that_runs_again(
        self, driver: StoreDriver
    ) -> None:
        await driver.add(a_job("a"), running("b", "a"))
        await driver.fail("a")
        await driver.do(Rerun("a"))
        b = await driver.job("b")
        assert (b.unmet, b.ready_at) == (1, None)
        await driver.complete("a")
        await driver.complete("b")

    @pytest.mark.parametrize("how", BREAKS)
    async def test_a_job_created_under_a_broken_one_follows_its_policy(self, driver: StoreDriver, how: str) -> None:
        await driver.add(a_job("a"))
        await break_job(driver, "a", how)
        jobs = await driver.add(
            a_job("cancel", "a"), a_job("far", "cancel"), waiting("wait", "a"), running("run", "a"),
            running("run-too", "far"),
        )  # fmt: skip
        assert list(jobs) == await driver.store.get([job.job_id for job in jobs])
        assert [job.status.value for job in jobs] == ["cancelled", "cancelled", "pending", "pending", "pending"]
        assert [job.cancelled_by for job in jobs] == ["a", "cancel", None, None, None]
        assert [job.unmet for job in jobs[2:]] == [1, 0, 0]
        assert jobs[0].error is not None
        assert "'a'" in jobs[0].error.message
        assert jobs[0].completed_at == driver.clock.now()

    @pytest.mark.parametrize("how", BREAKS)
    async def test_a_job_that_is_given_a_broken_dependency_follows_its_policy(
        self, driver: StoreDriver, how: str
    ) -> None:
        await driver.add(a_job("a"), a_job("cancel"), a_job("far", "cancel"), waiting("wait"), running("run"))
        await break_job(driver, "a", how)
        answer = await driver.do(AddDependency("cancel", "a"))
        assert [job.job_id for job in answer.jobs] == ["cancel", "far"]
        assert list(answer.jobs) == await driver.store.get(["cancel", "far"])
        assert [job.cancelled_by for job in answer.jobs] == ["a", "cancel"]
        await driver.do(AddDependency("wait", "a"))
        await driver.do(AddDependency("run", "a"))
        assert ((await driver.job("wait")).unmet, (await driver.job("run")).unmet) == (1, 0)
        await driver.complete("run")
        again = await driver.do(AddDependency("cancel", "a"))
        assert not again.changed

    async def test_a_job_that_waits_for_a_broken_one_can_be_freed(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), waiting("b", "a"), running("c", "a"))
        await driver.fail("a")
        await driver.do(RemoveDependency("b", "a"))
        await driver.do(RemoveDependency("c", "a"))
        assert ((await driver.job("b")).unmet, (await driver.job("c")).unmet) == (0, 0)
        await driver.complete("b", "c")

    async def test_a_rerun_brings_back_what_was_cancelled_because_of_it(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(
            a_job("a"), a_job("b", "a"), a_job("c", "b"), a_job("unstarted", "a", queued=False), a_job("own", "b")
        )
        await driver.do(Cancel("own", "asked for"))
        await driver.fail("a")
        clock.advance(1)
        answer = await driver.do(Rerun("a"))
        assert _named_first(answer, "a") == {"b", "c", "unstarted"}
        assert list(answer.jobs) == await driver.store.get([job.job_id for job in answer.jobs])
        for job in answer.jobs[1:]:
            assert (job.status, job.unmet, job.queued) == (JobStatus.PENDING, 1, job.job_id != "unstarted")
            assert (job.error, job.cancelled_by, job.completed_at) == (None, None, None)
            assert job.updated_at == clock.now()
        assert await driver.status("own") is JobStatus.CANCELLED
        await driver.complete("a")
        await driver.complete("b")
        await driver.complete("c")

    async def test_what_comes_back_still_waits_for_the_time_it_was_given(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("a"), a_job("b", "a", delay=60.0))
        run_at = (await driver.job("b")).run_at
        await driver.fail("a")
        await driver.do(Rerun("a"))
        await driver.complete("a")
        b = await driver.job("b")
        assert (b.run_at, b.ready_at) == (run_at, run_at)
        clock.advance(60)
        await driver.complete("b")

    async def test_only_running_again_brings_back_not_what_happens_to_the_job_later(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("gone"), a_job("b", "a", "gone"))
        await driver.fail("a")
        await driver.do(Delete("gone"))
        await driver.do(Rerun("a"))
        await driver.add(a_job("gone"))
        await driver.run("a")
        await driver.do(Pause("a"))
        assert await driver.status("b") is JobStatus.CANCELLED

    async def test_a_rerun_brings_back_both_sides_of_a_diamond_and_its_end(self, driver: StoreDriver) -> None:
        await driver.add(
            a_job("top"),
            a_job("left", "top"),
            a_job("right", "top"),
            a_job("join", "left", "right"),
            a_job("early", "right", "top", "left"),
        )
        await driver.do(Cancel("top", "why"))
        answer = await driver.do(Rerun("top"))
        assert sorted(job.job_id for job in answer.jobs) == ["early", "join", "left", "right", "top"]
        unmet = [(await driver.job(name)).unmet for name in ("left", "right", "join", "early")]
        assert unmet == [1, 1, 2, 3]
        await driver.complete("top")
        await driver.complete("left", "right")
        await driver.complete("join", "early")

    async def test_a_rerun_of_a_completed_job_counts_for_those_it_brings_back(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"), a_job("c", "a", "b"))
        await driver.complete("a")
        await driver.fail("b")
        await driver.do(Rerun("a"))
        assert await driver.status("c") is JobStatus.CANCELLED
        await driver.do(Rerun("b"))
        assert (await driver.job("c")).unmet == 2
        await driver.complete("a", "b")
        await driver.complete("c")

    @pytest.mark.parametrize("first", ["left", "right"])
    async def test_a_job_with_two_broken_dependencies_comes_back_when_both_run_again(
        self, driver: StoreDriver, first: str
    ) -> None:
        second = "right" if first == "left" else "left"
        await driver.add(a_job("left"), a_job("right"), a_job("child", "left", "right"), a_job("far", "child"))
        await driver.fail("left")
        await driver.fail("right")
        await driver.do(Rerun(first))
        child = await driver.job("child")
        assert (child.status, child.cancelled_by) == (JobStatus.CANCELLED, "right" if first == "left" else "left")
        assert child.error is not None
        assert repr(child.cancelled_by) in child.error.message
        answer = await driver.do(Rerun(second))
        assert _named_first(answer, second) == {"child", "far"}
        assert (await driver.job("child")).unmet == 2
        await driver.complete("left", "right")
        await driver.complete("child")
        await driver.complete("far")

    async def test_a_job_that_breaks_again_takes_along_what_came_back(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"))
        for message in ("first", "second"):
            lease = await driver.run("a")
            await driver.do(Finish("a", lease, FAILED, error=JobError("Error", message)))
            for job_id in "bc":
                job = await driver.job(job_id)
                assert job.error is not None
                assert message in job.error.message
            await driver.do(Rerun("a"))
        assert await driver.statuses(*"abc") == dict.fromkeys("abc", "pending")

    async def test_a_rerun_is_refused_while_a_dependency_is_broken(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"))
        await driver.fail("a")
        before = await driver.store.get(["a", "b", "c"])
        for job_id, blamed in [("b", "a"), ("c", "b")]:
            refused = await driver.refusal(Rerun(job_id))
            assert isinstance(refused, InvalidTransitionError)
            assert repr(blamed) in refused.remedy
        assert await driver.store.get(["a", "b", "c"]) == before

    async def test_a_rerun_is_refused_when_a_dependency_was_deleted(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"))
        await driver.complete("a")
        await driver.complete("b")
        await driver.do(Delete("a"))
        refused = await driver.refusal(Rerun("b"))
        assert isinstance(refused, InvalidTransitionError)
        assert "'a'" in refused.remedy
        assert await driver.status("b") is JobStatus.COMPLETED

    async def test_a_job_with_a_deleted_dependency_does_not_come_back(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("gone"), a_job("b", "a", "gone"))
        await driver.fail("a")
        await driver.do(Delete("gone"))
        await driver.do(Rerun("a"))
        assert await driver.statuses("a", "b") == {"a": "pending", "b": "cancelled"}

    async def test_under_the_other_policies_a_rerun_needs_no_sound_dependency(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), waiting("wait", "a"), running("run", "a"))
        await driver.fail("a")
        await driver.complete("run")
        await driver.do(Cancel("wait", "why"))
        await driver.do(Rerun("wait"))
        await driver.do(Rerun("run"))
        assert ((await driver.job("wait")).unmet, (await driver.job("run")).unmet) == (1, 0)

    async def test_a_cascade_passes_each_policy_on_its_way(self, driver: StoreDriver) -> None:
        await driver.add(
            a_job("a"), a_job("b", "a"), running("c", "b"), a_job("d", "c"), waiting("e", "b"), a_job("f", "e")
        )
        await driver.fail("a")
        assert await driver.statuses(*"bcdef") == {
            "b": "cancelled", "c": "pending", "d": "pending", "e": "pending", "f": "pending",
        }  # fmt: skip
        assert (await driver.job("c")).unmet == 0
        await driver.do(Rerun("a"))
        assert ((await driver.job("b")).unmet, (await driver.job("c")).unmet) == (1, 1)

    async def test_a_broken_job_with_many_dependents_cancels_them_all(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), *(a_job(f"job-{number}", "a") for number in range(300)))
        answer = await driver.do(Cancel("a", "why"))
        assert len(answer.jobs) == 301
        answer = await driver.do(Rerun("a"))
        assert len(answer.jobs) == 301
