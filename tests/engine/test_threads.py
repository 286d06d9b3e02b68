"""Plain functions as handlers: they run in threads, which nothing can stop, and the engine does not pretend it can."""

import asyncio
import sys
import threading

import pytest

from openagents_json.errors import JobFailedError
from openagents_json.job import AttemptOutcome, JobContext, JobManager, JobStatus
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import HeldThread
from tests.engine._stores import ScriptedStore
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


async def test_plain_function_runs_in_a_thread_with_its_context(manager: JobManager) -> None:
    @manager.handler
    def work(payload: int) -> dict[str, object]:
        context = JobContext.current()
        return {
            "payload": payload,
            "elsewhere": threading.current_thread() is not threading.main_thread(),
            "attempt": context.attempt,
            "daemon": threading.current_thread().daemon,
        }

    result = await soon(manager.run_job("work", payload=7))

    assert result == {"payload": 7, "elsewhere": True, "attempt": 1, "daemon": True}


async def test_blocked_thread_does_not_block_the_event_loop(manager: JobManager, thread: HeldThread) -> None:
    manager.register_handler("work", thread)

    @manager.handler
    async def quick() -> str:
        return "quick"

    job = await manager.create_job("work", auto_start=True)
    await thread.wait_begun()

    assert await soon(manager.run_job("quick")) == "quick"
    thread.let_go()
    await soon(manager.wait_for_job(job.job_id))


async def test_threads_are_no_more_than_slots_and_used_again(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=3)
    seen: set[int] = set()

    @manager.handler
    def work() -> None:
        seen.add(threading.get_ident())

    await soon(asyncio.gather(*(manager.run_job("work") for _ in range(60))))

    assert 1 <= len(seen) <= 3


async def test_no_more_threads_run_than_there_are_slots(managers: Managers, thread: HeldThread) -> None:
    manager = managers(max_concurrent_jobs=2)
    manager.register_handler("work", thread)
    waits = [asyncio.create_task(manager.run_job("work")) for _ in range(6)]
    for _ in range(6):
        await thread.wait_begun()
        thread.let_go()
    await soon(asyncio.gather(*waits))

    assert thread.most <= 2


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        (KeyError("missing"), "KeyError: 'missing'"),
        (SystemExit(3), "RuntimeError: the handler called sys.exit(3)"),
        (StopIteration("odd"), "RuntimeError: coroutine raised StopIteration"),
        (asyncio.CancelledError(), "CancelledError: the handler was cancelled, and not by its manager"),
    ],
    ids=["KeyError", "SystemExit", "StopIteration", "CancelledError"],
)
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_whatever_a_handler_raises_its_job_fails_and_the_manager_lives(
    manager: JobManager, kind: str, raised: BaseException, shown: str
) -> None:
    def plain() -> None:
        raise raised

    async def asynchronous() -> None:
        raise raised

    manager.register_handler("work", plain if kind == "plain" else asynchronous)
    job = await manager.create_job("work", auto_start=True)

    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.status, str(done.error)) == (JobStatus.FAILED, shown)


async def test_exit_in_a_handler_ends_its_job_and_not_the_program(manager: JobManager) -> None:
    @manager.handler
    async def work() -> None:
        sys.exit("bye")

    with pytest.raises(JobFailedError, match=r"RuntimeError: the handler called sys.exit\('bye'\)"):
        await soon(manager.run_job("work"))


async def test_timed_out_thread_is_told_and_its_late_outcome_is_refused(
    managers: Managers, clock: ManualClock, thread: HeldThread
) -> None:
    manager = managers(max_concurrent_jobs=1)
    manager.register_handler("work", thread)
    job = await manager.create_job("work", payload="late", auto_start=True, timeout=5)
    await thread.wait_begun()

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert [attempt.outcome for attempt in done.attempts] == [AttemptOutcome.TIMED_OUT]
    await manager.create_job("work", job_id="next", auto_start=True)
    await pass_time(clock, 60)
    assert thread.runs == 1, "it keeps its slot until it returns"

    thread.let_go()
    await thread.wait_begun()
    assert thread.heard_cancelled == [True]
    assert await manager.get_job(job.job_id) == done
    thread.let_go()
    await soon(manager.wait_for_job("next"))
    assert thread.heard_cancelled == [True, False]


@pytest.mark.parametrize("retry_delay", [0, 1])
async def test_no_retry_starts_before_the_timed_out_thread_has_ended(
    manager: JobManager, clock: ManualClock, retry_delay: float, thread: HeldThread
) -> None:
    manager.register_handler("work", thread)
    job = await manager.create_job("work", auto_start=True, timeout=5, max_retries=1, retry_delay=retry_delay)
    await thread.wait_begun()
    await pass_time(clock, 120)
    assert thread.runs == 1

    thread.let_go()
    await thread.wait_begun()
    thread.let_go()

    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.status, done.attempt, thread.most) == (JobStatus.COMPLETED, 2, 1)


async def test_cancelled_thread_is_told_and_keeps_its_slot_until_it_returns(
    managers: Managers, thread: HeldThread
) -> None:
    manager = managers(max_concurrent_jobs=1)
    manager.register_handler("work", thread)
    job = await manager.create_job("work", payload="late", auto_start=True)
    await thread.wait_begun()
    cancelled = await manager.cancel_job(job.job_id)
    await manager.create_job("work", job_id="next", auto_start=True)
    await settled()
    assert (cancelled.status, thread.runs) == (JobStatus.CANCELLED, 1)

    thread.let_go()
    await thread.wait_begun()
    assert thread.heard_cancelled == [True]
    assert await manager.get_job(job.job_id) == cancelled
    thread.let_go()
    await soon(manager.wait_for_job("next"))


async def test_cancelled_and_retried_job_waits_for_its_old_thread(
    manager: JobManager, clock: ManualClock, thread: HeldThread
) -> None:
    manager.register_handler("work", thread)
    job = await manager.create_job("work", payload="again", auto_start=True)
    await thread.wait_begun()
    await manager.cancel_job(job.job_id)
    await manager.retry_job(job.job_id)
    await pass_time(clock, 60)
    assert thread.runs == 1

    thread.let_go()
    await thread.wait_begun()
    thread.let_go()

    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.result, done.attempt, thread.most) == ("again", 2, 1)


async def test_result_of_a_thread_counts_though_its_job_was_paused_meanwhile(
    manager: JobManager, thread: HeldThread
) -> None:
    manager.register_handler("work", thread)
    job = await manager.create_job("work", payload="counts", auto_start=True)
    await thread.wait_begun()
    await manager.pause_job(job.job_id)
    waiting = asyncio.create_task(manager.wait_for_job(job.job_id))

    thread.let_go()

    done = await soon(waiting)
    assert (done.status, done.result) == (JobStatus.COMPLETED, "counts")


async def test_plain_function_paused_after_its_claim_and_before_its_thread_does_not_begin(
    managers: Managers, store: MemoryJobStore, thread: HeldThread
) -> None:
    before = set(threading.enumerate())
    scripted = ScriptedStore(store)
    manager = managers(scripted)
    manager.register_handler("work", thread)
    await manager.create_job("nothing", job_id="parent")
    await manager.cancel_job("parent")
    reading = scripted.hold("get", lambda arguments: arguments == (("parent",),))
    await manager.create_job(
        "work", job_id="j", dependencies=["parent"], on_dependency_failure="run", auto_start=True, payload="done"
    )
    await reading.wait_reached()
    assert (await manager.pause_job("j")).attempt == 1, "it is claimed, and reads what its dependencies gave"
    reading.let_go()
    await settled()
    assert set(threading.enumerate()) <= before, "a thread was started"

    await manager.resume_job("j")
    thread.let_go()
    assert (await soon(manager.wait_for_job("j"))).result == "done"


async def test_paused_thread_resumed_is_waited_for_as_before(managers: Managers, thread: HeldThread) -> None:
    manager = managers(max_concurrent_jobs=1)
    manager.register_handler("work", thread)
    job = await manager.create_job("work", payload="done", auto_start=True)
    await thread.wait_begun()
    await manager.pause_job(job.job_id)
    await manager.resume_job(job.job_id)
    thread.let_go()

    assert (await soon(manager.wait_for_job(job.job_id))).result == "done"
    assert thread.runs == 1
