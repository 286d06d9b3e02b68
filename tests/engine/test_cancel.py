"""Cancelling: decided in the store at once; the handler is told, and whatever it does then changes nothing."""

import asyncio
import logging

import pytest

from openagents_json.job import EventType, JobContext, JobEvent, JobManager, JobStatus
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held, Stubborn
from tests.engine._time import pass_time, settled, soon
from tests.engine.conftest import Managers

#: The events that tell a job's end.
ENDS = (EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED)


async def test_handler_that_swallows_cancellation_once_changes_nothing(manager: JobManager) -> None:
    events: list[EventType] = []
    manager.events.subscribe(lambda event: events.append(event.type), types=ENDS)

    @manager.handler
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "late"

    job = await manager.create_job("work", auto_start=True)
    await settled()
    cancelled = await manager.cancel_job(job.job_id)
    await settled()

    assert await manager.get_job(job.job_id) == cancelled
    assert events == [EventType.CANCELLED]


async def test_handler_that_ignores_cancellation_keeps_its_slot_until_it_returns(
    managers: Managers, clock: ManualClock, stubborn: Stubborn, caplog: pytest.LogCaptureFixture
) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("stubborn", stubborn)
    manager.register_handler("held", held)
    job = await manager.create_job("stubborn", payload="late", auto_start=True)
    await settled()
    cancelled = await manager.cancel_job(job.job_id)
    await manager.create_job("held", job_id="next", auto_start=True)

    with caplog.at_level(logging.WARNING):
        await pass_time(clock, 3600)
    assert f"job {job.job_id} (stubborn) takes no notice of being stopped (cancelled)" in caplog.text
    assert held.begun == [], "the slot is not free as long as the handler runs"

    stubborn.let_go()
    await held.wait_begun("next")
    assert await manager.get_job(job.job_id) == cancelled, "its late outcome is refused"
    await manager.create_job("held", job_id="last", auto_start=True)
    await settled()
    assert held.begun == ["next"], "one slot came free, not two"


async def test_handler_that_takes_its_time_to_clean_up_keeps_its_slot_meanwhile(
    managers: Managers, clock: ManualClock
) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("held", held)
    cleaned_up = asyncio.Event()

    @manager.handler
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await cleaned_up.wait()

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.cancel_job(job.job_id)
    await manager.create_job("held", job_id="next", auto_start=True)
    await pass_time(clock, 60)
    assert held.begun == []

    cleaned_up.set()
    await held.wait_begun("next")


async def test_job_cancels_itself(manager: JobManager) -> None:
    went_on = asyncio.Event()

    @manager.handler
    async def work(context: JobContext) -> str:
        await manager.cancel_job(context.job_id, "seen enough")
        await asyncio.sleep(0)
        went_on.set()
        return "result"

    job = await manager.create_job("work", auto_start=True)

    done = await soon(manager.wait_for_job(job.job_id))
    await settled()
    assert (done.status, str(done.error)) == (JobStatus.CANCELLED, "Cancelled: seen enough")
    assert not went_on.is_set()


async def test_context_says_that_the_job_is_cancelled(manager: JobManager) -> None:
    said: list[bool] = []

    @manager.handler
    async def work(context: JobContext) -> None:
        said.append(context.cancelled)
        try:
            await asyncio.Event().wait()
        finally:
            said.append(context.cancelled)

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.cancel_job(job.job_id)
    await settled()

    assert said == [False, True]


async def test_job_is_cancelled_by_another_manager_of_the_same_store(managers: Managers) -> None:
    manager, other, held = managers(), managers(run_jobs=False), Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)

    await other.cancel_job(job.job_id)
    await settled()

    assert held.cancelled == [job.job_id]


async def test_job_is_paused_and_resumed_by_another_manager_of_the_same_store(managers: Managers) -> None:
    manager, other, held = managers(), managers(run_jobs=False), Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)

    await other.pause_job(job.job_id)
    await settled()
    held.let_go()
    await settled()
    assert held.ended == []
    await other.resume_job(job.job_id)
    await soon(other.wait_for_job(job.job_id))


async def test_retry_of_a_cancelled_job_waits_until_its_old_attempt_has_ended(
    manager: JobManager, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager.register_handler("stubborn", stubborn)
    job = await manager.create_job("stubborn", payload="done", auto_start=True)
    await settled()
    await manager.cancel_job(job.job_id)

    await manager.retry_job(job.job_id)
    await pass_time(clock, 60)
    assert stubborn.begun == 1

    stubborn.let_go()
    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.status, done.result, done.attempt, stubborn.begun) == (JobStatus.COMPLETED, "done", 2, 2)


async def test_job_cancelled_and_retried_in_one_breath_waits_for_its_old_attempt(
    manager: JobManager, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager.register_handler("stubborn", stubborn)
    job = await manager.create_job("stubborn", payload="done", auto_start=True)
    await settled()

    await asyncio.gather(manager.cancel_job(job.job_id), manager.retry_job(job.job_id))
    await pass_time(clock, 60)
    assert stubborn.begun == 1

    stubborn.let_go()
    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.result, stubborn.begun) == ("done", 2)


async def test_two_who_cancel_at_once_both_see_it_cancelled(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)

    first, second = await asyncio.gather(
        manager.cancel_job(job.job_id, "first"), manager.cancel_job(job.job_id, "second")
    )

    assert first == second
    assert str(first.error) == "Cancelled: first"


async def test_cancellation_that_is_not_the_managers_is_a_failure(manager: JobManager) -> None:
    @manager.handler
    async def work(payload: str) -> str:
        if payload == "raises":
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return "unreachable"

    for payload in ("raises", "cancels its task"):
        job = await manager.create_job("work", payload=payload, auto_start=True)
        done = await soon(manager.wait_for_job(job.job_id))
        assert done.status is JobStatus.FAILED
        assert str(done.error) == "CancelledError: the handler was cancelled, and not by its manager"


async def test_job_cancelled_while_its_outcome_is_on_the_way_stays_cancelled(
    managers: Managers, store: MemoryJobStore
) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    ended: list[JobEvent] = []
    manager.events.subscribe(ended.append, types=ENDS)
    for rounds in range(8):
        job = await manager.create_job("work", auto_start=True)
        await held.wait_begun(job.job_id)
        held.let_go(job.job_id)
        for _ in range(rounds):
            await asyncio.sleep(0)
        cancelling = asyncio.create_task(manager.cancel_job(job.job_id))
        done = await soon(manager.wait_for_job(job.job_id))
        await asyncio.wait({cancelling})
        await settled()

        assert await manager.get_job(job.job_id) == done, "whichever came first, it is final"
        assert [event.type.value for event in ended] == [done.status.value]
        assert (cancelling.exception() is None) is (done.status is JobStatus.CANCELLED)
        ended.clear()
