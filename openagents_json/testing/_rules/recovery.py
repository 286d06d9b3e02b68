"""Workers that died: what they lose, what becomes of their jobs, and that it is final."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openagents_json.errors import LeaseLostError, WorkerDeadError
from openagents_json.job._changes import (
    Finish,
    Pause,
    Progress,
    Recover,
    Release,
    Rerun,
    Resume,
    Unclaim,
)
from openagents_json.job._record import Recovery
from openagents_json.job.model import Attempt, AttemptOutcome, DependencyFailurePolicy, JobError, JobStatus
from openagents_json.testing._rules.base import StoreRules, shown
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_claim, a_job, a_worker

if TYPE_CHECKING:
    from openagents_json.testing.clock import ManualClock

COMPLETED, INTERRUPTED = AttemptOutcome.COMPLETED, AttemptOutcome.INTERRUPTED


async def survive(driver: StoreDriver, job_id: str, deaths: int) -> None:
    """Let that many workers die with the job, each after the back-off from the one before."""
    for _ in range(deaths):
        driver.clock.advance(120)
        await driver.die_with(job_id, worker_id=f"doomed-at-{driver.clock.monotonic():.0f}")


class RecoveryRules(StoreRules):
    """What a dead worker loses, and what becomes of its jobs."""

    async def test_a_running_job_goes_back_to_pending_with_its_history(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Progress("job", lease, 0.5, "half"))
        started = clock.now()
        clock.advance(60)
        before = await driver.job("job")
        answer = await driver.do(Recover(WORKER, "silent for 60 s"))
        job = await driver.job("job")
        assert shown(answer) == ((job,), True)
        error = JobError("Interrupted", "silent for 60 s")
        assert job == before._replace(
            updated_at=clock.now(),
            version=job.version,
            status=JobStatus.PENDING,
            ready_at=clock.now(),
            recoveries=1,
            lease=None,
            attempts=(Attempt(1, WORKER, started, clock.now(), INTERRUPTED, error),),
            recovery_history=(Recovery(clock.now(), "silent for 60 s", WORKER, 1),),
        )
        assert job.version > before.version

    async def test_a_dead_worker_cannot_write_any_more(self, driver: StoreDriver) -> None:
        await driver.add(a_job("running"), a_job("paused"))
        lease = await driver.run("running", "paused")
        await driver.do(Pause("paused"))
        await driver.do(Recover(WORKER, "it died"))
        before = await driver.store.get(["running", "paused"])
        for job_id in ("running", "paused"):
            lost = await driver.refusal(Finish(job_id, lease, COMPLETED, b"1"))
            assert isinstance(lost, LeaseLostError)
            assert (lost.job_id, lost.lease) == (job_id, lease)
            assert isinstance(await driver.refusal(Progress(job_id, lease, 0.9, "")), LeaseLostError)
            assert shown(await driver.do(Release(job_id, lease, "why"))) == ((), False)
            assert shown(await driver.do(Unclaim(job_id, lease))) == ((), False)
        assert await driver.store.get(["running", "paused"]) == before

    async def test_a_zombie_does_not_overwrite_the_new_owner(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        old = await driver.run("job")
        await driver.do(Recover(WORKER, "it died"))
        new = await driver.run("job", worker_id="worker-2")
        assert isinstance(await driver.refusal(Finish("job", old, COMPLETED, b'"zombie"')), LeaseLostError)
        await driver.do(Finish("job", new, COMPLETED, b'"owner"'))
        assert isinstance(await driver.refusal(Finish("job", old, COMPLETED, b'"zombie"')), LeaseLostError)
        assert (await driver.job("job")).result == b'"owner"'

    async def test_death_is_final(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("job"))
        await driver.do(Recover(WORKER, "it died"))
        assert await driver.store.workers() == []
        assert await driver.store.beat(WORKER) is False
        with pytest.raises(WorkerDeadError) as caught:
            await driver.store.register(a_worker())
        assert caught.value.worker_id == WORKER
        for claim in (a_claim(1), a_claim(1, repeated=True)):
            claimed = await driver.claimed(claim)
            assert isinstance(claimed.error, WorkerDeadError)
            assert claimed.jobs == ()
        await driver.store.unregister(WORKER)
        assert await driver.store.beat(WORKER) is False
        with pytest.raises(WorkerDeadError):
            await driver.store.register(a_worker())
        assert await driver.status("job") is JobStatus.PENDING

    async def test_a_worker_nobody_knows_can_be_declared_dead_before_it_registers(self, driver: StoreDriver) -> None:
        assert (await driver.do(Recover(WORKER, "it died"))).jobs == ()
        with pytest.raises(WorkerDeadError):
            await driver.store.register(a_worker())

    async def test_a_worker_declared_dead_again_has_nothing_more_to_lose(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await driver.run("job")
        await driver.do(Recover(WORKER, "it died"))
        before = await driver.job("job")
        assert shown(await driver.do(Recover(WORKER, "it died"))) == ((), False)
        await driver.run("job", worker_id="worker-2")
        assert shown(await driver.do(Recover(WORKER, "it died"))) == ((), False)
        assert (await driver.job("job")).worker_id == "worker-2"
        assert before.recoveries == (await driver.job("job")).recoveries == 1

    async def test_jobs_of_the_living_and_jobs_it_no_longer_holds_are_left(self, driver: StoreDriver) -> None:
        await driver.add(*(a_job(name) for name in ("other", "done", "released", "ready", "held")))
        await driver.run("other", worker_id="worker-2")
        await driver.complete("done")
        lease = await driver.run("released", "held")
        await driver.do(Release("released", lease, "shutdown"))
        others = ["other", "done", "released", "ready"]
        before = await driver.store.get(others)
        answer = await driver.do(Recover(WORKER, "it died"))
        assert [job.job_id for job in answer.jobs] == ["held"]
        assert await driver.store.get(others) == before

    async def test_a_paused_job_loses_its_holder_and_runs_again_once_resumed(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await driver.run("job")
        await driver.do(Pause("job"))
        answer = await driver.do(Recover(WORKER, "it died"))
        job = await driver.job("job")
        assert answer.jobs == (job,)
        assert (job.status, job.lease, job.ready_at) == (JobStatus.PAUSED, None, None)
        assert len(job.recovery_history) == len(job.attempts) == 1
        await driver.do(Resume("job"))
        assert await driver.status("job") is JobStatus.PENDING
        await driver.run("job", worker_id="worker-2")

    async def test_the_first_recovery_is_immediate_and_later_ones_in_a_row_back_off(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job", max_recoveries=None))
        waits = []
        for number in range(1, 12):
            await driver.die_with("job", worker_id=f"doomed-{number}")
            job = await driver.job("job")
            assert job.recoveries == number
            assert job.ready_at is not None
            waits.append((job.ready_at - clock.now()).total_seconds())
            clock.advance(waits[-1])
        assert waits[0] == 0
        for number, wait in enumerate(waits[1:]):
            longest = min(60.0, 2.0**number)
            assert longest / 2 <= wait <= longest

    async def test_jobs_that_died_together_part_from_each_other(self, driver: StoreDriver) -> None:
        jobs = [f"job-{number}" for number in range(10)]
        await driver.add(*(a_job(job_id) for job_id in jobs))
        await driver.die_with(*jobs, worker_id="doomed-1")
        await driver.die_with(*jobs, worker_id="doomed-2")
        assert len({job.ready_at for job in await driver.store.get(jobs)}) == len(jobs)

    async def test_an_attempt_that_ends_by_itself_ends_the_row(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await survive(driver, "job", 3)
        driver.clock.advance(120)
        await driver.fail("job", retry_in=0.0)
        assert (await driver.job("job")).recoveries == 0
        await driver.die_with("job", worker_id="doomed")
        job = await driver.job("job")
        assert (job.recoveries, job.ready_at) == (1, driver.clock.now())
        assert len(job.recovery_history) == 4

    async def test_a_rerun_ends_the_row(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", max_recoveries=1))
        await survive(driver, "job", 2)
        assert await driver.status("job") is JobStatus.FAILED
        await driver.do(Rerun("job"))
        await survive(driver, "job", 1)
        assert await driver.statuses("job") == {"job": "pending"}

    async def test_a_release_neither_counts_as_a_recovery_nor_ends_the_row(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", max_recoveries=2))
        await survive(driver, "job", 2)
        for _ in range(3):
            driver.clock.advance(120)
            lease = await driver.run("job")
            await driver.do(Release("job", lease, "shutdown"))
        job = await driver.job("job")
        assert (job.status, job.recoveries) == (JobStatus.PENDING, 2)
        await survive(driver, "job", 1)
        assert await driver.status("job") is JobStatus.FAILED

    async def test_a_claim_undone_does_not_end_the_row(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await survive(driver, "job", 2)
        driver.clock.advance(120)
        lease = await driver.run("job")
        await driver.do(Unclaim("job", lease))
        assert (await driver.job("job")).recoveries == 2

    @pytest.mark.parametrize("allowed", [0, 1, 3])
    async def test_a_job_whose_workers_die_too_often_in_a_row_fails(
        self, driver: StoreDriver, clock: ManualClock, allowed: int
    ) -> None:
        await driver.add(a_job("job", max_recoveries=allowed))
        await survive(driver, "job", allowed)
        assert await driver.status("job") is JobStatus.PENDING
        clock.advance(120)
        answer = await driver.die_with("job", worker_id="the-last", why="out of memory")
        job = await driver.job("job")
        assert answer.jobs == (job,)
        assert (job.status, job.completed_at, job.lease) == (JobStatus.FAILED, clock.now(), None)
        assert job.error is not None
        assert job.error.type == "TooManyRecoveries"
        assert "out of memory" in job.error.message
        assert str(allowed + 1) in job.error.message
        assert len(job.recovery_history) == len(job.attempts) == allowed + 1

    async def test_without_a_limit_a_job_survives_any_number_of_deaths(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", max_recoveries=None))
        await survive(driver, "job", 20)
        assert await driver.status("job") is JobStatus.PENDING

    async def test_a_paused_job_fails_too_when_its_workers_die_too_often(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", max_recoveries=0))
        await driver.run("job")
        await driver.do(Pause("job"))
        await driver.do(Recover(WORKER, "it died"))
        assert await driver.status("job") is JobStatus.FAILED

    async def test_a_job_that_fails_this_way_takes_its_dependents_along(self, driver: StoreDriver) -> None:
        await driver.add(
            a_job("job", max_recoveries=0),
            a_job("near", "job"),
            a_job("far", "near"),
            a_job("run", "job", on_dependency_failure=DependencyFailurePolicy.RUN),
        )
        answer = await driver.die_with("job", worker_id="doomed")
        assert answer.jobs[0].job_id == "job"
        assert {job.job_id for job in answer.jobs} == {"job", "near", "far"}
        assert sorted(answer.jobs) == sorted(await driver.store.get(["job", "near", "far"]))
        assert await driver.statuses("job", "near", "far") == {
            "job": "failed", "near": "cancelled", "far": "cancelled",
        }  # fmt: skip
        assert (await driver.job("run")).unmet == 0

    async def test_a_job_and_its_dependent_that_die_together_are_answered_once_each_as_they_are(
        self, driver: StoreDriver
    ) -> None:
        await driver.add(a_job("parent", max_recoveries=0), a_job("child", "parent"))
        await driver.complete("parent")
        await driver.run("child", worker_id="doomed")
        await driver.do(Rerun("parent"))
        await driver.run("parent", worker_id="doomed")
        answer = await driver.do(Recover("doomed", "it died"))
        assert sorted(answer.jobs) == await driver.store.get(["child", "parent"])
        assert await driver.statuses("parent", "child") == {"parent": "failed", "child": "cancelled"}

    async def test_many_jobs_are_put_back_at_once(self, driver: StoreDriver) -> None:
        jobs = [f"job-{number}" for number in range(300)]
        await driver.add(*(a_job(job_id) for job_id in jobs))
        answer = await driver.die_with(*jobs, worker_id="doomed")
        assert {job.job_id for job in answer.jobs} == set(jobs)
        await driver.register()
        assert len(await driver.claim(a_claim(1, limit=1000))) == len(jobs)

    async def test_an_outcome_accepted_before_the_death_can_still_be_repeated(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        failed = Finish("job", lease, AttemptOutcome.FAILED, error=BOOM)
        await driver.do(failed)
        await driver.do(Recover(WORKER, "it died"))
        assert shown(await driver.do(failed)) == ((), False)
