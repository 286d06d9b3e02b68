"""Pausing a handler that knows nothing about it: it is held at its next await, and goes on from there when resumed."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from openagents_json.job import JobContext, JobManager, JobStatus, WaitReason
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


class Stepping:
    """A handler that takes a step whenever the test lets it.

    Attributes:
        steps: how many it took.
    """

    def __init__(self) -> None:
        self.steps = 0
        self._go = asyncio.Semaphore(0)

    async def __call__(self) -> int:
        while self.steps < 5:
            await self._go.acquire()
            self.steps += 1
        return self.steps

    async def let_step(self) -> None:
        """Let it take a step, and give it the time to."""
        self._go.release()
        await settled()


@pytest.fixture
async def stepping(manager: JobManager) -> Stepping:
    stepping = Stepping()
    manager.register_handler("steps", stepping)
    return stepping


async def test_paused_handler_takes_no_step_though_what_it_awaits_is_there(
    manager: JobManager, stepping: Stepping
) -> None:
    job = await manager.create_job("steps", auto_start=True)
    await settled()
    await stepping.let_step()
    assert stepping.steps == 1

    await manager.pause_job(job.job_id)
    await stepping.let_step()
    assert stepping.steps == 1

    await manager.resume_job(job.job_id)
    await settled()
    assert stepping.steps == 2


async def test_handler_paused_again_and_again_loses_no_step(manager: JobManager, stepping: Stepping) -> None:
    job = await manager.create_job("steps", auto_start=True)
    await settled()
    for done in range(4):
        await manager.pause_job(job.job_id)
        await stepping.let_step()
        assert stepping.steps == done
        await manager.resume_job(job.job_id)
        await settled()
        assert stepping.steps == done + 1
    await stepping.let_step()

    assert (await soon(manager.wait_for_job(job.job_id))).result == 5


async def test_pause_and_resume_in_one_breath_change_nothing(manager: JobManager, stepping: Stepping) -> None:
    job = await manager.create_job("steps", auto_start=True)
    await settled()

    for _ in range(20):
        await asyncio.gather(manager.pause_job(job.job_id), manager.resume_job(job.job_id))
    await stepping.let_step()

    assert await manager.get_job_status(job.job_id) is JobStatus.RUNNING
    assert stepping.steps == 1


async def test_resume_and_pause_in_one_breath_let_it_take_no_step(manager: JobManager, stepping: Stepping) -> None:
    job = await manager.create_job("steps", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    await stepping.let_step()

    for _ in range(20):
        await asyncio.gather(manager.resume_job(job.job_id), manager.pause_job(job.job_id))
    await settled()

    assert await manager.get_job_status(job.job_id) is JobStatus.PAUSED
    assert stepping.steps == 0


async def test_pending_job_that_is_paused_does_not_start_until_resumed(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work")
    await manager.pause_job(job.job_id)
    await manager.resume_job(job.job_id)
    assert (await manager.get_job(job.job_id)).wait_reason is WaitReason.START, "nobody has started it"
    await manager.pause_job(job.job_id)
    await settled()
    assert held.begun == []

    await manager.resume_job(job.job_id)
    await manager.start_job(job.job_id)

    await held.wait_begun(job.job_id)


@pytest.mark.parametrize("rounds", range(10))
async def test_job_paused_around_its_claim_is_held_wherever_it_is(manager: JobManager, rounds: int) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work")
    await manager.start_job(job.job_id)
    for _ in range(rounds):  # it is claimed and begins in one of these
        await asyncio.sleep(0)

    await manager.pause_job(job.job_id)
    await settled()
    begun_before = job.job_id in held.begun
    held.let_go(job.job_id)
    await settled()
    assert (job.job_id in held.begun, held.ended) == (begun_before, [])

    await manager.resume_job(job.job_id)
    assert (await soon(manager.wait_for_job(job.job_id))).status is JobStatus.COMPLETED
    assert held.begun == [job.job_id]


async def test_job_that_waits_for_its_time_can_be_paused_past_it(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True, delay=60)
    await manager.pause_job(job.job_id)
    await pass_time(clock, 120)
    assert held.begun == []

    resumed = await manager.resume_job(job.job_id)

    assert (resumed.status, resumed.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
    await held.wait_begun(job.job_id)


async def test_job_that_waits_for_its_time_waits_on_when_resumed_before_it(
    manager: JobManager, clock: ManualClock
) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True, delay=60)
    await manager.pause_job(job.job_id)
    await pass_time(clock, 30)

    assert (await manager.resume_job(job.job_id)).wait_reason is WaitReason.TIME
    await pass_time(clock, 29)
    assert held.begun == []
    await pass_time(clock, 1)
    assert held.begun == [job.job_id]


async def test_job_that_backs_off_can_be_paused(manager: JobManager, clock: ManualClock) -> None:
    tries = 0

    @manager.handler
    async def work() -> None:
        nonlocal tries
        tries += 1
        raise ValueError

    job = await manager.create_job("work", auto_start=True, max_retries=1, retry_delay=10)
    await settled()
    await manager.pause_job(job.job_id)
    await pass_time(clock, 100)
    assert tries == 1

    await manager.resume_job(job.job_id)

    await soon(manager.wait_for_job(job.job_id))
    assert tries == 2


async def test_job_paused_while_it_waits_for_dependencies_runs_after_both(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="parent", auto_start=True)
    await manager.create_job("work", job_id="child", dependencies=["parent"], auto_start=True)
    await manager.pause_job("child")
    held.let_go()
    await soon(manager.wait_for_job("parent"))
    await settled()
    assert held.begun == ["parent"]

    assert (await manager.resume_job("child")).wait_reason is WaitReason.WORKER

    await soon(manager.wait_for_job("child"))


async def test_paused_job_lends_its_slot(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await settled()
    assert held.begun == ["first"]

    await manager.pause_job("first")

    await held.wait_begun("second")


async def test_resumed_job_takes_a_slot_before_it_goes_on(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await manager.pause_job("first")
    await held.wait_begun("second")

    assert (await manager.resume_job("first")).status is JobStatus.RUNNING
    held.let_go("first")
    await settled()
    assert held.ended == [], "the slot is the second one's"

    held.let_go("second")
    await soon(manager.wait_for_job("first"))
    assert held.ended == ["second", "first"]


async def test_resumed_job_goes_before_new_ones(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.pause_job("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await held.wait_begun("second")
    await manager.create_job("work", job_id="third", auto_start=True, priority="high")
    await manager.resume_job("first")

    held.let_go("second", "first", "third")

    await soon(manager.wait_for_job("third"))
    assert held.ended == ["second", "first", "third"]


async def test_job_paused_again_while_it_waits_for_a_slot_asks_for_none(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.pause_job("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await held.wait_begun("second")
    await manager.create_job("work", job_id="third", auto_start=True)
    await manager.resume_job("first")
    await manager.pause_job("first")

    held.let_go("second", "first")

    await held.wait_begun("third")
    assert held.ended == ["second"]


async def test_job_paused_and_resumed_again_and_again_while_it_waits_for_a_slot_takes_one(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.pause_job("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await held.wait_begun("second")
    for _ in range(5):
        await manager.resume_job("first")
        await manager.pause_job("first")
    await manager.resume_job("first")

    held.let_go("second")
    await soon(manager.wait_for_job("second"))
    held.let_go("first")
    await soon(manager.wait_for_job("first"))
    await manager.create_job("work", job_id="third", auto_start=True)
    await held.wait_begun("third")
    await manager.create_job("work", job_id="fourth", auto_start=True)
    await settled()
    assert held.begun == ["first", "second", "third"]


async def test_paused_time_does_not_count_against_the_timeout(manager: JobManager, clock: ManualClock) -> None:
    held = Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True, timeout=10)
    await held.wait_begun("j")
    await pass_time(clock, 4)
    await manager.pause_job("j")
    await pass_time(clock, 1000)
    assert await manager.get_job_status("j") is JobStatus.PAUSED
    await manager.resume_job("j")
    await pass_time(clock, 3)
    await manager.pause_job("j")
    await pass_time(clock, 1000)
    await manager.resume_job("j")

    await pass_time(clock, 2.9)
    assert await manager.get_job_status("j") is JobStatus.RUNNING
    await pass_time(clock, 0.2)
    done = await manager.get_job("j")
    assert done.status is JobStatus.FAILED
    assert done.error is not None
    assert done.error.type == "Timeout"


async def test_time_without_a_slot_does_not_count_against_the_timeout(managers: Managers, clock: ManualClock) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True, timeout=10)
    await held.wait_begun("first")
    await manager.pause_job("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await held.wait_begun("second")
    await manager.resume_job("first")

    await pass_time(clock, 1000)
    assert await manager.get_job_status("first") is JobStatus.RUNNING
    held.let_go("second")
    await pass_time(clock, 9)
    assert await manager.get_job_status("first") is JobStatus.RUNNING
    await pass_time(clock, 1)
    assert await manager.get_job_status("first") is JobStatus.FAILED


async def test_paused_parent_does_not_go_on_when_its_child_is_done(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("held", held)
    went_on: list[str] = []

    @manager.handler
    async def parent(context: JobContext) -> None:
        await context.run_job("held", job_id="child")
        went_on.append("parent")

    await manager.create_job("parent", job_id="parent", auto_start=True)
    await held.wait_begun("child")
    await manager.pause_job("parent")
    held.let_go("child")
    await soon(manager.wait_for_job("child"))
    await settled()
    assert went_on == []

    await manager.resume_job("parent")

    await soon(manager.wait_for_job("parent"))
    assert went_on == ["parent"]


async def test_task_that_a_paused_handler_spawned_goes_on(manager: JobManager) -> None:
    steps: list[str] = []
    go = asyncio.Event()

    async def spawned() -> None:
        await go.wait()
        steps.append("spawned")

    @manager.handler
    async def work() -> None:
        task = asyncio.create_task(spawned())
        await task
        steps.append("handler")

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    go.set()
    await settled()
    assert steps == ["spawned"]

    await manager.resume_job(job.job_id)
    await soon(manager.wait_for_job(job.job_id))
    assert steps == ["spawned", "handler"]


async def test_cancelled_while_paused_it_cleans_up_and_ends(manager: JobManager) -> None:
    steps: list[str] = []

    @manager.handler
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            steps.append("cleaned up")

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    await settled()

    await manager.cancel_job(job.job_id)
    await settled()

    assert steps == ["cancelled", "cleaned up"]


async def test_cancelled_while_paused_before_its_first_step_it_never_begins(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    for rounds in range(6):
        job = await manager.create_job("work")
        await manager.start_job(job.job_id)
        for _ in range(rounds):
            await asyncio.sleep(0)
        await asyncio.gather(manager.pause_job(job.job_id), manager.cancel_job(job.job_id))
        await settled()
        assert held.running == 0
    held.let_go()

    assert await soon(manager.run_job("work", payload="the slot is free")) == "the slot is free"


@pytest.mark.parametrize("leaves_with", ["a return", "an exception"])
async def test_handler_that_answers_cancellation_by_leaving_changes_nothing(
    manager: JobManager, leaves_with: str
) -> None:
    @manager.handler
    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if leaves_with == "an exception":
                raise ValueError from None
        return "late"

    job = await manager.create_job("work", auto_start=True)
    await settled()
    await manager.pause_job(job.job_id)
    cancelled = await manager.cancel_job(job.job_id)
    await settled()

    assert await manager.get_job(job.job_id) == cancelled
    assert cancelled.result is None


async def test_wait_for_a_paused_job_goes_on_waiting(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)
    waiting = asyncio.create_task(manager.wait_for_job(job.job_id))
    await manager.pause_job(job.job_id)
    await settled()
    assert not waiting.done()

    await manager.resume_job(job.job_id)
    held.let_go()
    assert (await soon(waiting)).status is JobStatus.COMPLETED


@pytest.mark.parametrize("order", ["pause first", "stop first"])
async def test_paused_job_does_not_keep_its_manager_from_stopping(
    managers: Managers, clock: ManualClock, order: str
) -> None:
    manager, held = managers(shutdown_timeout=30), Held()
    manager.register_handler("work", held)
    job = await manager.create_job("work", auto_start=True)
    await held.wait_begun(job.job_id)
    if order == "pause first":
        await manager.pause_job(job.job_id)
        await in_time(clock, manager.stop())
    else:
        stopping = asyncio.create_task(manager.stop())
        await settled()
        await manager.pause_job(job.job_id)
        await in_time(clock, stopping)

    viewer = managers(run_jobs=False)
    assert (await viewer.get_job(job.job_id)).status is JobStatus.PAUSED
    assert held.cancelled == [job.job_id]


Call = Callable[[JobManager, str], Awaitable[object]]


@pytest.mark.parametrize(
    "call",
    [
        lambda manager, job_id: manager.cancel_job(job_id),
        lambda manager, job_id: manager.resume_job(job_id),
        lambda manager, job_id: manager.delete_job(job_id),
    ],
    ids=["cancelled", "resumed", "deleted"],
)
async def test_job_paused_while_it_waits_can_be(manager: JobManager, call: Call) -> None:
    job = await manager.create_job("nobody-can", auto_start=True)
    await manager.pause_job(job.job_id)

    await call(manager, job.job_id)
