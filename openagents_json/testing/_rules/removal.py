"""Which jobs may be deleted, one by one or by age, and what goes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openagents_json.errors import InvalidTransitionError, JobInUseError
from openagents_json.job._changes import (
    Cancel,
    Delete,
    Pause,
    Purge,
    Query,
    Rerun,
)
from openagents_json.job.model import DependencyFailurePolicy, JobPriority
from openagents_json.testing._rules.base import StoreRules, shown
from openagents_json.testing.builders import StoreDriver, a_claim, a_job

if TYPE_CHECKING:
    from openagents_json.testing.clock import ManualClock


class RemovalRules(StoreRules):
    """Which jobs may be deleted."""

    async def test_a_deleted_job_is_gone_from_everywhere(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("parent"), a_job("job", "parent"), a_job("ready"))
        (job, ready) = await driver.store.get(["job", "ready"])
        assert shown(await driver.do(Delete("job"))) == ((job,), True)
        assert shown(await driver.do(Delete("ready"))) == ((ready,), True)
        assert await driver.store.get(["job", "ready"]) == []
        assert await driver.find(Query()) == ["parent"]
        assert await driver.find(Query(depends_on="parent")) == []
        assert await driver.store.count(Query()) == 1
        assert await driver.claim(a_claim(1)) == ["parent"]

    async def test_deleting_what_is_not_there_is_answered_with_no_jobs(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        assert shown(await driver.do(Delete("nobody"))) == ((), False)
        await driver.do(Delete("job"))
        assert shown(await driver.do(Delete("job"))) == ((), False)

    async def test_an_id_is_free_again_once_its_job_is_deleted(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("job", delay=5.0, name="old"))
        await driver.do(Delete("job"))
        await driver.add(a_job("job", name="new"))
        assert await driver.claim(a_claim(1)) == ["job"]
        driver.clock.advance(5)
        assert await driver.claim(a_claim(2)) == []
        assert (await driver.job("job")).spec.name == "new"

    async def test_a_job_with_the_id_of_a_deleted_one_has_its_own_queue_and_priority(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("moved"), a_job("calmed", priority=JobPriority.CRITICAL), a_job("other"))
        await driver.apply(Delete("moved"), Delete("calmed"))
        await driver.add(a_job("moved", queue="elsewhere"), a_job("calmed", priority=JobPriority.LOW))
        assert await driver.claim(a_claim(1)) == ["other", "calmed"]
        assert await driver.claim(a_claim(2, queues=("elsewhere",))) == ["moved"]

    async def test_a_held_job_is_not_deleted(self, driver: StoreDriver) -> None:
        await driver.add(a_job("running"), a_job("paused"))
        await driver.run("running", "paused")
        await driver.do(Pause("paused"))
        for job_id in ("running", "paused"):
            refused = await driver.refusal(Delete(job_id))
            assert type(refused) is InvalidTransitionError
            assert "cancel" in refused.remedy
            await driver.do(Cancel(job_id, "why"))
            await driver.do(Delete(job_id))
        assert await driver.store.count(Query()) == 0

    async def test_a_job_that_an_unfinished_one_depends_on_is_not_deleted(self, driver: StoreDriver) -> None:
        await driver.add(a_job("parent"), a_job("child", "parent", queued=False))
        for prepare in (None, "complete"):
            if prepare:
                await driver.complete("parent")
            before = await driver.job("parent")
            refused = await driver.refusal(Delete("parent"))
            assert isinstance(refused, JobInUseError)
            assert (refused.job_id, refused.dependent_id) == ("parent", "child")
            assert await driver.job("parent") == before
        await driver.do(Cancel("child", "why"))
        await driver.do(Delete("parent"))
        assert await driver.statuses("parent", "child") == {"child": "cancelled"}

    async def test_a_finished_job_keeps_the_id_of_a_deleted_dependency(self, driver: StoreDriver) -> None:
        await driver.add(a_job("parent"), a_job("child", "parent"))
        await driver.complete("parent")
        await driver.complete("child")
        await driver.do(Delete("parent"))
        assert (await driver.job("child")).dependencies == ("parent",)
        assert await driver.find(Query(depends_on="parent")) == ["child"]

    async def test_jobs_that_finished_long_enough_ago_are_purged(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(
            a_job("completed"), a_job("failed"), a_job("cancelled"), a_job("pending"), a_job("recent"),
            a_job("running"), a_job("paused"),
        )  # fmt: skip
        await driver.complete("completed")
        await driver.fail("failed")
        await driver.do(Cancel("cancelled", "why"))
        await driver.run("running")
        await driver.do(Pause("paused"))
        gone = await driver.store.get(["completed", "failed", "cancelled"])
        clock.advance(50)
        await driver.complete("recent")
        clock.advance(50.5)
        answer = await driver.do(Purge(100.0, 10))
        assert answer.changed
        assert sorted(answer.jobs) == sorted(gone)
        left = {"pending", "recent", "running", "paused"}
        assert set(await driver.find(Query())) == left
        assert shown(await driver.do(Purge(100.0, 10))) == ((), False)

    async def test_a_job_is_purged_only_after_more_than_that_age(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("job"))
        await driver.complete("job")
        clock.advance(100)
        assert (await driver.do(Purge(100.0, 10))).jobs == ()
        clock.advance(0.001)
        assert len((await driver.do(Purge(100.0, 10))).jobs) == 1

    async def test_a_purge_removes_up_to_its_limit_and_more_when_repeated(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        jobs = [f"job-{number}" for number in range(5)]
        await driver.add(*(a_job(job_id) for job_id in jobs))
        await driver.complete(*jobs)
        clock.advance(1)
        removed: list[str] = []
        for expected in (2, 2, 1, 0):
            answer = await driver.do(Purge(0.0, 2))
            assert len(answer.jobs) == expected
            removed += [job.job_id for job in answer.jobs]
        assert sorted(removed) == jobs

    async def test_a_job_still_needed_is_not_purged_and_uses_up_no_limit(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(
            *(a_job(f"needed-{number}") for number in range(5)),
            a_job("child", *(f"needed-{number}" for number in range(5)), queued=False),
            a_job("other"),
        )
        await driver.complete(*(f"needed-{number}" for number in range(5)), "other")
        clock.advance(1)
        assert [job.job_id for job in (await driver.do(Purge(0.0, 1))).jobs] == ["other"]
        await driver.do(Cancel("child", "why"))
        clock.advance(1)
        assert len((await driver.do(Purge(0.0, 10))).jobs) == 6

    async def test_a_job_brought_back_is_not_purged(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("job"))
        await driver.complete("job")
        clock.advance(10)
        await driver.do(Rerun("job"))
        await driver.do(Purge(1.0, 10))
        assert await driver.statuses("job") == {"job": "pending"}
        await driver.complete("job")
        assert (await driver.do(Purge(1.0, 10))).jobs == ()

    async def test_a_broken_job_that_others_wait_on_is_kept(self, driver: StoreDriver, clock: ManualClock) -> None:
        wait = DependencyFailurePolicy.WAIT
        await driver.add(a_job("parent"), a_job("patient", "parent", on_dependency_failure=wait))
        await driver.fail("parent")
        clock.advance(10)
        assert (await driver.do(Purge(1.0, 10))).jobs == ()
