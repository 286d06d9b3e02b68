"""Every row of the life-cycle table, through the manager; asking for the state a job is in already changes nothing."""

from openagents_json.job import AttemptOutcome, JobManager, JobStatus, Retry, WaitReason
from openagents_json.job._changes import Finish
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._stores import ScriptedStore, changes_a
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


async def test_new_job_is_pending(manager: JobManager) -> None:
    job = await manager.create_job("work")

    assert (job.status, job.wait_reason) == (JobStatus.PENDING, WaitReason.START)


async def test_started_job_runs_and_completes(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", payload="in and out")

    queued = await manager.start_job(job.job_id)
    assert (queued.status, queued.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
    await held.wait_begun(job.job_id)
    assert await manager.get_job_status(job.job_id) is JobStatus.RUNNING
    assert await manager.get_job_results(job.job_id) is None
    held.let_go()

    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.status, done.result, done.wait_reason) == (JobStatus.COMPLETED, "in and out", None)
    assert await manager.get_job_results(job.job_id) == "in and out"


async def test_job_that_is_not_started_does_not_run(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)

    await manager.create_job("work")

    await pass_time(clock, 3600)
    assert held.begun == []


async def test_job_without_retries_fails_with_its_error(manager: JobManager) -> None:
    @manager.handler
    async def work() -> None:
        msg = "cannot"
        raise ValueError(msg)

    job = await manager.create_job("work", auto_start=True)

    done = await soon(manager.wait_for_job(job.job_id))
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert (done.error.type, done.error.message) == ("ValueError", "cannot")
    assert "raise ValueError(msg)\nValueError: cannot\n" in done.error.traceback
    assert "_gate.py" not in done.error.traceback, "the engine's own frames say nothing to the handler's author"


async def test_failed_attempt_with_a_retry_left_is_pending_again(manager: JobManager, clock: ManualClock) -> None:
    @manager.handler
    async def work() -> None:
        raise Retry("later", delay=20)

    job = await manager.create_job("work", auto_start=True, max_retries=1)
    await settled()

    waiting = await manager.get_job(job.job_id)
    assert (waiting.status, waiting.wait_reason) == (JobStatus.PENDING, WaitReason.TIME)
    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert done.status is JobStatus.FAILED


async def test_running_job_is_released_to_pending_at_shutdown(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)

    await in_time(clock, manager.stop(timeout=0))

    viewer = JobManager(manager.job_store, clock=clock, run_jobs=False)
    released = await viewer.get_job(job.job_id)
    await viewer.stop()
    assert (released.status, released.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)


async def test_pending_job_is_paused_and_resumed_to_pending(manager: JobManager) -> None:
    job = await manager.create_job("nobody-can", auto_start=True)

    paused = await manager.pause_job(job.job_id)
    assert (paused.status, paused.wait_reason) == (JobStatus.PAUSED, None)
    resumed = await manager.resume_job(job.job_id)
    assert (resumed.status, resumed.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)


async def test_running_job_is_paused_and_resumed_to_running(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)

    assert (await manager.pause_job(job.job_id)).status is JobStatus.PAUSED
    assert (await manager.resume_job(job.job_id)).status is JobStatus.RUNNING
    held.let_go()
    assert (await soon(manager.wait_for_job(job.job_id))).status is JobStatus.COMPLETED
    assert held.begun == [job.job_id], "it went on, and did not begin again"


async def test_paused_job_that_nobody_holds_any_more_is_resumed_to_pending(
    managers: Managers, clock: ManualClock
) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)
    await manager.pause_job(job.job_id)
    await in_time(clock, manager.stop(timeout=0))

    await manager.start()
    await settled()
    assert await manager.get_job_status(job.job_id) is JobStatus.PAUSED
    assert held.begun == [job.job_id]
    assert (await manager.resume_job(job.job_id)).status is JobStatus.PENDING

    held.let_go()
    assert (await soon(manager.wait_for_job(job.job_id))).status is JobStatus.COMPLETED
    assert held.begun == [job.job_id, job.job_id]


async def test_outcome_on_its_way_when_its_job_is_paused_counts(managers: Managers, store: MemoryJobStore) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager, other = managers(scripted), managers(store, run_jobs=False)
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True, payload="made it")
    await held.wait_begun(job.job_id)
    on_its_way = scripted.hold("apply", changes_a(Finish))
    held.let_go()
    await on_its_way.wait_reached()

    assert (await other.pause_job(job.job_id)).status is JobStatus.PAUSED
    on_its_way.let_go()

    done = await soon(other.wait_for_job(job.job_id))
    assert (done.status, done.result) == (JobStatus.COMPLETED, "made it")


async def test_pending_job_is_cancelled(manager: JobManager) -> None:
    job = await manager.create_job("work")

    cancelled = await manager.cancel_job(job.job_id, "not needed")

    assert (cancelled.status, str(cancelled.error)) == (JobStatus.CANCELLED, "Cancelled: not needed")
    assert cancelled.completed_at is not None
    assert cancelled.attempts == ()


async def test_running_job_is_cancelled(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)

    cancelled = await manager.cancel_job(job.job_id)
    await settled()

    assert (cancelled.status, str(cancelled.error)) == (JobStatus.CANCELLED, "Cancelled: on request")
    assert [attempt.outcome for attempt in cancelled.attempts] == [AttemptOutcome.CANCELLED]
    assert held.cancelled == [job.job_id]


async def test_paused_job_is_cancelled(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)
    await manager.pause_job(job.job_id)

    assert (await manager.cancel_job(job.job_id)).status is JobStatus.CANCELLED
    await settled()
    assert held.cancelled == [job.job_id]


async def test_failed_completed_and_cancelled_jobs_run_again_when_asked_to(manager: JobManager) -> None:
    runs: list[str] = []

    @manager.handler
    async def work(payload: str) -> str:
        runs.append(payload)
        if payload == "fails" and runs.count(payload) == 1:
            raise ValueError
        return f"done {runs.count(payload)}"

    for payload in ("fails", "completes", "is cancelled"):
        await manager.create_job("work", job_id=payload.split()[-1], payload=payload)
    await manager.start_job("fails")
    await manager.start_job("completes")
    await manager.cancel_job("cancelled")
    assert (await soon(manager.wait_for_job("fails"))).status is JobStatus.FAILED
    assert (await soon(manager.wait_for_job("completes"))).status is JobStatus.COMPLETED

    for job_id in ("fails", "completes", "cancelled"):
        again = await manager.retry_job(job_id)
        assert (again.status, again.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
        assert (again.result, again.error, again.completed_at) == (None, None, None)

    assert (await soon(manager.wait_for_job("fails"))).result == "done 2"
    assert (await soon(manager.wait_for_job("completes"))).result == "done 2"
    assert (await soon(manager.wait_for_job("cancelled"))).result == "done 1"


async def test_asking_for_the_state_a_job_is_in_changes_nothing(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    queued = await manager.create_job("nobody-can", auto_start=True)
    running = await manager.create_job("work", auto_start=True)
    cancelled = await manager.cancel_job((await manager.create_job("work")).job_id)
    await held.wait_begun(running.job_id)
    await settled()
    queued, running = await manager.get_job(queued.job_id), await manager.get_job(running.job_id)

    assert await manager.start_job(queued.job_id) == queued
    assert await manager.resume_job(queued.job_id) == queued
    assert await manager.retry_job(queued.job_id) == queued
    assert await manager.start_job(running.job_id) == running
    assert await manager.resume_job(running.job_id) == running
    assert await manager.cancel_job(cancelled.job_id, "again") == cancelled
    paused = await manager.pause_job(running.job_id)
    assert await manager.pause_job(running.job_id) == paused
