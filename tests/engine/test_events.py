"""What is told of a job is told in the order in which it happened."""

import asyncio

import pytest

from openagents_json.job import EventType, JobContext, JobManager
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import in_time, settled, soon
from tests.engine.conftest import Managers


class Told:
    """What was told, by job."""

    def __init__(self, manager: JobManager) -> None:
        self.events: dict[str, list[str]] = {}
        manager.events.subscribe(lambda event: self.events.setdefault(event.job_id, []).append(event.type.value))


@pytest.fixture
async def told(manager: JobManager) -> Told:
    return Told(manager)


@pytest.mark.parametrize("how", ["auto_start", "start_job"])
async def test_life_of_a_job_is_told_in_order(manager: JobManager, told: Told, how: str) -> None:
    @manager.handler
    async def work() -> None:
        pass

    job = await manager.create_job("work", auto_start=how == "auto_start")
    if how == "start_job":
        await manager.start_job(job.job_id)
    await soon(manager.wait_for_job(job.job_id))
    await settled()

    queued = ["queued"] if how == "start_job" else []
    assert told.events[job.job_id] == ["created", *queued, "started", "completed"]


async def test_retries_pauses_and_reruns_are_told_in_order(manager: JobManager, clock: ManualClock, told: Told) -> None:
    held = Held()

    @manager.handler
    async def work(context: JobContext) -> None:
        await held(None, context)
        if context.attempt == 1:
            raise ValueError

    await manager.create_job("work", job_id="j", max_retries=1, retry_delay=5)
    await manager.start_job("j")
    await held.wait_begun("j")
    await manager.pause_job("j")
    await manager.resume_job("j")
    held.let_go()
    await in_time(clock, manager.wait_for_job("j"))
    await manager.retry_job("j")
    await soon(manager.wait_for_job("j"))
    await settled()
    await manager.delete_job("j")

    assert told.events["j"] == [
        *("created", "queued", "started", "paused", "resumed", "retrying"),
        *("started", "completed", "queued", "started", "completed", "deleted"),
    ]


async def test_each_start_is_told_before_its_end_when_jobs_are_many(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=5)
    told = Told(manager)

    @manager.handler
    async def work() -> None:
        await asyncio.sleep(0)

    _, jobs = await manager.create_job_batch([{"name": "work"} for _ in range(200)], auto_start=True)
    await soon(asyncio.gather(*(manager.wait_for_job(job.job_id) for job in jobs)))
    await settled()

    assert set(map(tuple, told.events.values())) == {("created", "started", "completed")}


async def test_event_shows_the_job_as_it_was_then(manager: JobManager) -> None:
    shown: list[tuple[EventType, str, object]] = []
    manager.events.subscribe(lambda event: shown.append((event.type, event.job.status.value, event.job.result)))

    @manager.handler
    async def work() -> int:
        return 5

    await soon(manager.run_job("work"))
    await settled()

    assert sorted(shown, key=lambda entry: entry[0]) == [
        (EventType.COMPLETED, "completed", 5),
        (EventType.CREATED, "pending", None),
        (EventType.STARTED, "running", None),
    ]


async def test_who_waits_sees_the_end_after_it_was_told(manager: JobManager, told: Told) -> None:
    @manager.handler
    async def work() -> None:
        pass

    job = await manager.create_job("work", auto_start=True)
    await soon(manager.wait_for_job(job.job_id))

    assert told.events[job.job_id][-1] == "completed"
