"""A manager made at module level, used in one event loop after the other, without a stop between them."""

import asyncio
import gc
import threading
import weakref

import pytest

from openagents_json.job import JobManager, JobStatus
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock


@pytest.fixture
def module_level() -> JobManager:
    """Give a manager on a clock that stands still: whatever happens, happens at once."""
    clock = ManualClock()
    return JobManager(MemoryJobStore(clock=clock), clock=clock)


def test_job_interrupted_by_the_end_of_its_loop_runs_again_at_once_in_the_next(module_level: JobManager) -> None:
    manager = module_level
    begun: list[int] = []
    has_begun: list[asyncio.Event] = []

    @manager.handler
    async def work() -> str:
        begun.append(len(begun) + 1)
        if len(begun) == 1:
            has_begun[0].set()
            await asyncio.Event().wait()
        return "in the second loop"

    async def first() -> None:
        has_begun.append(asyncio.Event())
        await manager.create_job("work", job_id="j", auto_start=True)
        await has_begun[0].wait()

    async def second() -> None:
        async with asyncio.timeout(5):
            done = await manager.wait_for_job("j")
        assert (done.status, done.result, done.attempt) == (JobStatus.COMPLETED, "in the second loop", 2)
        history = done.metadata["recovery_history"]
        assert [(entry["why"], entry["attempt"]) for entry in history] == [("its manager ended before it was done", 1)]
        await manager.stop()

    asyncio.run(first())
    asyncio.run(second())
    assert begun == [1, 2]


def test_jobs_that_waited_are_still_there_in_the_next_loop(module_level: JobManager) -> None:
    manager = module_level

    @manager.handler
    async def work(payload: int) -> int:
        return payload + 1

    async def first() -> None:
        await manager.create_job("work", job_id="j", payload=1)

    async def second() -> None:
        await manager.start_job("j")
        async with asyncio.timeout(5):
            assert (await manager.wait_for_job("j")).result == 2

    asyncio.run(first())
    asyncio.run(second())
    asyncio.run(manager.stop())


def test_thread_of_a_loop_that_ended_harms_nobody(module_level: JobManager) -> None:
    manager = module_level
    runs: list[int] = []

    @manager.handler
    def work() -> int:
        runs.append(len(runs) + 1)
        return len(runs)

    async def one() -> None:
        job = await manager.create_job("work", auto_start=True)
        async with asyncio.timeout(5):
            await manager.wait_for_job(job.job_id)

    for _ in range(3):
        asyncio.run(one())
    assert runs == [1, 2, 3]


def test_stopped_in_one_loop_and_started_in_the_next(module_level: JobManager) -> None:
    manager = module_level

    async def use() -> None:
        async with manager:
            await manager.create_job("work")

    asyncio.run(use())
    asyncio.run(use())

    async def count() -> int:
        async with manager:
            return await manager.count_jobs()

    assert asyncio.run(count()) == 2


def test_use_in_a_second_loop_while_the_first_runs_is_refused(module_level: JobManager) -> None:
    manager = module_level

    async def use() -> None:
        await manager.create_job("work")

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(use())
        with pytest.raises(RuntimeError, match="runs in another event loop; use one manager for each"):
            asyncio.run(use())
        loop.run_until_complete(manager.stop())
    finally:
        loop.close()


def test_nothing_of_a_loop_that_ended_is_kept() -> None:
    manager = JobManager(MemoryJobStore())
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    @manager.handler
    async def work() -> None:
        pass

    async def use() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        async with asyncio.timeout(5):
            await manager.run_job("work")

    for _ in range(5):
        asyncio.run(use())
    gc.collect()

    kept = [loop for loop in loops if loop() is not None]
    assert len(kept) <= 1, "loops that ended are kept alive, by what listens to the store perhaps"


def test_threads_of_loops_that_ended_end_too() -> None:
    manager = JobManager(MemoryJobStore())
    before = set(threading.enumerate())

    @manager.handler
    def work() -> None:
        pass

    async def use() -> None:
        async with asyncio.timeout(5):
            await manager.run_job("work")

    for _ in range(5):
        asyncio.run(use())

    for thread in set(threading.enumerate()) - before:
        thread.join(0.5)
    assert len(set(threading.enumerate()) - before) <= 1, "threads of loops that ended wait for ever"
