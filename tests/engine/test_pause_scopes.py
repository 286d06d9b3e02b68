"""Pausing inside timeouts, scopes and task groups of the handler's own: they work, and nothing spins."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest

from openagents_json.job import JobManager, JobStatus
from tests.engine._time import rounds_of_the_loop, settled, soon

#: For deadlines of the handler's own, which run on the event loop's clock (seconds).
SHORT = 0.01

Report = Callable[[str], None]
Handler = Callable[[Report], Awaitable[object]]


class PassedError(Exception):
    """What a child raises."""


async def in_move_on_after(report: Report) -> None:
    with anyio.move_on_after(SHORT) as scope:
        await anyio.sleep_forever()
    report(f"left, cancelled: {scope.cancelled_caught}")


async def in_fail_after(report: Report) -> None:
    try:
        with anyio.fail_after(SHORT):
            await anyio.sleep_forever()
    except TimeoutError:
        report("left, timed out")


async def in_nested_anyio_scopes(report: Report) -> None:
    with anyio.move_on_after(60), anyio.move_on_after(SHORT), anyio.CancelScope():
        await anyio.sleep_forever()
    report("left")


async def in_asyncio_timeout(report: Report) -> None:
    try:
        async with asyncio.timeout(SHORT):
            await asyncio.Event().wait()
    except TimeoutError:
        report("left, timed out")


async def in_wait_for(report: Report) -> None:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), SHORT)
    except TimeoutError:
        report("left, timed out")


#: The handler's own deadline passes while it is paused.
DEADLINES: list[Handler] = [
    in_move_on_after,
    in_fail_after,
    in_nested_anyio_scopes,
    in_asyncio_timeout,
]


@pytest.mark.parametrize("handler", DEADLINES, ids=lambda handler: handler.__name__)
async def test_deadline_of_the_handlers_own_passes_while_it_is_paused(manager: JobManager, handler: Handler) -> None:
    reported: list[str] = []
    left = asyncio.Event()
    went_on = asyncio.Event()

    def report(what: str) -> None:
        reported.append(what)
        left.set()

    @manager.handler
    async def work() -> None:
        await handler(report)
        await asyncio.sleep(0)
        went_on.set()

    job = await manager.create_job("work", auto_start=True)
    await manager.pause_job(job.job_id)
    await manager.resume_job(job.job_id)
    await settled()
    await manager.pause_job(job.job_id)

    await soon(left.wait())
    await settled()
    assert not went_on.is_set(), "after the step its cancellation is due it is held again"
    await manager.resume_job(job.job_id)
    assert (await soon(manager.wait_for_job(job.job_id))).status is JobStatus.COMPLETED
    assert len(reported) == 1


async def test_wait_for_times_out_when_resumed_at_the_latest(manager: JobManager) -> None:
    reported: list[str] = []

    @manager.handler
    async def work() -> None:
        await in_wait_for(reported.append)

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    await asyncio.sleep(2 * SHORT)
    # from Python 3.12 on it is made of asyncio.timeout, whose cancellation has its one step also while paused
    if not (await manager.get_job_status(job.job_id)).finished:
        await manager.resume_job(job.job_id)

    await soon(manager.wait_for_job(job.job_id))
    assert reported == ["left, timed out"]


async def test_cleanup_in_a_cancelled_scope_ends_though_paused(manager: JobManager) -> None:
    steps: list[str] = []
    left = asyncio.Event()

    @manager.handler
    async def work() -> None:
        with anyio.move_on_after(SHORT):
            try:
                await anyio.sleep_forever()
            finally:
                for name in ("first", "second"):
                    try:
                        await anyio.sleep_forever()
                    except asyncio.CancelledError:
                        steps.append(name)
                        if name == "second":
                            left.set()
                            raise

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)

    await soon(left.wait())
    assert steps == ["first", "second"], "each await in a cancelled scope is cancelled, as anyio has it"
    await manager.resume_job(job.job_id)
    await soon(manager.wait_for_job(job.job_id))


async def held_in_shielded_cleanup(report: Report) -> None:
    with anyio.move_on_after(SHORT):
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                report("cleaning up")
                await asyncio.sleep(0)
                report("cleaned up")


async def held_after_its_own_timeout(report: Report) -> None:
    try:
        async with asyncio.timeout(SHORT):
            await asyncio.Event().wait()
    except TimeoutError:
        report("timed out")
        await asyncio.sleep(0)
    report("done")


async def held_inside_a_long_timeout(report: Report) -> None:
    async with asyncio.timeout(60):
        while True:
            report("inside")
            await asyncio.sleep(0)


async def held_inside_a_long_anyio_scope(report: Report) -> None:
    with anyio.move_on_after(60):
        while True:
            report("inside")
            await asyncio.sleep(0)


async def held_after_a_childs_failure(report: Report) -> None:
    async def child() -> None:
        await anyio.sleep(SHORT)
        raise PassedError

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            await anyio.sleep_forever()
    except* PassedError:
        report("child failed")
    await asyncio.sleep(0)


async def held_after_a_childs_failure_in_asyncio(report: Report) -> None:
    async def child() -> None:
        await asyncio.sleep(SHORT)
        raise PassedError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.Event().wait()
    except* PassedError:
        report("child failed")
    await asyncio.sleep(0)


async def held_in_a_thread(report: Report) -> None:
    while True:
        await anyio.to_thread.run_sync(lambda: None)
        report("a thread is done")


async def held_at_a_plain_await(report: Report) -> None:
    while True:
        report("step")
        await asyncio.sleep(0)


SITUATIONS: list[Handler] = [
    held_in_shielded_cleanup,
    held_after_its_own_timeout,
    held_inside_a_long_timeout,
    held_inside_a_long_anyio_scope,
    held_after_a_childs_failure,
    held_after_a_childs_failure_in_asyncio,
    held_in_a_thread,
    held_at_a_plain_await,
]


@pytest.mark.parametrize("handler", SITUATIONS, ids=lambda handler: handler.__name__)
async def test_paused_handler_costs_nothing(manager: JobManager, handler: Handler) -> None:
    reported: list[str] = []

    @manager.handler
    async def work() -> None:
        await handler(reported.append)

    job = await manager.create_job("work", auto_start=True)
    for _ in range(20):
        await asyncio.sleep(0)
    await manager.pause_job(job.job_id)
    await asyncio.sleep(5 * SHORT)  # its own deadline, if it has one, passes
    await settled()
    steps = len(reported)
    cpu = time.process_time()

    rounds = await rounds_of_the_loop(asyncio.sleep(0.3))

    assert rounds <= 5
    assert time.process_time() - cpu < 0.15
    assert len(reported) == steps
    await manager.cancel_job(job.job_id)
    await settled()


async def test_children_of_a_task_group_go_on_and_their_paused_parent_waits(manager: JobManager) -> None:
    ended: list[str] = []
    go = asyncio.Event()

    async def child(name: str) -> str:
        await go.wait()
        ended.append(name)
        return name

    @manager.handler
    async def work() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(child(name)) for name in ("a", "b")]
        ended.append("parent")
        return [task.result() for task in tasks]

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    go.set()
    await settled()
    assert ended == ["a", "b"]

    await manager.resume_job(job.job_id)
    assert (await soon(manager.wait_for_job(job.job_id))).result == ["a", "b"]


async def test_children_of_an_anyio_task_group_go_on_and_their_paused_parent_waits(manager: JobManager) -> None:
    ended: list[str] = []
    go = asyncio.Event()

    async def child(name: str) -> None:
        await go.wait()
        ended.append(name)

    @manager.handler
    async def work() -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(child, "a")
            group.start_soon(child, "b")
        ended.append("parent")
        return "done"

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    go.set()
    await settled()
    assert sorted(ended) == ["a", "b"]

    await manager.resume_job(job.job_id)
    assert (await soon(manager.wait_for_job(job.job_id))).result == "done"


async def test_gathered_coroutines_go_on_and_their_paused_parent_waits(manager: JobManager) -> None:
    ended: list[str] = []
    go = asyncio.Event()

    async def child(name: str) -> str:
        await go.wait()
        ended.append(name)
        return name

    @manager.handler
    async def work() -> list[str]:
        results = await asyncio.gather(child("a"), child("b"))
        ended.append("parent")
        return list(results)

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    go.set()
    await settled()
    assert ended == ["a", "b"]

    await manager.resume_job(job.job_id)
    assert (await soon(manager.wait_for_job(job.job_id))).result == ["a", "b"]


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
async def test_cancelled_while_paused_in_a_task_group_it_takes_its_children_along(
    manager: JobManager, kind: str
) -> None:
    cancelled: list[str] = []

    async def child(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    @manager.handler
    async def work() -> None:
        if kind == "asyncio":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(child("a"))
                tasks.create_task(child("b"))
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(child, "a")
                group.start_soon(child, "b")

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    await settled()

    await manager.cancel_job(job.job_id)
    await settled()

    assert sorted(cancelled) == ["a", "b"]


@pytest.mark.parametrize("kind", ["asyncio", "anyio"])
async def test_failing_child_reaches_its_paused_parent_when_it_is_resumed(manager: JobManager, kind: str) -> None:
    go = asyncio.Event()
    after: list[str] = []

    async def child() -> None:
        await go.wait()
        raise PassedError

    @manager.handler
    async def work() -> str:
        try:
            if kind == "asyncio":
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(child())
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(child)
        except* PassedError:
            await asyncio.sleep(0)
            after.append("handled")
        return "survived"

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    go.set()
    await settled()
    assert after == []

    await manager.resume_job(job.job_id)
    assert (await soon(manager.wait_for_job(job.job_id))).result == "survived"
    assert after == ["handled"]


async def test_scope_left_after_a_pause_cancels_nothing_later(manager: JobManager) -> None:
    @manager.handler
    async def work() -> str:
        with anyio.move_on_after(SHORT):
            await anyio.sleep_forever()
        async with asyncio.timeout(None):
            for _ in range(10):
                await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return f"cancelling: {task.cancelling()}"

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    await asyncio.sleep(3 * SHORT)
    await manager.resume_job(job.job_id)

    assert (await soon(manager.wait_for_job(job.job_id))).result == "cancelling: 0"
