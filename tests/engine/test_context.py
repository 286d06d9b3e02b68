"""What a handler knows of its job, and code deep inside it; and what it does not see of others."""

import asyncio
import logging
from contextvars import ContextVar

import pytest

from openagents_json.job import JobContext, JobManager, JobStatus
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import pass_time, settled, soon
from tests.engine.conftest import Managers

colour: ContextVar[str] = ContextVar("colour", default="none")


async def deep_inside(levels: int) -> str:
    if levels:
        return await deep_inside(levels - 1)
    return JobContext.current().job_id


async def test_context_is_found_deep_inside(manager: JobManager) -> None:
    @manager.handler
    async def work() -> list[str]:
        in_a_task = await asyncio.create_task(deep_inside(3))
        in_a_thread = await asyncio.to_thread(lambda: JobContext.current().job_id)
        return [await deep_inside(10), in_a_task, in_a_thread]

    assert await soon(manager.run_job("work", job_id="j")) == ["j", "j", "j"]


async def test_context_is_found_in_a_plain_function(manager: JobManager) -> None:
    @manager.handler
    def work() -> str:
        return JobContext.current().job_id

    assert await soon(manager.run_job("work", job_id="j")) == "j"


def test_there_is_no_context_outside() -> None:
    with pytest.raises(LookupError, match="no job is running here"):
        JobContext.current()


async def test_jobs_that_run_at_once_see_each_their_own(manager: JobManager) -> None:
    @manager.handler
    async def work(context: JobContext) -> bool:
        seen = set()
        for _ in range(10):
            await asyncio.sleep(0)
            seen.add(JobContext.current().job_id)
        return seen == {context.job_id}

    assert all(await soon(asyncio.gather(*(manager.run_job("work") for _ in range(10)))))


async def test_context_knows_the_job(manager: JobManager) -> None:
    held = Held()
    seen: list[tuple[str, int, str, object]] = []

    @manager.handler
    async def work(context: JobContext) -> None:
        seen.append((context.job.job_id, context.attempt, context.job.status.value, context.job.payload))
        await held(None, context)
        seen.append((context.job.job_id, context.attempt, context.job.status.value, context.job.payload))

    await manager.create_job("work", job_id="j", payload={"a": 1}, auto_start=True)
    await held.wait_begun("j")
    await manager.pause_job("j")
    await manager.resume_job("j")
    held.let_go()
    await soon(manager.wait_for_job("j"))

    assert seen == [("j", 1, "running", {"a": 1})] * 2


async def test_context_is_passed_by_name_or_annotation(manager: JobManager) -> None:
    async def by_name(context: object) -> str:
        return getattr(context, "job_id", "")

    async def by_annotation(payload: int, me: JobContext) -> list[object]:
        return [payload, me.job_id]

    async def first(ctx: JobContext, payload: int) -> list[object]:
        return [payload, ctx.job_id]

    async def neither() -> str:
        return "nothing"

    for handler in (by_name, by_annotation, first, neither):
        manager.register_handler(None, handler)

    assert await soon(manager.run_job("by_name", job_id="a")) == "a"
    assert await soon(manager.run_job("by_annotation", job_id="b", payload=1)) == [1, "b"]
    assert await soon(manager.run_job("first", job_id="c", payload=2)) == [2, "c"]
    assert await soon(manager.run_job("neither")) == "nothing"


async def test_logger_carries_the_job(manager: JobManager, caplog: pytest.LogCaptureFixture) -> None:
    @manager.handler
    async def work(context: JobContext) -> None:
        context.logger.warning("half of %s is done", "it", extra={"mine": 1})
        JobContext.current().logger.info("deep inside")

    with caplog.at_level(logging.INFO, "openagents_json.handler"):
        await soon(manager.run_job("work", job_id="j"))

    records = [record for record in caplog.records if record.name == "openagents_json.handler"]
    assert [record.getMessage() for record in records] == ["job j: half of it is done", "job j: deep inside"]
    assert [(vars(record)["job_id"], vars(record)["attempt"]) for record in records] == [("j", 1)] * 2
    assert vars(records[0])["mine"] == 1


async def test_context_variables_of_one_job_are_not_seen_by_the_next(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)

    @manager.handler
    async def work(payload: str) -> str:
        before = colour.get()
        colour.set(payload)
        await asyncio.sleep(0)
        return before

    @manager.handler
    def plain(payload: str) -> str:
        before = colour.get()
        colour.set(payload)
        return before

    for name in ("work", "plain"):
        assert [await soon(manager.run_job(name, payload=value)) for value in ("red", "green")] == ["none", "none"]


async def test_context_variables_of_who_came_first_are_not_the_handlers(managers: Managers) -> None:
    manager = managers()

    @manager.handler
    async def work() -> str:
        return colour.get()

    async def first_request() -> object:
        colour.set("that of the first request")
        return await manager.run_job("work")

    assert await soon(asyncio.create_task(first_request())) == "none"
    assert await soon(manager.run_job("work")) == "none"


async def test_subscriber_is_not_taken_for_part_of_the_handler_that_caused_the_event(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    seen: list[bool] = []

    async def subscriber(event: object) -> None:
        try:
            JobContext.current()
        except LookupError:
            seen.append(False)
        else:
            seen.append(True)

    @manager.handler
    async def work() -> None:
        await manager.create_job("other")

    manager.events.subscribe(subscriber, types=["created"])
    await soon(manager.run_job("work"))
    await settled()

    assert seen == [False, False]


async def test_dependency_results_are_empty_without_dependencies(manager: JobManager) -> None:
    @manager.handler
    async def work(context: JobContext) -> list[object]:
        return list(context.dependency_results)

    assert await soon(manager.run_job("work")) == []


async def test_wait_with_a_timeout_gives_up_and_leaves_the_job_alone(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", job_id="j", auto_start=True)

    with pytest.raises(TimeoutError, match=r"job 'j' is not over after 0\.01 s; it goes on"):
        await manager.wait_for_job(job.job_id, timeout=0.01)

    assert (await manager.get_job("j")).status is JobStatus.RUNNING


async def test_wait_without_time_sees_what_is_over_already(manager: JobManager) -> None:
    @manager.handler
    async def work() -> str:
        return "done"

    await soon(manager.run_job("work", job_id="j"))

    assert (await manager.wait_for_job("j", timeout=0)).result == "done"
    await manager.create_job("nobody-can", job_id="other", auto_start=True)
    with pytest.raises(TimeoutError):
        await manager.wait_for_job("other", timeout=0)


async def test_handler_whose_wait_timed_out_takes_its_slot_back_before_it_goes_on(
    managers: Managers, clock: ManualClock
) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("held", held)
    went_on = asyncio.Event()

    @manager.handler
    async def impatient(context: JobContext) -> None:
        with pytest.raises(TimeoutError):
            await context.wait_for_job("never-started", timeout=0.01)
        went_on.set()

    await manager.create_job("held", job_id="never-started")
    await manager.create_job("impatient", job_id="impatient", auto_start=True)
    await settled()
    await manager.create_job("held", job_id="other", auto_start=True)
    await held.wait_begun("other")
    await asyncio.sleep(0.05)  # its time is over, by the loop's clock or by the manager's
    await pass_time(clock, 1)
    assert not went_on.is_set(), "the other job has the slot"

    held.let_go("other")
    await soon(went_on.wait())
    await soon(manager.wait_for_job("impatient"))
