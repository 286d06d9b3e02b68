"""What a job says of itself over its life: why it waits, when it ran, who runs it, what became of its attempts."""

from datetime import timedelta

import pytest

from openagents_json.job import Attempt, AttemptOutcome, JobError, JobManager, JobStatus, WaitReason
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


async def test_pending_job_says_what_it_waits_for(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="parent")
    await manager.create_job("work", job_id="j", dependencies=["parent"], delay=60)

    async def reason() -> WaitReason | None:
        return (await manager.get_job("j")).wait_reason

    assert await reason() is WaitReason.START
    await manager.start_job("j")
    assert await reason() is WaitReason.DEPENDENCIES
    await manager.start_job("parent")
    await held.wait_begun("parent")
    held.let_go("parent")
    await soon(manager.wait_for_job("parent"))
    assert await reason() is WaitReason.TIME
    await pass_time(clock, 59.999)
    assert await reason() is WaitReason.TIME
    await pass_time(clock, 0.001)
    assert await reason() is None
    assert await manager.get_job_status("j") is JobStatus.RUNNING
    await manager.pause_job("j")
    assert await reason() is None
    await manager.cancel_job("j")
    assert await reason() is None


async def test_job_ready_while_every_slot_is_taken_waits_for_a_worker(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", auto_start=True)
    second = await manager.create_job("work", auto_start=True)
    await settled()

    assert (await manager.get_job(second.job_id)).wait_reason is WaitReason.WORKER


async def test_fields_follow_a_job_through_retry_and_completion(manager: JobManager, clock: ManualClock) -> None:
    held = Held()

    @manager.handler
    async def work(context: object) -> str:
        await held(None, context)  # type: ignore[arg-type] # it is a JobContext
        if held.begun.count("j") == 1:
            msg = "first try"
            raise ConnectionError(msg)
        return "second try"

    created = await manager.create_job("work", job_id="j", max_retries=3, retry_delay=30)
    assert (created.attempt, created.retry_count, created.worker_id) == (0, 0, None)
    assert (created.started_at, created.completed_at, created.error, created.attempts) == (None, None, None, ())
    assert created.created_at == created.updated_at == clock.now()

    await pass_time(clock, 5)
    started = clock.now()
    await manager.start_job("j")
    await held.wait_begun("j")
    running = await manager.get_job("j")
    assert (running.attempt, running.started_at, running.completed_at) == (1, started, None)
    worker_id = running.worker_id
    assert worker_id

    await pass_time(clock, 7)
    held.let_go("j")
    await settled()
    waiting = await manager.get_job("j")
    error = waiting.error
    assert isinstance(error, JobError)
    assert (error.type, error.message, str(error)) == ("ConnectionError", "first try", "ConnectionError: first try")
    assert (waiting.attempt, waiting.retry_count, waiting.completed_at) == (1, 1, None)
    assert waiting.run_at == clock.now() + timedelta(seconds=30)
    first = Attempt(1, worker_id, started, clock.now(), AttemptOutcome.FAILED, error)
    assert waiting.attempts == (first,)

    done = await in_time(clock, manager.wait_for_job("j"))
    again = started + timedelta(seconds=37)
    assert (done.status, done.result, done.error) == (JobStatus.COMPLETED, "second try", None)
    assert (done.attempt, done.retry_count, done.worker_id) == (2, 1, worker_id)
    assert (done.started_at, done.completed_at, done.progress) == (again, again, 1.0)
    assert done.attempts == (first, Attempt(2, worker_id, again, again, AttemptOutcome.COMPLETED))


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
async def test_every_terminal_state_has_its_time(manager: JobManager, clock: ManualClock, status: JobStatus) -> None:
    held = Held()

    @manager.handler
    async def work(context: object) -> None:
        await held(None, context)  # type: ignore[arg-type] # it is a JobContext
        if status is JobStatus.FAILED:
            raise ValueError

    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    await pass_time(clock, 3)
    if status is JobStatus.CANCELLED:
        await manager.cancel_job("j")
    held.let_go()

    done = await soon(manager.wait_for_job("j"))
    assert (done.status, done.completed_at, done.updated_at) == (status, clock.now(), clock.now())
    assert done.started_at == clock.now() - timedelta(seconds=3)


async def test_job_waited_for_is_seen_as_it_is_stored(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True, payload={"deep": [1, 2]}, metadata={"of": "mine"})
    await held.wait_begun(job.job_id)
    held.let_go()

    done = await soon(manager.wait_for_job(job.job_id))

    assert done == await manager.get_job(job.job_id)
    assert done["result"] == done.result == {"deep": [1, 2]}
