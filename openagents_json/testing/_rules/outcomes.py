"""What each change leaves on the job: times, attempts, counters, errors, histories."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from openagents_json.job._changes import (
    Cancel,
    Finish,
    Pause,
    Progress,
    Release,
    Rerun,
    Resume,
    Start,
    Unclaim,
)
from openagents_json.job._record import Recovery
from openagents_json.job.model import Attempt, AttemptOutcome, JobError, JobStatus
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_claim, a_job

if TYPE_CHECKING:
    from openagents_json.testing.clock import ManualClock

COMPLETED, FAILED, TIMED_OUT = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT


class OutcomeRules(StoreRules):
    """What each change leaves on the job."""

    async def test_a_new_job_has_the_time_it_was_stored_at_and_no_history(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        (job,) = await driver.add(a_job("job"))
        assert job.created_at == job.updated_at == job.ready_at == clock.now()
        assert (job.status, job.queued, job.unmet) == (JobStatus.PENDING, True, 0)
        assert (job.run_at, job.started_at, job.completed_at) == (None, None, None)
        assert (job.attempt, job.retry_count, job.recoveries) == (0, 0, 0)
        assert (job.lease, job.worker_id, job.finished_lease, job.cancelled_by) == (None, None, None, None)
        assert (job.progress, job.progress_message, job.result, job.error) == (0.0, "", None, None)
        assert (job.attempts, job.recovery_history) == ((), ())

    async def test_a_job_that_was_not_started_is_ready_from_the_moment_it_is(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        (job,) = await driver.add(a_job("job", queued=False))
        assert job.ready_at is None
        clock.advance(3)
        await driver.do(Start("job"))
        job = await driver.job("job")
        assert (job.queued, job.ready_at) == (True, clock.now())

    async def test_a_claim_begins_an_attempt(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.register()
        (before,) = await driver.add(a_job("job"))
        clock.advance(2)
        claimed = await driver.claimed(a_claim(7))
        job = await driver.job("job")
        assert claimed.jobs == (job,)
        assert job == before._replace(
            updated_at=clock.now(),
            version=job.version,
            status=JobStatus.RUNNING,
            ready_at=None,
            started_at=clock.now(),
            attempt=1,
            lease=a_claim(7).lease,
            worker_id=WORKER,
        )
        assert job.version > before.version

    async def test_a_success_ends_the_attempt_and_the_job(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        started = clock.now()
        await driver.do(Progress("job", lease, 0.25, "a quarter"))
        clock.advance(4)
        before = await driver.job("job")
        await driver.do(Finish("job", lease, COMPLETED, b"7"))
        job = await driver.job("job")
        assert job == before._replace(
            updated_at=clock.now(),
            version=job.version,
            status=JobStatus.COMPLETED,
            lease=None,
            finished_lease=lease,
            completed_at=clock.now(),
            progress=1.0,
            result=b"7",
            attempts=(Attempt(1, WORKER, started, clock.now(), COMPLETED),),
        )

    async def test_a_failure_without_retry_ends_the_job_and_keeps_the_progress(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        started = clock.now()
        await driver.do(Progress("job", lease, 0.25, "a quarter"))
        clock.advance(4)
        before = await driver.job("job")
        await driver.do(Finish("job", lease, FAILED, error=BOOM))
        job = await driver.job("job")
        assert job == before._replace(
            updated_at=clock.now(),
            version=job.version,
            status=JobStatus.FAILED,
            lease=None,
            finished_lease=lease,
            completed_at=clock.now(),
            error=BOOM,
            attempts=(Attempt(1, WORKER, started, clock.now(), FAILED, BOOM),),
        )

    async def test_a_failure_with_a_retry_waits_for_its_time(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("job", max_retries=3))
        lease = await driver.run("job")
        started = clock.now()
        clock.advance(4)
        before = await driver.job("job")
        await driver.do(Finish("job", lease, TIMED_OUT, error=BOOM, retry_in=2.5))
        job = await driver.job("job")
        again = clock.now() + timedelta(seconds=2.5)
        assert job == before._replace(
            updated_at=clock.now(),
            version=job.version,
            status=JobStatus.PENDING,
            lease=None,
            finished_lease=lease,
            retry_count=1,
            run_at=again,
            ready_at=again,
            error=BOOM,
            attempts=(Attempt(1, WORKER, started, clock.now(), TIMED_OUT, BOOM),),
        )

    async def test_a_success_after_a_retry_clears_the_error_and_keeps_the_attempts(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        await driver.fail("job", retry_in=1.0)
        clock.advance(1)
        await driver.complete("job")
        job = await driver.job("job")
        assert (job.error, job.retry_count, job.attempt) == (None, 1, 2)
        assert [(attempt.number, attempt.outcome) for attempt in job.attempts] == [(1, FAILED), (2, COMPLETED)]

    async def test_an_outcome_can_bring_the_last_progress_along(self, driver: StoreDriver) -> None:
        await driver.add(a_job("good"), a_job("bad"))
        lease = await driver.run("good", "bad")
        await driver.do(Finish("good", lease, COMPLETED, b"1", progress=(0.9, "nearly")))
        await driver.do(Finish("bad", lease, FAILED, error=BOOM, progress=(0.4, "stuck")))
        good, bad = await driver.job("good"), await driver.job("bad")
        assert (good.progress, good.progress_message) == (1.0, "nearly")
        assert (bad.progress, bad.progress_message) == (0.4, "stuck")

    async def test_progress_is_kept_until_the_next_attempt_begins(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Progress("job", lease, 0.5, "half"))
        await driver.do(Finish("job", lease, FAILED, error=BOOM, retry_in=1.0))
        job = await driver.job("job")
        assert (job.progress, job.progress_message) == (0.5, "half")
        clock.advance(1)
        await driver.run("job")
        job = await driver.job("job")
        assert (job.progress, job.progress_message) == (0.0, "")

    async def test_an_outcome_is_accepted_once_whatever_became_of_the_job_since(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        failed = Finish("job", lease, FAILED, error=BOOM, retry_in=0.0)
        await driver.do(failed)
        await driver.run("job")
        before = await driver.job("job")
        assert not (await driver.do(failed)).changed
        assert await driver.job("job") == before

    async def test_cancelling_a_held_job_ends_its_attempt(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("job"))
        await driver.run("job")
        started = clock.now()
        clock.advance(1)
        await driver.do(Cancel("job", "too dear"))
        job = await driver.job("job")
        error = JobError("Cancelled", "too dear")
        assert (job.status, job.error, job.completed_at) == (JobStatus.CANCELLED, error, clock.now())
        assert job.attempts == (Attempt(1, WORKER, started, clock.now(), AttemptOutcome.CANCELLED, error),)

    async def test_cancelling_a_job_nobody_holds_adds_no_attempt(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await driver.fail("job", retry_in=9.0)
        await driver.do(Cancel("job", "too dear"))
        job = await driver.job("job")
        assert (job.status, job.error) == (JobStatus.CANCELLED, JobError("Cancelled", "too dear"))
        assert [attempt.outcome for attempt in job.attempts] == [FAILED]

    async def test_a_released_job_is_ready_again_and_charged_nothing(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        started = clock.now()
        clock.advance(1)
        await driver.do(Release("job", lease, "shutdown"))
        job = await driver.job("job")
        assert (job.status, job.ready_at) == (JobStatus.PENDING, clock.now())
        assert (job.attempt, job.retry_count, job.recoveries) == (1, 0, 0)
        assert job.recovery_history == (Recovery(clock.now(), "shutdown", WORKER, 1),)
        error = JobError("Interrupted", "shutdown")
        assert job.attempts == (Attempt(1, WORKER, started, clock.now(), AttemptOutcome.INTERRUPTED, error),)

    async def test_a_released_job_does_not_wait_for_the_time_it_waited_for_before(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        await driver.fail("job", retry_in=5.0)
        clock.advance(7)
        lease = await driver.run("job")
        await driver.do(Release("job", lease, "shutdown"))
        assert (await driver.job("job")).ready_at == clock.now()

    async def test_a_claim_undone_leaves_no_trace(self, driver: StoreDriver, clock: ManualClock) -> None:
        (before,) = await driver.add(a_job("job"))
        lease = await driver.run("job")
        clock.advance(1)
        await driver.do(Unclaim("job", lease))
        job = await driver.job("job")
        assert job.ready_at is not None  # it may have lost its place among its equals
        assert job == before._replace(version=job.version, updated_at=job.updated_at, ready_at=job.ready_at)

    async def test_a_later_claim_undone_leaves_the_attempts_before_it(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        await driver.fail("job", retry_in=1.0)
        clock.advance(1)
        before = await driver.job("job")
        lease = await driver.run("job", worker_id="worker-2")
        await driver.do(Unclaim("job", lease))
        job = await driver.job("job")
        assert (job.attempt, job.attempts) == (1, before.attempts)
        assert (job.started_at, job.worker_id) == (before.started_at, WORKER)
        assert (job.retry_count, job.recovery_history) == (1, ())

    async def test_a_rerun_starts_afresh_and_keeps_the_history(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Release("job", lease, "shutdown"))
        await driver.fail("job", retry_in=1.0)
        clock.advance(1)
        lease = await driver.run("job")
        await driver.do(Finish("job", lease, FAILED, error=BOOM, progress=(0.5, "half")))
        before = await driver.job("job")
        clock.advance(1)
        await driver.do(Rerun("job"))
        job = await driver.job("job")
        assert job == before._replace(
            updated_at=clock.now(),
            version=job.version,
            status=JobStatus.PENDING,
            run_at=None,
            ready_at=clock.now(),
            completed_at=None,
            retry_count=0,
            recoveries=0,
            progress=0.0,
            progress_message="",
            error=None,
        )
        assert (job.attempt, len(job.attempts), len(job.recovery_history)) == (3, 3, 1)

    async def test_a_completed_job_that_runs_again_has_no_result_meanwhile(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await driver.complete("job", result=b'"first"')
        await driver.do(Rerun("job"))
        assert (await driver.job("job")).result is None
        await driver.complete("job", result=b'"second"')
        assert (await driver.job("job")).result == b'"second"'

    async def test_an_old_outcome_does_not_end_a_job_that_runs_again(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Finish("job", lease, COMPLETED, b'"first"'))
        await driver.do(Rerun("job"))
        await driver.run("job")
        await driver.do(Finish("job", lease, COMPLETED, b'"first"'))
        assert await driver.status("job") is JobStatus.RUNNING

    async def test_a_cancelled_job_started_afresh_is_not_ended_by_the_late_outcome_of_its_old_attempt(
        self, driver: StoreDriver
    ) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Cancel("job", "a mistake"))
        await driver.do(Rerun("job"))
        await driver.run("job")
        await driver.refusal(Finish("job", lease, COMPLETED, b'"late"'))
        await driver.refusal(Progress("job", lease, 0.9, "late"))
        assert await driver.status("job") is JobStatus.RUNNING

    async def test_a_paused_job_keeps_its_lease_and_its_outcome_is_accepted(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Pause("job"))
        job = await driver.job("job")
        assert (job.status, job.lease, job.worker_id) == (JobStatus.PAUSED, lease, WORKER)
        await driver.do(Finish("job", lease, COMPLETED, b'"on its way"'))
        assert (await driver.job("job")).result == b'"on its way"'

    async def test_a_job_paused_before_it_started_is_not_started_by_resuming(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", queued=False))
        await driver.do(Pause("job"))
        await driver.do(Resume("job"))
        job = await driver.job("job")
        assert (job.status, job.queued, job.ready_at) == (JobStatus.PENDING, False, None)

    async def test_a_resumed_job_still_waits_for_its_time(self, driver: StoreDriver, clock: ManualClock) -> None:
        (before,) = await driver.add(a_job("job", delay=10.0))
        await driver.do(Pause("job"))
        assert (await driver.job("job")).ready_at is None
        clock.advance(4)
        await driver.do(Resume("job"))
        assert (await driver.job("job")).ready_at == before.run_at
        await driver.do(Pause("job"))
        clock.advance(20)
        await driver.do(Resume("job"))
        assert (await driver.job("job")).ready_at == clock.now()

    async def test_a_retry_that_was_paused_meanwhile_waits_for_its_time_once_resumed(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        await driver.do(Pause("job"))
        await driver.do(Finish("job", lease, FAILED, error=BOOM, retry_in=30.0))
        clock.advance(10)
        await driver.do(Resume("job"))
        job = await driver.job("job")
        assert (job.status, job.ready_at) == (JobStatus.PENDING, clock.now() + timedelta(seconds=20))

    async def test_histories_keep_the_last_fifty(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("job"))
        for number in range(1, 53):
            claim = a_claim(number)
            assert await driver.claim(claim) == ["job"]
            await driver.do(Release("job", claim.lease, f"stop {number}"))
        job = await driver.job("job")
        assert job.attempt == 52
        assert [attempt.number for attempt in job.attempts] == list(range(3, 53))
        assert [entry.why for entry in job.recovery_history] == [f"stop {number}" for number in range(3, 53)]
