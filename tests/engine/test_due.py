"""Jobs that are to start later: not before their time, and then without anybody asking."""

from datetime import UTC, timedelta, timezone

import pytest

from openagents_json.job import JobManager, JobStatus, WaitReason
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import pass_time, settled, soon
from tests.engine.conftest import Managers


@pytest.fixture
async def held(manager: JobManager) -> Held:
    held = Held()
    manager.register_handler("work", held)
    return held


async def test_delayed_job_starts_when_its_delay_is_over(manager: JobManager, clock: ManualClock, held: Held) -> None:
    job = await manager.create_job("work", auto_start=True, delay=90)
    assert (job.wait_reason, job.run_at) == (WaitReason.TIME, clock.now() + timedelta(seconds=90))

    await pass_time(clock, 89.999)
    assert held.begun == []
    await pass_time(clock, 0.001)
    assert held.begun == [job.job_id]


@pytest.mark.parametrize("kind", ["datetime", "text"])
async def test_job_starts_at_its_time(manager: JobManager, clock: ManualClock, held: Held, kind: str) -> None:
    moment = (clock.now() + timedelta(hours=2)).astimezone(timezone(timedelta(hours=5, minutes=30)))
    job = await manager.create_job("work", auto_start=True, run_at=moment.isoformat() if kind == "text" else moment)
    assert job.run_at == moment
    assert job.run_at.tzinfo is UTC

    await pass_time(clock, 7199.9)
    assert held.begun == []
    await pass_time(clock, 0.1)
    assert held.begun == [job.job_id]


async def test_job_whose_time_has_passed_starts_at_once(manager: JobManager, clock: ManualClock, held: Held) -> None:
    job = await manager.create_job("work", auto_start=True, run_at=clock.now() - timedelta(days=1))

    await held.wait_begun(job.job_id)


async def test_delay_counts_from_the_creation_and_not_from_the_start(
    manager: JobManager, clock: ManualClock, held: Held
) -> None:
    job = await manager.create_job("work", delay=60)
    await pass_time(clock, 61)

    await manager.start_job(job.job_id)

    await held.wait_begun(job.job_id)


async def test_jobs_start_in_the_order_of_their_times(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    held.let_go()
    manager.register_handler("work", held)
    for delay in (30, 10, 20):
        await manager.create_job("work", job_id=f"after-{delay}", auto_start=True, delay=delay)

    await pass_time(clock, 30)

    assert held.begun == ["after-10", "after-20", "after-30"]


async def test_job_created_to_be_due_sooner_than_the_next_starts_in_time(
    manager: JobManager, clock: ManualClock, held: Held
) -> None:
    await manager.create_job("work", job_id="later", auto_start=True, delay=1000)
    await settled()
    await manager.create_job("work", job_id="sooner", auto_start=True, delay=10)

    await pass_time(clock, 10)
    assert held.begun == ["sooner"]


async def test_many_due_at_once_all_start_as_slots_allow(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=7), Held()
    manager.register_handler("work", held)
    for _ in range(30):
        await manager.create_job("work", auto_start=True, delay=10)

    await pass_time(clock, 10)
    assert (len(held.begun), held.most) == (7, 7)
    held.let_go()
    await settled()
    assert (await manager.count_jobs(status="completed"), held.most) == (30, 7)


async def test_job_due_while_all_slots_are_taken_starts_when_one_comes_free(
    managers: Managers, clock: ManualClock
) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await manager.create_job("work", job_id="due", auto_start=True, delay=10)
    await held.wait_begun("first")
    await pass_time(clock, 60)
    assert (await manager.get_job("due")).wait_reason is WaitReason.WORKER

    held.let_go("first")
    await held.wait_begun("due")


async def test_far_off_job_starts_when_the_wall_clock_jumps_past_its_time(
    manager: JobManager, clock: ManualClock, held: Held
) -> None:
    job = await manager.create_job("work", auto_start=True, run_at=clock.now() + timedelta(days=30))
    await pass_time(clock, 1)
    clock.set_wall(clock.now() + timedelta(days=31))

    await pass_time(clock, 60)
    assert held.begun == [job.job_id], "the wall clock is looked at once a minute at least"


async def test_job_is_not_started_early_when_the_wall_clock_is_set_back(
    manager: JobManager, clock: ManualClock, held: Held
) -> None:
    await manager.create_job("work", auto_start=True, delay=60)
    await pass_time(clock, 30)
    clock.set_wall(clock.now() - timedelta(hours=1))
    await pass_time(clock, 3629)
    assert held.begun == []
    await pass_time(clock, 61)
    assert len(held.begun) == 1


async def test_cancelled_job_does_not_start_at_its_time(manager: JobManager, clock: ManualClock, held: Held) -> None:
    job = await manager.create_job("work", auto_start=True, delay=60)
    await manager.cancel_job(job.job_id)

    await pass_time(clock, 120)
    assert held.begun == []


async def test_due_job_waits_for_its_dependencies_too(manager: JobManager, clock: ManualClock, held: Held) -> None:
    await manager.create_job("work", job_id="parent", auto_start=True)
    await manager.create_job("work", job_id="child", dependencies=["parent"], auto_start=True, delay=10)
    await pass_time(clock, 20)
    assert held.begun == ["parent"]

    held.let_go()
    assert (await soon(manager.wait_for_job("child"))).status is JobStatus.COMPLETED


async def test_job_created_by_another_manager_starts_at_its_time(managers: Managers, clock: ManualClock) -> None:
    manager, producer, held = managers(), managers(run_jobs=False), Held()
    manager.register_handler("work", held)
    await manager.start()
    job = await producer.create_job("work", auto_start=True, delay=45)

    await pass_time(clock, 44)
    assert held.begun == []
    await pass_time(clock, 1)
    assert held.begun == [job.job_id]
