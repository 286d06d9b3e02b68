"""Jobs paused, resumed, cancelled, retried and lending their slots in all orders: slots are never exceeded nor lost."""

import asyncio
import contextlib
import random
from collections import defaultdict

import pytest

from openagents_json.errors import InvalidTransitionError, JobFailedError
from openagents_json.job import JobContext, JobManager, JobStatus
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock, check_consistency
from tests.engine._handlers import Held
from tests.engine._time import in_time, pass_time, settled
from tests.engine.conftest import Managers

SLOTS = 3
JOBS = 30


class Work:
    """Handlers that take a step in each round of the event loop, and note which jobs did in which round."""

    def __init__(self, manager: JobManager, chance: random.Random) -> None:
        self.stepped: defaultdict[int, set[str]] = defaultdict(set)
        self._chance = chance
        self._round = 0
        loop = asyncio.get_running_loop()
        going_round = loop._run_once  # type: ignore[attr-defined] # one round; asyncio has no hook for it

        def counted() -> None:
            self._round += 1
            going_round()

        loop._run_once = counted  # type: ignore[attr-defined]
        manager.register_handler("plain", self.plain)
        manager.register_handler("parent", self.parent)

    async def plain(self, context: JobContext) -> str:
        await self._steps(context)
        if self._chance.random() < 0.2:
            raise ValueError
        return "done"

    async def parent(self, context: JobContext) -> str:
        await self._steps(context)
        with contextlib.suppress(JobFailedError):
            await context.run_job("plain")
        await self._steps(context)
        return "done"

    async def _steps(self, context: JobContext) -> None:
        for _ in range(self._chance.randrange(1, 12)):
            if not context.cancelled:  # who is cancelled may clean up without a slot
                self.stepped[self._round].add(context.job_id)
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(12))
async def test_slots_are_neither_exceeded_nor_lost(
    managers: Managers, store: MemoryJobStore, clock: ManualClock, seed: int
) -> None:
    chance = random.Random(seed)
    manager = managers(max_concurrent_jobs=SLOTS)
    work = Work(manager, chance)
    ids = [f"j{number}" for number in range(JOBS)]
    for job_id in ids:
        await manager.create_job(
            chance.choice(["plain", "parent"]), job_id=job_id, max_retries=2, retry_delay=1, timeout=1000
        )
    actions = [
        manager.start_job,
        manager.start_job,
        manager.pause_job,
        manager.resume_job,
        manager.resume_job,
        manager.cancel_job,
        manager.retry_job,
    ]
    for _ in range(600):
        with contextlib.suppress(InvalidTransitionError):
            await chance.choice(actions)(chance.choice(ids))
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if chance.random() < 0.05:
            await pass_time(clock, 1)
    for job_id in ids:
        with contextlib.suppress(InvalidTransitionError):
            await manager.resume_job(job_id)
        with contextlib.suppress(InvalidTransitionError):
            await manager.start_job(job_id)
    for job_id in ids:
        assert (await in_time(clock, manager.wait_for_job(job_id))).status.finished
    await pass_time(clock, 60)

    assert max(map(len, work.stepped.values())) <= SLOTS
    assert await manager.count_jobs(status=[JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED]) == 0
    held = Held()
    manager.register_handler("held", held)
    for _ in range(2 * SLOTS):
        await manager.create_job("held", auto_start=True)
    await settled()
    assert held.running == SLOTS, "every slot is there again, and none was invented"
    held.let_go()
    await settled()
    await check_consistency(store)
