"""The whole manager on a bad line to its store: nothing is lost, and nothing is stored twice."""

import asyncio
import random
from collections import Counter

import pytest

from openagents_json.errors import DuplicateJobError, StoreUnavailableError
from openagents_json.job import AttemptOutcome, BatchJob, JobContext, JobManager, JobStatus
from openagents_json.job._changes import Recover
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import FaultyStore, ManualClock, check_consistency
from openagents_json.testing.faulty import Fault
from tests.engine._time import in_time, pass_time
from tests.engine.conftest import Managers

JOBS = 200


async def create_until_stored(manager: JobManager, clock: ManualClock, job_id: str, parents: list[str]) -> None:
    """Create a job over the bad line, as a careful caller does: under an id of its own, until it is there."""
    while True:
        try:
            await in_time(
                clock,
                manager.create_job(
                    "work", job_id=job_id, dependencies=parents, auto_start=True, max_retries=50, retry_delay=0.5
                ),
            )
        except StoreUnavailableError:
            continue
        except DuplicateJobError:
            pass
        return


@pytest.mark.parametrize("seed", range(10))
async def test_every_job_completes_and_every_outcome_is_stored_once(
    managers: Managers, store: MemoryJobStore, clock: ManualClock, seed: int
) -> None:
    chance = random.Random(seed)
    faulty = FaultyStore(
        store, seed=seed, fail_before=0.08, fail_after=0.08, slow=0.1, hang=0.02, limit=2.0, clock=clock
    )
    faulty.calm()
    manager = managers(faulty, max_concurrent_jobs=8)
    succeeded: Counter[str] = Counter()

    @manager.handler
    async def work(context: JobContext) -> int:
        if chance.random() < 0.2:
            msg = "bad luck"
            raise ValueError(msg)
        succeeded[context.job_id] += 1
        return 1 + max(context.dependency_results.values(), default=0)

    await manager.start()
    faulty.erratic()
    depth: dict[str, int] = {}
    for number in range(JOBS):
        parents = [f"j{parent}" for parent in chance.sample(range(number), min(number, chance.randrange(4)))]
        await create_until_stored(manager, clock, f"j{number}", parents)
        depth[f"j{number}"] = 1 + max((depth[parent] for parent in parents), default=0)

    viewer = managers(store, run_jobs=False)
    for job_id in depth:
        await in_time(clock, viewer.wait_for_job(job_id), at_most=24 * 3600)
    await pass_time(clock, 60)

    jobs = await viewer.list_jobs()
    assert {job.job_id: job.result for job in jobs} == depth
    for job in jobs:
        outcomes = Counter(attempt.outcome for attempt in job.attempts)
        assert job.status is JobStatus.COMPLETED
        assert outcomes[AttemptOutcome.COMPLETED] == 1
        assert outcomes[AttemptOutcome.FAILED] == job.retry_count
        assert len(job.attempts) == job.attempt
        assert "recovery_history" not in job.metadata
    assert set(succeeded.values()) == {1}, "each was done just once: nobody died"
    assert min(faulty.counts[fault] for fault in Fault if fault is not Fault.OUTAGE) > 0
    await store.open()
    await check_consistency(store)
    await store.close()


async def test_outages_come_and_go_and_nothing_is_lost(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    faulty = FaultyStore(store, seed=7, fail_before=0.1, fail_after=0.1, clock=clock)
    faulty.calm()
    manager, viewer = managers(faulty, max_concurrent_jobs=5), managers(store, run_jobs=False)
    ran: Counter[str] = Counter()

    @manager.handler
    async def work(context: JobContext) -> str:
        await clock.wait(asyncio.Event(), 3)
        ran[context.job_id] += 1
        return context.job_id

    await manager.start()
    await viewer.create_job_batch([{"name": "work", "job_id": f"j{n}"} for n in range(100)], auto_start=True)
    for _ in range(6):
        faulty.outage()
        await pass_time(clock, 20)
        faulty.erratic()
        await pass_time(clock, 20)
    faulty.calm()
    for number in range(100):
        done = await in_time(clock, viewer.wait_for_job(f"j{number}"))
        assert (done.result, done.attempt) == (f"j{number}", 1)

    assert set(ran.values()) == {1}


@pytest.mark.parametrize("seed", range(4))
async def test_workers_are_declared_dead_again_and_again_and_every_job_completes_once(
    managers: Managers, store: MemoryJobStore, clock: ManualClock, seed: int
) -> None:
    chance = random.Random(seed)
    lines = [
        FaultyStore(store, seed=2 * seed + n, fail_before=0.05, fail_after=0.05, slow=0.1, limit=2.0, clock=clock)
        for n in range(2)
    ]
    both = [managers(line, max_concurrent_jobs=5) for line in lines]
    viewer = managers(store, run_jobs=False)
    running: Counter[tuple[str, JobManager]] = Counter()

    def register(manager: JobManager) -> None:
        @manager.handler
        async def work(context: JobContext) -> str:
            running[context.job_id, manager] += 1
            assert running[context.job_id, manager] == 1, "in one process two attempts of a job never overlap"
            try:
                await clock.wait(asyncio.Event(), chance.random() * 5)
            finally:
                running[context.job_id, manager] -= 1
            return context.job_id

    for line, manager in zip(lines, both, strict=True):
        line.calm()
        register(manager)
        await manager.start()
        line.erratic()
    specs: list[BatchJob] = [
        {
            "name": "work",
            "job_id": f"j{number}",
            "dependencies": chance.sample(range(number), min(number, chance.randrange(3))),
            "max_recoveries": None,
        }
        for number in range(100)
    ]
    await viewer.create_job_batch(specs, auto_start=True)
    deaths = 0
    for _ in range(60):
        await pass_time(clock, 2)
        states = await store.workers()
        if states and chance.random() < 0.3:
            await store.apply([Recover(chance.choice(states).worker.worker_id, "said the test")])
            deaths += 1
    for number in range(100):
        done = await in_time(clock, viewer.wait_for_job(f"j{number}"), at_most=24 * 3600)
        assert (done.status, done.result) == (JobStatus.COMPLETED, f"j{number}")
        assert [attempt.outcome for attempt in done.attempts].count(AttemptOutcome.COMPLETED) == 1
        assert len(done.attempts) == done.attempt

    assert deaths > 5
    await check_consistency(store)
