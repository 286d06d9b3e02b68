"""What the engine's tests share: time that stands still, a store in memory, managers that are stopped at the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from openagents_json.job import JobManager
from openagents_json.job.storage import JobStore, MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import HeldThread, Stubborn
from tests.engine._time import SOON, in_time, settled


class Managers:
    """Makes managers on one clock, by default on one store too."""

    def __init__(self, store: JobStore, clock: ManualClock) -> None:
        self.made: list[JobManager] = []
        self._store = store
        self._clock = clock

    def __call__(
        self, store: JobStore | None = None, *, kind: type[JobManager] = JobManager, **options: Any
    ) -> JobManager:
        """Make one; the options are those of `JobManager`."""
        manager = kind(store or self._store, clock=self._clock, **options)
        self.made.append(manager)
        return manager


@pytest.fixture(autouse=True)
async def attempts_end() -> AsyncIterator[None]:
    """Wait at the end for the attempts that the engine gave up on: they end with their thread."""
    yield
    attempts = {task for task in asyncio.all_tasks() if task.get_name().startswith("job ")}
    if attempts:
        await asyncio.wait(attempts, timeout=SOON)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> MemoryJobStore:
    return MemoryJobStore(clock=clock)


@pytest.fixture
async def managers(store: MemoryJobStore, clock: ManualClock) -> AsyncIterator[Managers]:
    """Make managers; they are stopped when the test ends, also when it failed."""
    made = Managers(store, clock)
    yield made
    for manager in made.made:
        await in_time(clock, manager.stop(timeout=0))


@pytest.fixture
def manager(managers: Managers) -> JobManager:
    """Give a manager with ten slots."""
    return managers(max_concurrent_jobs=10)


@pytest.fixture
async def stubborn() -> AsyncIterator[Stubborn]:
    """Give a handler that ignores cancellation, until the test has ended at the latest."""
    handler = Stubborn()
    yield handler
    handler.let_go()
    await settled()


@pytest.fixture
async def thread() -> AsyncIterator[HeldThread]:
    """Give a plain function that waits in its thread, until the test has ended at the latest."""
    handler = HeldThread()
    yield handler
    handler.let_go(1000)
