"""Idle costs nothing: no polling, hardly a timer; what there is are signs of life."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from openagents_json.job import JobManager
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._stores import ScriptedStore
from tests.engine._time import pass_time, rounds_of_the_loop, settled
from tests.engine.conftest import Managers

#: How long the loop is watched (seconds).
WATCHED = 0.3


def timers() -> list[float]:
    """List the seconds until each timer of the running loop is due."""
    loop = asyncio.get_running_loop()
    scheduled = loop._scheduled  # type: ignore[attr-defined] # what asyncio itself will do later
    return sorted(handle.when() - loop.time() for handle in scheduled if not handle.cancelled())


@pytest.fixture
async def real(held: Held) -> AsyncIterator[JobManager]:
    """Give a manager that lives in the time of its loop."""
    manager = JobManager(MemoryJobStore())
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    yield manager
    await manager.stop(timeout=0)


@pytest.fixture
async def held() -> Held:
    return Held()


SITUATIONS = ["nothing to do", "a job runs", "a job is paused", "a job waits to be started", "somebody waits"]


@pytest.mark.parametrize("situation", SITUATIONS)
async def test_idle_manager_polls_nothing(real: JobManager, held: Held, situation: str) -> None:
    waiting = None
    if situation != "nothing to do":
        job = await real.create_job("work", auto_start=situation != "a job waits to be started")
        await settled()
        if situation == "a job is paused":
            await real.pause_job(job.job_id)
        if situation == "somebody waits":
            waiting = asyncio.create_task(real.wait_for_job(job.job_id))
    await settled()

    due = timers()
    assert len(due) <= 3, "heartbeat, recovery, cleanup"
    assert min(due) > 9
    assert await rounds_of_the_loop(asyncio.sleep(WATCHED)) <= 3
    if waiting is not None:
        held.let_go()
        await waiting


async def test_job_that_is_due_later_costs_one_timer(real: JobManager) -> None:
    before = len(timers())
    for delay in (40, 30, 50):
        await real.create_job("work", auto_start=True, delay=delay)
    await settled()

    due = timers()
    assert len(due) == before + 1
    assert sum(29 < seconds <= 30 for seconds in due) == 1
    assert await rounds_of_the_loop(asyncio.sleep(WATCHED)) <= 3


async def test_manager_that_runs_no_jobs_has_no_timers_at_all() -> None:
    manager = JobManager(MemoryJobStore(), run_jobs=False)
    await manager.create_job("work", auto_start=True)
    await settled()

    assert timers() == []
    await manager.stop()


async def test_idle_hour_costs_the_store_signs_of_life_and_audits(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.create_job("work")
    await settled()
    scripted.calls.clear()

    await pass_time(clock, 3600)

    calls = Counter(scripted.calls)
    assert calls.pop("beat") == 360
    assert calls.pop("workers") == 360
    assert calls.pop("find") == 60
    assert calls.pop("apply", 0) <= 1, "the hourly cleanup"
    assert not calls


async def test_job_without_a_handler_is_not_asked_for_again_and_again(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.create_job("nobody-can", auto_start=True)
    await settled()
    scripted.applied.clear()

    await pass_time(clock, 600)

    assert len(scripted.applied) == 0


async def test_full_slots_are_not_asked_for(managers: Managers, store: MemoryJobStore, clock: ManualClock) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted, max_concurrent_jobs=2)
    manager.register_handler("work", held)
    for _ in range(50):
        await manager.create_job("work", auto_start=True)
    await settled()
    scripted.applied.clear()

    await pass_time(clock, 600)

    assert len(scripted.applied) == 0
