"""While the store is away running jobs go on, outcomes wait in memory, and claims back off and come back."""

import asyncio

import pytest

from openagents_json.errors import DuplicateJobError, StoreUnavailableError
from openagents_json.job import JobManager, JobStatus
from openagents_json.job._changes import Add, Finish
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import FaultyStore, ManualClock
from tests.engine._handlers import Held
from tests.engine._stores import ScriptedStore, changes_a
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


@pytest.fixture
def faulty(store: MemoryJobStore, clock: ManualClock) -> FaultyStore:
    faulty = FaultyStore(store, seed=1, clock=clock)
    faulty.calm()
    return faulty


@pytest.fixture
async def viewer(managers: Managers) -> JobManager:
    """Give a manager that has no trouble with the store, and runs nothing."""
    viewer = managers(run_jobs=False)
    await viewer.start()
    return viewer


async def test_outcomes_wait_in_memory_and_are_stored_when_the_store_is_back(
    managers: Managers, faulty: FaultyStore, viewer: JobManager, clock: ManualClock
) -> None:
    manager, held = managers(faulty, max_concurrent_jobs=20), Held()
    manager.register_handler("work", held)
    for number in range(20):
        await manager.create_job("work", job_id=f"j{number}", payload=number, auto_start=True)
    await settled()
    faulty.outage()

    held.let_go()
    await pass_time(clock, 120)
    assert len(held.ended) == 20, "handlers do not notice"
    assert await viewer.count_jobs(status="running") == 20
    faulty.calm()
    await pass_time(clock, 10)

    done = [await viewer.get_job(f"j{number}") for number in range(20)]
    assert [(job.status, job.result, job.attempt) for job in done] == [
        (JobStatus.COMPLETED, number, 1) for number in range(20)
    ]


async def test_failures_wait_too_and_are_retried_afterwards(
    managers: Managers, faulty: FaultyStore, viewer: JobManager, clock: ManualClock
) -> None:
    manager, held = managers(faulty), Held()

    @manager.handler
    async def work(context: object) -> None:
        await held(None, context)  # type: ignore[arg-type] # it is a JobContext
        if held.begun == ["j"]:
            raise ValueError

    await manager.create_job("work", job_id="j", auto_start=True, max_retries=1, retry_delay=5)
    await held.wait_begun("j")
    faulty.outage()
    held.let_go()
    await pass_time(clock, 60)
    faulty.calm()

    done = await in_time(clock, viewer.wait_for_job("j"), at_most=30)
    assert (done.status, done.attempt, held.begun) == (JobStatus.COMPLETED, 2, ["j", "j"])


async def test_outcome_that_was_stored_though_the_reply_was_lost_counts_once(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    told: list[str] = []
    manager.events.subscribe(lambda event: told.append(event.type.value), types=["completed", "failed"])
    await manager.create_job("work", job_id="j", payload="once", auto_start=True)
    await held.wait_begun("j")
    scripted.fail("apply", StoreUnavailableError("lost reply"), changes_a(Finish), after=True)
    held.let_go()

    done = await in_time(clock, manager.wait_for_job("j"))
    await pass_time(clock, 5)

    assert (done.result, len(done.attempts), held.begun) == ("once", 1, ["j"])
    assert sum(isinstance(change, Finish) for changes, _ in scripted.applied for change in changes) == 2
    assert told == ["completed"]


async def test_dependent_cancelled_by_an_outcome_whose_reply_was_lost_is_seen_by_who_waits(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)

    @manager.handler
    async def work() -> None:
        raise ValueError

    await manager.create_job("work", job_id="parent")
    await manager.create_job("work", job_id="child", dependencies=["parent"], auto_start=True)
    waiting = asyncio.create_task(manager.wait_for_job("child"))
    scripted.fail("apply", StoreUnavailableError("lost reply"), changes_a(Finish), after=True)
    await manager.start_job("parent")

    assert (await in_time(clock, waiting)).status is JobStatus.CANCELLED


async def test_claims_back_off_and_come_back(
    managers: Managers, store: MemoryJobStore, viewer: JobManager, clock: ManualClock
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    scripted.take_down("apply", error=lambda: StoreUnavailableError("away"))
    scripted.calls.clear()
    await viewer.create_job("work", job_id="j", auto_start=True)
    await pass_time(clock, 600)

    asked = scripted.calls.count("apply")
    assert 30 <= asked <= 150, "at first quickly, then every five to ten seconds"
    assert held.begun == []
    scripted.bring_up()
    await pass_time(clock, 10)
    assert held.begun == ["j"]


async def test_job_created_by_others_during_an_outage_starts_soon_after_it(
    managers: Managers, faulty: FaultyStore, viewer: JobManager, clock: ManualClock
) -> None:
    manager, held = managers(faulty), Held()
    manager.register_handler("work", held)
    await manager.start()
    faulty.outage()
    await pass_time(clock, 600)
    await viewer.create_job("work", job_id="j", auto_start=True)
    await pass_time(clock, 600)
    assert held.begun == []

    faulty.calm()
    await pass_time(clock, 10)

    assert held.begun == ["j"]


async def test_caller_is_told_of_an_outage_at_once(managers: Managers, faulty: FaultyStore, clock: ManualClock) -> None:
    manager = managers(faulty)
    await manager.create_job("work", job_id="j")
    faulty.outage()

    for call in (
        manager.create_job("work"),
        manager.start_job("j"),
        manager.get_job("j"),
        manager.list_jobs(),
        manager.count_jobs(),
    ):
        with pytest.raises(StoreUnavailableError):
            await soon(call)
    assert clock.monotonic() == 0


async def test_creation_whose_reply_was_lost_can_be_tried_again_under_its_id(
    managers: Managers, store: MemoryJobStore
) -> None:
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    await manager.start()
    scripted.fail("apply", StoreUnavailableError("lost reply"), changes_a(Add), after=True)
    with pytest.raises(StoreUnavailableError):
        await manager.create_job("work", job_id="j")

    with pytest.raises(DuplicateJobError):
        await manager.create_job("work", job_id="j")


async def test_who_waits_for_a_job_goes_on_waiting_through_an_outage(
    managers: Managers, faulty: FaultyStore, viewer: JobManager, clock: ManualClock
) -> None:
    manager, held = managers(faulty), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True, payload="patience")
    await held.wait_begun("j")
    faulty.outage()
    waiting = asyncio.create_task(manager.wait_for_job("j"))
    held.let_go()
    await pass_time(clock, 60)
    assert not waiting.done()

    faulty.calm()

    assert (await in_time(clock, waiting, at_most=30)).result == "patience"


async def test_handler_waits_for_its_dependencies_results_through_an_outage(
    managers: Managers, store: MemoryJobStore, viewer: JobManager, clock: ManualClock
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    seen: list[object] = []

    @manager.handler
    async def collect(context: object) -> None:
        seen.append(getattr(context, "dependency_results", None))

    await manager.start()
    await viewer.create_job("work", job_id="parent", payload=1, auto_start=True)
    await held.wait_begun("parent")
    scripted.take_down("get", error=lambda: StoreUnavailableError("away"))
    await viewer.create_job("collect", job_id="child", dependencies=["parent"], auto_start=True)
    held.let_go()
    await pass_time(clock, 60)
    assert seen == []

    scripted.bring_up()
    await in_time(clock, viewer.wait_for_job("child"), at_most=15)
    assert seen == [{"parent": 1}]


async def test_manager_started_while_it_cannot_register_claims_when_it_can(
    managers: Managers, store: MemoryJobStore, viewer: JobManager, clock: ManualClock
) -> None:
    scripted, held = ScriptedStore(store), Held()
    manager = managers(scripted)
    manager.register_handler("work", held)
    scripted.take_down("register", error=lambda: StoreUnavailableError("away"))
    await viewer.create_job("work", job_id="j", auto_start=True)

    await soon(manager.start())
    await pass_time(clock, 60)
    assert held.begun == []

    scripted.bring_up()
    await pass_time(clock, 10)
    assert held.begun == ["j"]


async def test_slots_are_kept_while_outcomes_wait(
    managers: Managers, faulty: FaultyStore, viewer: JobManager, clock: ManualClock
) -> None:
    manager, held = managers(faulty, max_concurrent_jobs=1), Held()
    held.let_go()
    manager.register_handler("work", held)
    gate = Held()
    manager.register_handler("gate", gate)
    await manager.create_job("gate", job_id="first", auto_start=True)
    await gate.wait_begun("first")
    for _ in range(5):
        await manager.create_job("work", auto_start=True)
    faulty.outage()
    gate.let_go()
    await pass_time(clock, 60)
    assert held.begun == []

    faulty.calm()
    await pass_time(clock, 15)
    assert len(held.begun) == 5
    assert held.most == 1
