"""Timeouts count running time; a timeout is a failure of its own kind, recorded even if the handler ignores it."""

import asyncio

from openagents_json.job import AttemptOutcome, EventType, JobContext, JobManager, JobStatus
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held, Stubborn
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


async def test_attempt_that_takes_too_long_fails_with_its_own_kind_of_error(
    manager: JobManager, clock: ManualClock
) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True, timeout=2.5)
    await held.wait_begun(job.job_id)

    await pass_time(clock, 2.4)
    assert await manager.get_job_status(job.job_id) is JobStatus.RUNNING
    await pass_time(clock, 0.2)

    done = await manager.get_job(job.job_id)
    assert (done.status, str(done.error)) == (JobStatus.FAILED, "Timeout: it ran longer than its timeout of 2.5 s")
    assert [attempt.outcome for attempt in done.attempts] == [AttemptOutcome.TIMED_OUT]
    assert held.cancelled == [job.job_id]


async def test_attempt_that_ends_in_time_leaves_no_timer(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    before = clock.pending
    job = await manager.create_job("work", auto_start=True, timeout=5)
    await held.wait_begun(job.job_id)
    await pass_time(clock, 4.9)
    held.let_go()

    assert (await soon(manager.wait_for_job(job.job_id))).status is JobStatus.COMPLETED
    await settled()
    assert clock.pending == before


async def test_queued_time_does_not_count(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await manager.create_job("work", job_id="second", auto_start=True, timeout=5)
    await held.wait_begun("first")
    await pass_time(clock, 100)
    held.let_go("first")
    await held.wait_begun("second")
    await pass_time(clock, 4)
    held.let_go("second")

    assert (await soon(manager.wait_for_job("second"))).status is JobStatus.COMPLETED


async def test_timed_out_attempt_is_retried_with_the_whole_timeout(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True, timeout=5, max_retries=2, retry_delay=10)
    await held.wait_begun(job.job_id)
    await pass_time(clock, 5)
    waiting = await manager.get_job(job.job_id)
    assert (waiting.status, waiting.retry_count) == (JobStatus.PENDING, 1)
    await pass_time(clock, 10)
    await held.wait_begun(job.job_id, times=2)
    await pass_time(clock, 4.9)
    assert await manager.get_job_status(job.job_id) is JobStatus.RUNNING
    await pass_time(clock, 10.1)
    await held.wait_begun(job.job_id, times=3)
    held.let_go()

    done = await soon(manager.wait_for_job(job.job_id))
    assert done.status is JobStatus.COMPLETED
    assert [attempt.outcome.value for attempt in done.attempts] == ["timed_out", "timed_out", "completed"]


async def test_handlers_own_timeout_error_is_an_ordinary_failure(manager: JobManager) -> None:
    @manager.handler
    async def work() -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    job = await manager.create_job("work", auto_start=True, timeout=60)

    done = await soon(manager.wait_for_job(job.job_id))
    assert done.error is not None
    assert done.error.type == "TimeoutError"
    assert [attempt.outcome for attempt in done.attempts] == [AttemptOutcome.FAILED]


async def test_what_a_handler_returns_after_its_timeout_does_not_count(manager: JobManager, clock: ManualClock) -> None:
    @manager.handler
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    job = await manager.create_job("work", auto_start=True, timeout=5)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert (done.status, done.result) == (JobStatus.FAILED, None)
    assert done.error is not None
    assert done.error.type == "Timeout"


async def test_timeout_is_recorded_when_the_handler_has_cleaned_up(manager: JobManager, clock: ManualClock) -> None:
    cleaned_up = asyncio.Event()

    @manager.handler
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned_up.wait()

    job = await manager.create_job("work", auto_start=True, timeout=5)
    await settled()
    await pass_time(clock, 6)
    assert await manager.get_job_status(job.job_id) is JobStatus.RUNNING
    cleaned_up.set()

    assert (await soon(manager.wait_for_job(job.job_id))).status is JobStatus.FAILED
    assert clock.monotonic() == 6


async def test_timeout_of_a_handler_that_ignores_it_is_recorded_all_the_same(
    managers: Managers, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("stubborn", stubborn)
    manager.register_handler("held", held)
    events: list[EventType] = []
    manager.events.subscribe(lambda event: events.append(event.type), types=["failed", "completed", "retrying"])
    job = await manager.create_job("stubborn", payload="late", auto_start=True, timeout=5)
    await manager.create_job("held", job_id="next", auto_start=True)

    done = await in_time(clock, manager.wait_for_job(job.job_id), at_most=11)
    assert (done.status, done.result) == (JobStatus.FAILED, None)
    await pass_time(clock, 60)
    assert held.begun == [], "it keeps its slot"

    stubborn.let_go()
    await held.wait_begun("next")
    assert await manager.get_job(job.job_id) == done, "its late outcome is refused"
    assert events == [EventType.FAILED]


async def test_retry_of_a_timed_out_job_waits_until_its_old_attempt_has_ended(
    manager: JobManager, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager.register_handler("stubborn", stubborn)
    job = await manager.create_job("stubborn", auto_start=True, timeout=5, max_retries=1, retry_delay=1)
    await pass_time(clock, 60)
    assert stubborn.begun == 1

    stubborn.let_go()
    assert (await in_time(clock, manager.wait_for_job(job.job_id))).status is JobStatus.COMPLETED
    assert stubborn.begun == 2


async def test_retry_that_has_to_wait_for_its_old_attempt_takes_no_slot(
    managers: Managers, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager, held = managers(max_concurrent_jobs=2), Held()
    manager.register_handler("stubborn", stubborn)
    manager.register_handler("held", held)
    job = await manager.create_job("stubborn", auto_start=True, timeout=5, max_retries=1, retry_delay=0)
    await pass_time(clock, 60)

    assert await manager.get_job_status(job.job_id) is JobStatus.PENDING, "nothing of it runs yet"
    await manager.create_job("held", job_id="next", auto_start=True)
    await settled()
    assert held.begun == ["next"]

    stubborn.let_go()
    await soon(manager.wait_for_job(job.job_id))


async def test_job_cancelled_while_its_handler_ignores_the_timeout_is_cancelled(
    manager: JobManager, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager.register_handler("stubborn", stubborn)
    job = await manager.create_job("stubborn", auto_start=True, timeout=5, max_retries=3)
    await pass_time(clock, 5.1)

    cancelled = await manager.cancel_job(job.job_id)
    stubborn.let_go()
    await pass_time(clock, 60)

    assert await manager.get_job(job.job_id) == cancelled
    assert stubborn.begun == 1


async def test_context_says_that_time_is_up(manager: JobManager, clock: ManualClock) -> None:
    said: list[bool] = []

    @manager.handler
    async def work(context: JobContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            said.append(context.cancelled)

    await manager.create_job("work", auto_start=True, timeout=5)
    await pass_time(clock, 6)

    assert said == [True]
