"""Stopping while the store hangs or is away: it ends, everybody is told, and the next start finds what was left."""

import asyncio

import pytest

from openagents_json.errors import ManagerStoppedError, StoreUnavailableError
from openagents_json.job import JobManager, JobStatus
from openagents_json.job._changes import Add, Finish
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import FaultyStore, ManualClock
from tests.engine._handlers import Held
from tests.engine._stores import ScriptedStore, anything, changes_a
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


@pytest.fixture(autouse=True)
def last_steps_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what a stop waits by the event loop's own time."""
    monkeypatch.setattr("openagents_json.job._runtime._LAST_STEPS", 0.05)


@pytest.fixture
def faulty(store: MemoryJobStore, clock: ManualClock) -> FaultyStore:
    faulty = FaultyStore(store, seed=1, clock=clock)
    faulty.calm()
    return faulty


async def test_outcomes_that_cannot_be_stored_do_not_hold_up_the_stop(
    managers: Managers, clock: ManualClock, store: MemoryJobStore, faulty: FaultyStore
) -> None:
    manager, viewer, held = managers(faulty), managers(run_jobs=False), Held()
    manager.register_handler("work", held)
    for job_id in ("ends", "runs"):
        await manager.create_job("work", job_id=job_id, auto_start=True)
        await held.wait_begun(job_id)
    faulty.outage()
    held.let_go("ends")
    await settled()

    await in_time(clock, manager.stop(timeout=30), at_most=120)

    assert held.cancelled == ["runs"]
    for job_id in ("ends", "runs"):
        assert await viewer.get_job_status(job_id) is JobStatus.RUNNING, "as far as the store knows"


async def test_what_a_stop_could_not_store_is_recovered_by_the_next_start(
    managers: Managers, clock: ManualClock, faulty: FaultyStore
) -> None:
    manager, held = managers(faulty), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", payload="in the end", auto_start=True)
    await held.wait_begun("j")
    faulty.outage()
    await in_time(clock, manager.stop(timeout=0), at_most=120)
    faulty.calm()
    held.let_go()

    await manager.start()

    done = await in_time(clock, manager.wait_for_job("j"), at_most=5)
    assert (done.status, done.result, held.begun) == (JobStatus.COMPLETED, "in the end", ["j", "j"])


async def test_outcome_is_stored_when_the_store_comes_back_while_it_stops(
    managers: Managers, clock: ManualClock, faulty: FaultyStore
) -> None:
    manager, viewer, held = managers(faulty), managers(run_jobs=False), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", payload="stored", auto_start=True)
    await held.wait_begun("j")
    faulty.outage()
    held.let_go()
    await settled()
    stopping = asyncio.create_task(manager.stop(timeout=30))
    await settled()
    faulty.calm()

    await in_time(clock, stopping)

    assert await viewer.get_job_results("j") == "stored"


async def test_write_that_hangs_does_not_hold_up_the_stop(
    managers: Managers, clock: ManualClock, store: MemoryJobStore
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.start()
    hanging = scripted.hold("apply", changes_a(Add))
    callers = [asyncio.create_task(manager.create_job("work")) for _ in range(2)]
    await hanging.wait_reached()
    callers.append(asyncio.create_task(manager.create_job("work")))
    await settled()

    await in_time(clock, manager.stop(timeout=0))

    for caller in callers:
        with pytest.raises((ManagerStoppedError, StoreUnavailableError)):
            await soon(caller)
    hanging.let_go()
    await settled()


async def test_outcome_whose_write_hangs_does_not_hold_up_the_stop(
    managers: Managers, clock: ManualClock, store: MemoryJobStore
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    hanging = scripted.hold("apply", changes_a(Finish))
    held.let_go()
    await hanging.wait_reached()

    await in_time(clock, manager.stop(timeout=5), at_most=60)

    hanging.let_go()
    await settled()


@pytest.mark.parametrize("method", ["get", "workers", "beat", "unregister"])
async def test_read_that_hangs_does_not_hold_up_the_stop(
    managers: Managers, clock: ManualClock, store: MemoryJobStore, method: str
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.create_job("nobody-can", job_id="j")
    await settled()
    hanging = scripted.hold(method, anything)
    waiting = asyncio.create_task(manager.wait_for_job("j"))
    clock.advance(10)
    await settled()

    stopping = asyncio.create_task(manager.stop(timeout=0))
    await settled()
    if method in {"get", "unregister"}:  # every call of a store ends within bounded time, and this one is awaited
        await hanging.wait_reached()
        hanging.let_go()
    await in_time(clock, stopping)

    hanging.let_go()
    with pytest.raises(ManagerStoppedError):
        await soon(waiting)


async def test_stop_in_an_outage_tells_those_who_wait(
    managers: Managers, clock: ManualClock, faulty: FaultyStore
) -> None:
    manager = managers(faulty)
    await manager.create_job("nobody-can", job_id="j")
    faulty.outage()
    waiting = asyncio.create_task(manager.wait_for_job("j"))
    await settled()

    await in_time(clock, manager.stop())

    with pytest.raises(ManagerStoppedError):
        await soon(waiting)


async def test_manager_that_came_up_in_an_outage_stops(
    managers: Managers, clock: ManualClock, faulty: FaultyStore
) -> None:
    manager = managers(faulty)
    await manager.create_job("nobody-can", job_id="j")
    await in_time(clock, manager.stop())
    faulty.outage()
    with pytest.raises(StoreUnavailableError):
        await manager.start()

    await in_time(clock, manager.stop())

    with pytest.raises(ManagerStoppedError):
        await manager.get_job("j")


async def test_programs_of_one_store_are_not_disturbed_by_a_stop_without_a_store(
    managers: Managers, clock: ManualClock, faulty: FaultyStore, manager: JobManager
) -> None:
    away = managers(faulty)

    @manager.handler
    async def work() -> str:
        return "ran"

    await away.start()
    faulty.outage()
    await in_time(clock, away.stop())

    assert await soon(manager.run_job("work")) == "ran"


async def test_everybody_is_told_when_a_stop_ends_a_commit_that_is_tried_change_by_change(
    managers: Managers, clock: ManualClock, store: MemoryJobStore
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.start()
    await settled()
    scripted.fail("apply", RuntimeError("odd"), changes_a(Add))
    scripted.applied.clear()
    hanging = scripted.hold("apply", lambda arguments: len(scripted.applied) == 3)  # all, the first alone, the second
    callers = [asyncio.create_task(manager.create_job("work", job_id=f"j{n}")) for n in range(3)]
    await hanging.wait_reached()

    await in_time(clock, manager.stop(timeout=0))

    assert (await soon(callers[0])).job_id == "j0"
    for caller in callers[1:]:
        with pytest.raises((ManagerStoppedError, StoreUnavailableError)):
            await soon(caller)
    hanging.let_go()
    await settled()


async def test_who_begins_to_wait_while_it_stops_is_told_too(
    managers: Managers, clock: ManualClock, store: MemoryJobStore
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.create_job("nobody-can", job_id="j")
    hanging = scripted.hold("apply", changes_a(Add))
    creating = asyncio.create_task(manager.create_job("work"))
    await hanging.wait_reached()
    stopping = asyncio.create_task(manager.stop(timeout=0))
    await settled()  # the stop waits for the write that hangs
    waiting = asyncio.create_task(manager.wait_for_job("j"))
    await settled()

    await in_time(clock, stopping)

    with pytest.raises(ManagerStoppedError):
        await soon(waiting)
    hanging.let_go()
    await asyncio.wait({creating})


async def test_what_a_stop_could_not_store_is_recovered_though_the_next_start_had_trouble_too(
    managers: Managers, clock: ManualClock, store: MemoryJobStore
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    scripted.take_down("apply", "unregister", "register", error=lambda: StoreUnavailableError("away"))
    await in_time(clock, manager.stop(timeout=0), at_most=120)
    await soon(manager.start())
    scripted.bring_up()

    await pass_time(clock, 60)

    assert held.begun == ["j", "j"]
