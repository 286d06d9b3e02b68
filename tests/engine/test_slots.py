"""A slot is held from claim to outcome; who awaits another job lends his, and takes one again before going on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from openagents_json.errors import InvalidJobError, JobCancelledError, JobFailedError
from openagents_json.job import JobContext, JobManager, JobStatus
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import in_time, settled, soon
from tests.engine.conftest import Managers

Waiting = Callable[[JobManager, JobContext, str], Coroutine[Any, Any, Any]]


class Busy:
    """Counts how many attempts are at work, and how many at most ever were."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    async def work(self) -> None:
        """Be at work for a few rounds of the event loop."""
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(5):
            await asyncio.sleep(0)
        self.now -= 1


async def by_context_run_job(manager: JobManager, context: JobContext, child: str) -> object:
    return await context.run_job(child)


async def by_manager_run_job(manager: JobManager, context: JobContext, child: str) -> object:
    return await manager.run_job(child)


async def by_context_wait_for_job(manager: JobManager, context: JobContext, child: str) -> object:
    job = await manager.create_job(child, auto_start=True)
    return (await context.wait_for_job(job.job_id)).result


async def by_manager_wait_for_job(manager: JobManager, context: JobContext, child: str) -> object:
    job = await manager.create_job(child, auto_start=True)
    return (await manager.wait_for_job(job.job_id)).result


async def by_current_context(manager: JobManager, context: JobContext, child: str) -> object:
    return await JobContext.current().run_job(child)


@pytest.mark.parametrize(
    "wait",
    [
        by_context_run_job,
        by_manager_run_job,
        by_context_wait_for_job,
        by_manager_wait_for_job,
        by_current_context,
    ],
)
async def test_parent_gets_its_childs_result_at_one_slot(managers: Managers, wait: Waiting) -> None:
    manager = managers(max_concurrent_jobs=1)
    busy = Busy()

    @manager.handler
    async def child() -> str:
        await busy.work()
        return "from the child"

    @manager.handler
    async def parent(context: JobContext) -> list[object]:
        await busy.work()
        result = await wait(manager, context, "child")
        await busy.work()
        return ["parent", result]

    assert await soon(manager.run_job("parent")) == ["parent", "from the child"]
    assert busy.most == 1


async def test_parent_gathers_several_children_at_one_slot(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    busy = Busy()

    @manager.handler
    async def child(payload: int) -> int:
        await busy.work()
        return payload * payload

    @manager.handler
    async def parent(context: JobContext) -> list[int]:
        results = await asyncio.gather(*(context.run_job("child", payload=number) for number in range(5)))
        await busy.work()
        return results

    assert await soon(manager.run_job("parent")) == [0, 1, 4, 9, 16]
    assert busy.most == 1


async def test_chain_of_fifty_generations_needs_one_slot(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    busy = Busy()

    @manager.handler
    async def generation(payload: int, context: JobContext) -> int:
        await busy.work()
        below = 0 if payload == 1 else await context.run_job("generation", payload=payload - 1)
        await busy.work()
        return int(below) + 1

    assert await soon(manager.run_job("generation", payload=50)) == 50
    assert busy.most == 1
    assert await manager.count_jobs(status="completed") == 50


async def test_many_parents_and_children_never_work_in_more_than_their_slots(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=3)
    busy = Busy()

    @manager.handler
    async def child(payload: int) -> int:
        await busy.work()
        return payload

    @manager.handler
    async def parent(payload: int, context: JobContext) -> int:
        await busy.work()
        total = 0
        for number in range(payload):
            total += await context.run_job("child", payload=number)
            await busy.work()
        return total

    results = await soon(asyncio.gather(*(manager.run_job("parent", payload=number) for number in range(12))))

    assert results == [number * (number - 1) // 2 for number in range(12)]
    assert busy.most == 3


async def test_parent_waits_for_a_slot_before_it_goes_on(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)
    went_on = asyncio.Event()

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.wait_for_job("child")
        went_on.set()

    await manager.create_job("held", job_id="child")
    await manager.create_job("parent", job_id="parent", auto_start=True)
    await settled()
    await manager.create_job("held", job_id="other", auto_start=True, priority="high")
    await held.wait_begun("other")
    await manager.cancel_job("child")
    await settled()
    assert not went_on.is_set(), "the slot is the other job's, and the parent goes on without one"

    held.let_go("other")

    await soon(went_on.wait())
    assert (await soon(manager.wait_for_job("parent"))).status is JobStatus.COMPLETED


async def test_parent_that_wants_its_slot_back_goes_before_jobs_not_yet_claimed(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)
    order: list[str] = []

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.wait_for_job("child")
        order.append("parent")

    @manager.handler
    async def late() -> None:
        order.append("late")

    await manager.create_job("held", job_id="child")
    await manager.create_job("parent", auto_start=True)
    await settled()
    await manager.create_job("held", job_id="other", auto_start=True)
    await held.wait_begun("other")
    await manager.cancel_job("child")
    await manager.create_job("late", job_id="late", auto_start=True, priority="high")
    await settled()
    held.let_go("other")

    await soon(manager.wait_for_job("late"))
    assert order == ["parent", "late"]


async def test_lent_slot_is_used_by_jobs_that_were_waiting_already(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.wait_for_job("never-started")

    await manager.create_job("held", job_id="never-started")
    await manager.create_job("parent", job_id="parent", auto_start=True)
    await manager.create_job("held", job_id="next", auto_start=True)

    await held.wait_begun("next")
    assert held.begun == ["next"]


async def test_parent_cancelled_while_its_slot_is_lent_leaves_every_slot_usable(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.run_job("held", job_id="child")

    await manager.create_job("parent", job_id="parent", auto_start=True)
    await held.wait_begun("child")

    await manager.cancel_job("parent")
    await settled()
    await manager.create_job("held", job_id="next", auto_start=True)
    await settled()
    assert held.begun == ["child"], "a slot was invented"

    held.let_go("child")
    await held.wait_begun("next")
    await manager.create_job("held", job_id="last", auto_start=True)
    await settled()
    assert held.begun == ["child", "next"], "a slot was invented"
    held.let_go()
    await soon(manager.wait_for_job("last"))
    assert (await manager.get_job("child")).status is JobStatus.COMPLETED


async def test_parent_cancelled_while_it_waits_to_get_a_slot_back_leaves_every_slot_usable(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.wait_for_job("child")

    await manager.create_job("held", job_id="child")
    await manager.create_job("parent", job_id="parent", auto_start=True)
    await settled()
    await manager.create_job("held", job_id="other", auto_start=True)
    await held.wait_begun("other")
    await manager.cancel_job("child")
    await settled()

    await manager.cancel_job("parent")

    held.let_go("other")
    await manager.create_job("held", job_id="one", auto_start=True)
    await manager.create_job("held", job_id="two", auto_start=True)
    await held.wait_begun("one")
    await settled()
    assert held.running == 1
    held.let_go()
    await soon(manager.wait_for_job("two"))


async def test_childs_failure_reaches_its_parent(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)

    @manager.handler
    async def child() -> None:
        msg = "no such file"
        raise FileNotFoundError(msg)

    @manager.handler
    async def parent(context: JobContext) -> list[str]:
        with pytest.raises(JobFailedError) as caught:
            await context.run_job("child", job_id="c1")
        return [str(caught.value), caught.value.error.type]

    told = await soon(manager.run_job("parent"))

    assert told == ["job 'c1' failed: FileNotFoundError: no such file", "FileNotFoundError"]


async def test_childs_cancellation_reaches_its_parent(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)

    @manager.handler
    async def parent(context: JobContext) -> str:
        with pytest.raises(JobCancelledError) as caught:
            await context.run_job("held", job_id="c1")
        return str(caught.value)

    parent_job = await manager.create_job("parent", auto_start=True)
    await held.wait_begun("c1")
    await manager.cancel_job("c1", "no longer needed")

    told = await soon(manager.wait_for_job(parent_job.job_id))
    assert told.result == "job 'c1' was cancelled: Cancelled: no longer needed"


async def test_parents_timeout_runs_while_its_slot_is_lent(managers: Managers, clock: ManualClock) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.run_job("held", job_id="child")

    job = await manager.create_job("parent", auto_start=True, timeout=30)
    await held.wait_begun("child")

    done = await in_time(clock, manager.wait_for_job(job.job_id))

    assert done.error is not None
    assert done.error.type == "Timeout"
    assert (await manager.get_job("child")).status is JobStatus.RUNNING, "the child is a job of its own"


async def test_job_that_waits_for_itself_is_told_so(manager: JobManager) -> None:
    @manager.handler
    async def selfish(context: JobContext) -> str:
        with pytest.raises(InvalidJobError, match="cannot wait for itself"):
            await context.wait_for_job(context.job_id)
        return "told"

    assert await soon(manager.run_job("selfish")) == "told"


async def test_wait_of_a_task_that_outlives_its_attempt_takes_no_slot(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)
    left: list[asyncio.Task[object]] = []

    @manager.handler
    async def careless(context: JobContext) -> None:
        left.append(asyncio.create_task(context.run_job("held", job_id="child")))

    await soon(manager.run_job("careless"))
    await held.wait_begun("child")
    held.let_go("child")
    await soon(asyncio.wait(left))

    await manager.create_job("held", job_id="one", auto_start=True)
    await manager.create_job("held", job_id="two", auto_start=True)
    await held.wait_begun("one")
    await settled()
    assert held.begun == ["child", "one"]
    held.let_go()
    await soon(manager.wait_for_job("two"))


async def test_job_that_ends_while_its_slot_is_lent_makes_no_room(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)
    held = Held()
    manager.register_handler("held", held)
    left: list[asyncio.Task[object]] = []

    @manager.handler
    async def careless(context: JobContext) -> None:
        left.append(asyncio.create_task(context.run_job("held", job_id="child")))
        await held.wait_begun("child")

    job = await manager.create_job("careless", auto_start=True)
    await manager.create_job("held", job_id="next", auto_start=True, priority="low")
    await soon(manager.wait_for_job(job.job_id))
    await settled()

    assert held.begun == ["child"], "the one slot is the child's"
    held.let_go()
    await soon(manager.wait_for_job("next"))
    await soon(asyncio.wait(left))
