"""Which job is next: strictly by priority, then by who was ready first; queues; slots kept for CRITICAL jobs."""

import asyncio

import pytest

from openagents_json.job import JobContext, JobManager, JobPriority, JobStatus, WaitReason
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._stores import ScriptedStore, claims
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


@pytest.fixture
async def busy(managers: Managers) -> tuple[JobManager, Held]:
    """Give a manager whose one slot is taken, by job ``first`` of a held handler."""
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    return manager, held


async def test_more_urgent_jobs_go_first(busy: tuple[JobManager, Held]) -> None:
    manager, held = busy
    for priority in ("low", "critical", "medium", "high", "low", "critical"):
        await manager.create_job("work", tags=[priority], priority=priority, auto_start=True)

    held.let_go()
    await settled()

    ran = [(await manager.get_job(job_id)).priority for job_id in held.begun[1:]]
    assert ran == sorted(ran, reverse=True)
    assert len(ran) == 6


async def test_no_low_job_starts_while_more_urgent_ones_keep_coming(busy: tuple[JobManager, Held]) -> None:
    manager, held = busy
    await manager.create_job("work", job_id="low", priority=JobPriority.LOW, auto_start=True)
    last = "first"
    for number in range(20):
        urgent = f"urgent-{number}"
        await manager.create_job("work", job_id=urgent, priority="high", auto_start=True)
        held.let_go(last)
        await held.wait_begun(urgent)
        last = urgent
    assert "low" not in held.begun

    held.let_go(last)
    await held.wait_begun("low")


async def test_among_equals_the_earliest_ready_goes_first(busy: tuple[JobManager, Held], clock: ManualClock) -> None:
    manager, held = busy
    await manager.create_job("work", job_id="created-first-ready-last")
    await manager.create_job("work", job_id="due", auto_start=True, delay=2)
    await pass_time(clock, 1)
    await manager.create_job("work", job_id="at-once", auto_start=True)
    await pass_time(clock, 2)
    await manager.start_job("created-first-ready-last")

    held.let_go()
    await settled()

    assert held.begun == ["first", "at-once", "due", "created-first-ready-last"]


async def test_of_jobs_ready_at_one_moment_the_first_created_goes_first(busy: tuple[JobManager, Held]) -> None:
    manager, held = busy
    _, jobs = await manager.create_job_batch([{"name": "work"} for _ in range(30)], auto_start=True)

    held.let_go()
    await settled()

    assert held.begun[1:] == [job.job_id for job in jobs]


async def test_critical_jobs_have_slots_of_their_own_while_sleepers_hold_all_others(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=3, critical_slots=2), Held()
    manager.register_handler("work", held)
    for _ in range(6):
        await manager.create_job("work", auto_start=True, priority="high")
    await settled()
    assert held.running == 3

    critical = [await manager.create_job("work", auto_start=True, priority="critical") for _ in range(4)]
    await settled()
    assert held.running == 5
    assert held.begun[3:] == [job.job_id for job in critical[:2]]

    held.let_go(critical[0].job_id)
    await held.wait_begun(critical[2].job_id)
    await settled()
    assert (held.running, held.most) == (5, 5)


async def test_critical_jobs_use_ordinary_slots_too(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=2, critical_slots=1), Held()
    manager.register_handler("work", held)
    for _ in range(5):
        await manager.create_job("work", auto_start=True, priority="critical")
    await settled()

    assert held.running == 3
    held.let_go()


async def test_critical_jobs_in_their_own_slots_leave_ordinary_ones_free(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1, critical_slots=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="critical", auto_start=True, priority="critical")
    await held.wait_begun("critical")

    await manager.create_job("work", job_id="ordinary", auto_start=True)

    await held.wait_begun("ordinary")


async def test_slots_for_critical_jobs_stay_empty_for_others(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1, critical_slots=5), Held()
    manager.register_handler("work", held)
    for _ in range(4):
        await manager.create_job("work", auto_start=True, priority="high")
    await settled()

    assert held.running == 1


async def test_ordinary_job_starts_when_the_sleeper_is_cancelled_though_critical_slots_are_free(
    managers: Managers,
) -> None:
    manager, held = managers(max_concurrent_jobs=1, critical_slots=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="sleeper", auto_start=True)
    await held.wait_begun("sleeper")
    await manager.create_job("work", job_id="next", auto_start=True)
    await settled()

    await manager.cancel_job("sleeper")

    await held.wait_begun("next")


async def test_resumed_ordinary_job_that_waits_for_a_slot_takes_none_from_critical_ones(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1, critical_slots=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.pause_job("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await held.wait_begun("second")
    await manager.resume_job("first")
    await settled()

    await manager.create_job("work", job_id="critical", auto_start=True, priority="critical")

    await held.wait_begun("critical")
    assert held.ended == []


async def test_resumed_critical_job_uses_a_critical_slot(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1, critical_slots=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="critical", auto_start=True, priority="critical")
    await held.wait_begun("critical")
    await manager.create_job("work", job_id="ordinary", auto_start=True)
    await held.wait_begun("ordinary")
    await manager.pause_job("critical")
    await manager.create_job("work", job_id="waiting", auto_start=True)
    await settled()
    assert held.begun == ["critical", "ordinary"]

    await manager.resume_job("critical")
    held.let_go("critical")

    assert (await soon(manager.wait_for_job("critical"))).status is JobStatus.COMPLETED


async def test_job_of_another_queue_is_left_to_others(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(queues=["mine"]), Held()
    manager.register_handler("work", held)
    other = await manager.create_job("work", queue="others", auto_start=True)
    default = await manager.create_job("work", auto_start=True)
    mine = await manager.create_job("work", queue="mine", auto_start=True)
    await pass_time(clock, 3600)

    assert held.begun == [mine.job_id]
    for job in (other, default):
        assert (await manager.get_job(job.job_id)).wait_reason is WaitReason.WORKER


async def test_queues_take_turns_in_going_first(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1, queues=["a", "b", "c"]), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", queue="a", auto_start=True)
    await held.wait_begun("first")
    for number in range(9):
        for queue in ("a", "b", "c"):
            await manager.create_job("work", job_id=f"{queue}-{number}", queue=queue, auto_start=True, priority="low")
    held.let_go()
    await settled()

    ran = [job_id[0] for job_id in held.begun[1:]]
    assert all(set(ran[at : at + 3]) == {"a", "b", "c"} for at in range(0, 27, 3)), ran


async def test_each_queue_is_in_order_of_its_own(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1, queues=["a", "b"]), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", queue="a", auto_start=True)
    await held.wait_begun("first")
    for queue in ("a", "b"):
        for priority in ("low", "high", "medium"):
            await manager.create_job(
                "work", job_id=f"{queue}-{priority}", queue=queue, auto_start=True, priority=priority
            )
    held.let_go()
    await settled()

    for queue in ("a", "b"):
        ran = [job_id for job_id in held.begun if job_id.startswith(f"{queue}-")]
        assert ran == [f"{queue}-high", f"{queue}-medium", f"{queue}-low"]


async def test_two_managers_of_two_queues_share_a_store(managers: Managers) -> None:
    one, two = managers(queues=["one"]), managers(queues=["two"])
    ran: dict[str, list[str]] = {"one": [], "two": []}

    async def work_one(context: JobContext) -> None:
        ran["one"].append(context.job_id)

    async def work_two(context: JobContext) -> None:
        ran["two"].append(context.job_id)

    one.register_handler("work", work_one)
    two.register_handler("work", work_two)
    await two.start()
    for number in range(10):
        await one.create_job("work", job_id=f"one-{number}", queue="one", auto_start=True)
        await one.create_job("work", job_id=f"two-{number}", queue="two", auto_start=True)
    await settled()

    assert ran == {side: [f"{side}-{number}" for number in range(10)] for side in ("one", "two")}


async def test_two_managers_of_one_queue_share_its_jobs_and_run_none_twice(managers: Managers) -> None:
    both = [managers(max_concurrent_jobs=3), managers(max_concurrent_jobs=3)]
    ran: list[str] = []
    go = asyncio.Event()
    for manager in both:

        async def work(context: JobContext) -> None:
            ran.append(context.job_id)
            await go.wait()

        manager.register_handler("work", work)
        await manager.start()
    _, jobs = await both[0].create_job_batch([{"name": "work"} for _ in range(50)], auto_start=True)
    await settled()
    assert len(ran) == 6

    go.set()
    await soon(asyncio.gather(*(both[1].wait_for_job(job.job_id) for job in jobs)))
    assert sorted(ran) == sorted(job.job_id for job in jobs)
    workers = {(await both[0].get_job(job.job_id)).worker_id for job in jobs}
    assert len(workers) == 2


async def test_large_backlog_of_later_jobs_does_not_delay_the_next(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    held.let_go()
    manager.register_handler("work", held)
    await manager.create_job_batch([{"name": "work", "delay": 3600} for _ in range(2000)], auto_start=True)
    await manager.create_job_batch([{"name": "work"} for _ in range(2000)])

    job = await manager.create_job("work", auto_start=True)
    assert (await in_time(clock, manager.wait_for_job(job.job_id), at_most=0)).status is JobStatus.COMPLETED
    assert held.begun == [job.job_id]


async def test_job_that_becomes_ready_while_a_claim_is_under_way_is_claimed_next(
    managers: Managers, store: MemoryJobStore
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, producer = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    claim = line.hold("apply", claims, after=True)
    await producer.create_job("work", job_id="first", auto_start=True)
    await claim.wait_reached()
    await producer.create_job("work", job_id="second", auto_start=True)
    await settled()

    claim.let_go()

    await held.wait_begun("second")
