"""Stopping during everything: jobs get their time, then are put back uncharged; it always ends; it can start again."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from openagents_json.errors import ManagerStoppedError, StoreClosedError
from openagents_json.job import AttemptOutcome, EventType, Job, JobContext, JobManager, JobStatus, Retry, WaitReason
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held, HeldThread, Stubborn
from tests.engine._stores import ScriptedStore, claims
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


@pytest.fixture
async def viewer(managers: Managers) -> JobManager:
    """Give a second manager of the same store, that looks and runs nothing."""
    viewer = managers(run_jobs=False)
    await viewer.start()
    return viewer


async def test_running_jobs_get_the_time_they_need(managers: Managers, clock: ManualClock, viewer: JobManager) -> None:
    manager, held = managers(shutdown_timeout=30), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", payload="done", auto_start=True)
    await held.wait_begun("j")

    stopping = asyncio.create_task(manager.stop())
    await pass_time(clock, 29)
    assert not stopping.done()
    held.let_go()
    await soon(stopping)

    assert await viewer.get_job_results("j") == "done"
    assert clock.monotonic() == 29


async def test_running_jobs_are_interrupted_when_their_time_is_over_and_put_back_uncharged(
    managers: Managers, clock: ManualClock, viewer: JobManager
) -> None:
    manager, held = managers(shutdown_timeout=30), Held()
    manager.register_handler("work", held)
    told: list[str] = []
    manager.events.subscribe(lambda event: told.append(event.job.status.value), types=[EventType.RELEASED])
    await manager.create_job("work", job_id="j", auto_start=True, max_retries=2)
    await held.wait_begun("j")

    stopping = asyncio.create_task(manager.stop())
    await pass_time(clock, 29.9)
    assert held.cancelled == []
    await pass_time(clock, 0.1)
    await soon(stopping)

    job = await viewer.get_job("j")
    assert held.cancelled == ["j"]
    assert (job.status, job.wait_reason, job.retry_count) == (JobStatus.PENDING, WaitReason.WORKER, 0)
    assert [attempt.outcome for attempt in job.attempts] == [AttemptOutcome.INTERRUPTED]
    assert str(job.attempts[0].error) == "Interrupted: its manager was shut down"
    history = job.metadata["recovery_history"]
    assert [(entry["why"], entry["attempt"]) for entry in history] == [("its manager was shut down", 1)]
    assert history[0]["worker_id"] == job.attempts[0].worker_id
    assert history[0]["at"] == clock.now().isoformat()
    assert told == ["pending"]


async def test_stop_without_time_interrupts_at_once(managers: Managers, clock: ManualClock, viewer: JobManager) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    for number in range(5):
        await manager.create_job("work", job_id=f"j{number}", auto_start=True)
    await settled()

    await soon(manager.stop(timeout=0))

    assert clock.monotonic() == 0
    assert await viewer.count_jobs(status="pending") == 5
    assert sorted(held.cancelled) == [f"j{number}" for number in range(5)]


async def test_nothing_is_claimed_any_more(managers: Managers, viewer: JobManager, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=5), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")

    stopping = asyncio.create_task(manager.stop())
    await settled()
    await viewer.create_job("work", job_id="second", auto_start=True)
    await pass_time(clock, 10)
    held.let_go()
    await soon(stopping)

    assert held.begun == ["first"]
    assert (await viewer.get_job("second")).wait_reason is WaitReason.WORKER


async def test_claim_under_way_when_it_stops_is_given_back(
    managers: Managers, store: MemoryJobStore, viewer: JobManager, clock: ManualClock
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    claim = scripted.hold("apply", claims, after=True)
    await viewer.create_job("work", job_id="j", auto_start=True)
    await claim.wait_reached()

    stopping = asyncio.create_task(manager.stop(timeout=0))
    await settled()
    claim.let_go()
    await in_time(clock, stopping)
    await settled()

    job = await viewer.get_job("j")
    assert (job.status, job.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
    assert (job.attempt, held.begun) == (0, []), "as if it had not been claimed"


async def test_handler_that_returns_because_it_was_interrupted_is_put_back(
    managers: Managers, viewer: JobManager
) -> None:
    manager = managers()

    @manager.handler
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
        return "cut short"

    await manager.create_job("work", job_id="j", auto_start=True)
    await settled()
    await soon(manager.stop(timeout=0))

    job = await viewer.get_job("j")
    assert (job.wait_reason, job.result) == (WaitReason.WORKER, None)


@pytest.mark.parametrize("error", [ValueError("because of the stop"), Retry(delay=5)], ids=["error", "retry"])
async def test_handler_that_fails_when_interrupted_is_put_back_all_the_same(
    managers: Managers, viewer: JobManager, error: Exception
) -> None:
    manager = managers()

    @manager.handler
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    await manager.create_job("work", job_id="j", auto_start=True)
    await settled()
    await soon(manager.stop(timeout=0))

    job = await viewer.get_job("j")
    assert (job.wait_reason, job.retry_count, job.error) == (WaitReason.WORKER, 0, None)


async def test_stopping_does_not_wait_for_paused_jobs_which_stay_paused(
    managers: Managers, clock: ManualClock, viewer: JobManager
) -> None:
    manager, held = managers(shutdown_timeout=30), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    await manager.pause_job("j")

    await in_time(clock, manager.stop())

    job = await viewer.get_job("j")
    assert job.status is JobStatus.PAUSED
    assert [attempt.outcome for attempt in job.attempts] == [AttemptOutcome.INTERRUPTED]
    assert (await viewer.resume_job("j")).wait_reason is WaitReason.WORKER
    assert clock.monotonic() < 30, "nothing could have come of waiting"


async def test_parent_and_child_are_both_put_back_and_both_run_again(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("held", held)

    @manager.handler
    async def parent(context: JobContext) -> object:
        if context.attempt == 1:
            return await context.run_job("held", job_id="child", payload="child")
        return (await context.wait_for_job("child")).result

    await manager.create_job("parent", job_id="parent", auto_start=True)
    await held.wait_begun("child")
    await soon(manager.stop(timeout=0))

    held.let_go()
    await manager.start()
    assert (await soon(manager.wait_for_job("parent"))).result == "child"
    assert held.begun == ["child", "child"]
    assert held.most == 1


async def test_job_that_backs_off_keeps_its_time(managers: Managers, clock: ManualClock) -> None:
    manager = managers()
    tries: list[float] = []

    @manager.handler
    async def work() -> None:
        tries.append(clock.monotonic())
        raise ValueError

    await manager.create_job("work", job_id="j", auto_start=True, max_retries=1, retry_delay=100)
    await settled()
    await soon(manager.stop())
    assert clock.monotonic() == 0, "nothing runs, so nothing is waited for"
    await pass_time(clock, 50)
    await manager.start()

    await in_time(clock, manager.wait_for_job("j"))
    assert tries == [0, 100]


async def test_handler_that_ignores_the_stop_does_not_hold_it_up(
    managers: Managers, clock: ManualClock, viewer: JobManager, stubborn: Stubborn
) -> None:
    manager = managers(shutdown_timeout=30)
    manager.register_handler("stubborn", stubborn)
    await manager.create_job("stubborn", job_id="j", payload="late", auto_start=True)
    await settled()

    await in_time(clock, manager.stop(), at_most=60)

    job = await viewer.get_job("j")
    assert (job.status, job.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
    stubborn.let_go()
    await settled()
    assert await viewer.get_job("j") == job, "its late outcome is refused"


async def test_thread_that_does_not_return_does_not_hold_it_up(
    managers: Managers, clock: ManualClock, viewer: JobManager, thread: HeldThread
) -> None:
    manager = managers(shutdown_timeout=30)
    manager.register_handler("work", thread)
    await manager.create_job("work", job_id="j", auto_start=True)
    await thread.wait_begun()

    await in_time(clock, manager.stop(), at_most=60)

    job = await viewer.get_job("j")
    assert (job.status, job.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)


async def test_job_may_stop_its_own_manager(managers: Managers, viewer: JobManager) -> None:
    manager = managers()

    @manager.handler
    async def suicide() -> None:
        await manager.stop(timeout=0)

    await manager.create_job("suicide", job_id="j", auto_start=True)
    await settled()

    assert (await viewer.get_job("j")).status is JobStatus.PENDING
    with pytest.raises(ManagerStoppedError):
        await manager.get_job("j")


async def test_handlers_may_use_their_manager_until_they_end(
    managers: Managers, clock: ManualClock, viewer: JobManager
) -> None:
    manager = managers(shutdown_timeout=30)
    go = asyncio.Event()

    @manager.handler
    async def work(context: JobContext) -> str:
        await go.wait()
        job = await manager.create_job("follow-up", job_id="follow-up")
        return job.job_id

    await manager.create_job("work", job_id="j", auto_start=True)
    await settled()
    stopping = asyncio.create_task(manager.stop())
    await settled()
    go.set()
    await soon(stopping)

    assert await viewer.get_job_results("j") == "follow-up"
    assert (await viewer.get_job("follow-up")).status is JobStatus.PENDING


async def test_stopping_twice_is_no_error(manager: JobManager) -> None:
    await manager.start()
    await soon(manager.stop())
    await soon(manager.stop())


async def test_stopping_what_was_never_started_is_no_error(manager: JobManager) -> None:
    await soon(manager.stop())

    with pytest.raises(ManagerStoppedError, match=r"is stopped; start\(\) it again, or make a new one"):
        await manager.create_job("work")


async def test_two_who_stop_at_once_both_wait_until_it_has_stopped(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")

    both = [asyncio.create_task(manager.stop(timeout=20)) for _ in range(2)]
    await pass_time(clock, 19)
    assert not any(stopping.done() for stopping in both)
    await pass_time(clock, 1)
    await soon(asyncio.gather(*both))
    assert held.cancelled == ["j"]


async def test_who_is_cancelled_while_it_stops_does_not_leave_it_half_stopped(
    managers: Managers, clock: ManualClock, viewer: JobManager
) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    stopping = asyncio.create_task(manager.stop(timeout=20))
    await settled()

    stopping.cancel()
    await settled()
    assert stopping.cancelled()
    await pass_time(clock, 20)

    assert (await viewer.get_job("j")).wait_reason is WaitReason.WORKER
    with pytest.raises(ManagerStoppedError):
        await manager.get_job("j")


Call = Callable[[JobManager], Awaitable[object]]
CALLS: dict[str, Call] = {
    "create_job": lambda manager: manager.create_job("work"),
    "create_job_batch": lambda manager: manager.create_job_batch([{"name": "work"}]),
    "run_job": lambda manager: manager.run_job("work"),
    "start_job": lambda manager: manager.start_job("j"),
    "pause_job": lambda manager: manager.pause_job("j"),
    "resume_job": lambda manager: manager.resume_job("j"),
    "cancel_job": lambda manager: manager.cancel_job("j"),
    "retry_job": lambda manager: manager.retry_job("j"),
    "delete_job": lambda manager: manager.delete_job("j"),
    "add_job_dependency": lambda manager: manager.add_job_dependency("j", "k"),
    "remove_job_dependency": lambda manager: manager.remove_job_dependency("j", "k"),
    "get_job": lambda manager: manager.get_job("j"),
    "get_job_status": lambda manager: manager.get_job_status("j"),
    "get_job_results": lambda manager: manager.get_job_results("j"),
    "list_jobs": lambda manager: manager.list_jobs(),
    "count_jobs": lambda manager: manager.count_jobs(),
    "get_batch_jobs": lambda manager: manager.get_batch_jobs("b"),
    "get_dependencies": lambda manager: manager.get_dependencies("j"),
    "get_dependent_jobs": lambda manager: manager.get_dependent_jobs("j"),
    "wait_for_job": lambda manager: manager.wait_for_job("j"),
    "recover_interrupted_jobs": lambda manager: manager.recover_interrupted_jobs(),
    "cleanup_old_jobs": lambda manager: manager.cleanup_old_jobs(),
}


@pytest.mark.parametrize("call", CALLS)
async def test_use_after_stop_is_refused(manager: JobManager, call: str) -> None:
    await manager.create_job("work", job_id="j")
    await soon(manager.stop())

    with pytest.raises(ManagerStoppedError):
        await CALLS[call](manager)


async def test_who_waits_for_a_job_is_told_that_the_manager_stopped(manager: JobManager) -> None:
    await manager.create_job("nobody-can", job_id="j", auto_start=True)
    waits: list[asyncio.Task[Job]] = [asyncio.create_task(manager.wait_for_job("j")) for _ in range(3)]
    await settled()

    await soon(manager.stop())

    for wait in waits:
        with pytest.raises(ManagerStoppedError):
            await soon(wait)


async def test_streams_of_events_end_after_the_last_event(managers: Managers) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    stream = manager.events.stream()
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")

    async def read() -> list[str]:
        return [event.type.value async for event in stream]

    reading = asyncio.create_task(read())
    await soon(manager.stop(timeout=0))

    assert sorted(await soon(reading)) == ["created", "released", "started"]


async def test_store_is_closed(manager: JobManager, store: MemoryJobStore) -> None:
    await manager.start()
    await store.get([])

    await soon(manager.stop())

    with pytest.raises(StoreClosedError):
        await store.get([])


async def test_no_worker_and_no_timer_is_left(
    manager: JobManager, clock: ManualClock, viewer: JobManager, store: MemoryJobStore
) -> None:
    await manager.create_job("nobody-can", auto_start=True, delay=100)
    await manager.create_job("nobody-can", auto_start=True)
    await settled()
    assert len(await store.workers()) == 1

    await soon(manager.stop())

    assert await store.workers() == []
    assert clock.pending == 0


async def test_manager_starts_again_and_goes_on(managers: Managers) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    workers: set[str | None] = set()
    for times in range(1, 4):
        await manager.start()
        if times == 1:
            await manager.create_job("work", job_id="j", auto_start=True)
        await held.wait_begun("j", times=times)
        workers.add((await manager.get_job("j")).worker_id)
        await soon(manager.stop(timeout=0))
    held.let_go()

    await manager.start()
    done = await soon(manager.wait_for_job("j"))
    assert (done.status, done.attempt, len(workers)) == (JobStatus.COMPLETED, 4, 3)
    assert len(done.metadata["recovery_history"]) == 3


async def test_start_while_it_stops_starts_it_again(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    stopping = asyncio.create_task(manager.stop(timeout=20))
    await settled()

    starting = asyncio.create_task(manager.start())
    await pass_time(clock, 20)
    await soon(asyncio.gather(stopping, starting))
    await settled()

    assert held.begun == ["j", "j"], "who called start() last has a manager that runs jobs"


async def test_stop_while_it_starts_waits_and_stops(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    opening = scripted.hold("open")
    starting = asyncio.create_task(manager.start())
    creating = asyncio.create_task(manager.create_job("work"))
    await opening.wait_reached()
    stopping = asyncio.create_task(manager.stop())
    await settled()
    assert not stopping.done()

    opening.let_go()
    await in_time(clock, stopping)
    await asyncio.wait({starting, creating})

    for caller in (starting, creating):  # either they got in before the stop, or they are told
        assert caller.exception() is None or isinstance(caller.exception(), ManagerStoppedError)
    with pytest.raises(ManagerStoppedError):
        await manager.get_job("j")
    assert clock.pending == 0


async def test_start_that_failed_can_be_tried_again(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    scripted.fail("open", OSError("disk"))

    with pytest.raises(OSError, match="disk"):
        await manager.start()
    assert clock.pending == 0

    await manager.start()
    assert (await manager.create_job("work")).status is JobStatus.PENDING


async def test_released_job_is_taken_over_by_another_manager_at_once(managers: Managers, clock: ManualClock) -> None:
    one, two = managers(), managers()
    held, other = Held(), Held()
    one.register_handler("work", held)
    two.register_handler("work", other)
    await one.start()
    await one.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    await two.start()

    await soon(one.stop(timeout=0))

    await other.wait_begun("j")
    assert clock.monotonic() == 0


async def test_async_with_starts_and_stops(managers: Managers) -> None:
    manager = managers()
    async with manager as entered:
        assert entered is manager
        assert repr(manager).endswith(", running>")
        await manager.create_job("work")

    assert repr(manager).endswith(", stopped>")
    with pytest.raises(ManagerStoppedError):
        await manager.count_jobs()


async def test_async_subscriber_gets_what_was_told_before_the_stop(managers: Managers) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    got: list[str] = []

    async def slow(event: object) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        got.append(type(event).__name__)

    manager.events.subscribe(slow)
    for _ in range(20):
        await manager.create_job("work")
    await soon(manager.stop())

    assert len(got) == 20


async def test_plain_function_that_raises_a_cancellation_while_it_stops_is_put_back(
    managers: Managers, viewer: JobManager, clock: ManualClock
) -> None:
    manager, begun, go_on = managers(), threading.Event(), threading.Event()

    @manager.handler
    def work() -> None:
        begun.set()
        go_on.wait(10)
        raise asyncio.CancelledError

    await manager.create_job("work", job_id="j", auto_start=True)
    await asyncio.to_thread(begun.wait, 10)
    stopping = asyncio.create_task(manager.stop(timeout=0))
    await settled()
    go_on.set()
    await in_time(clock, stopping)

    assert (await viewer.get_job("j")).wait_reason is WaitReason.WORKER
