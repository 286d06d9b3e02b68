"""Events: who hears what, in which order, and that nobody who listens can do harm."""

import asyncio
import gc
import itertools
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typing_extensions import override

from openagents_json.errors import EventsLostError, JobNotFoundError
from openagents_json.job import EventType, JobContext, JobEvent, JobManager
from openagents_json.job._changes import Change, Claim, Result
from openagents_json.job._clock import SystemClock
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.api.helpers import run_to_the_end, shown

pytestmark = pytest.mark.timeout(10)


class Recorder:
    """Remembers the events it hears."""

    def __init__(self) -> None:
        self.events: list[JobEvent] = []

    def __call__(self, event: JobEvent) -> None:
        self.events.append(event)

    def of(self, job_id: str) -> list[str]:
        """Name the events of one job, in order."""
        return [event.type.value for event in self.events if event.job_id == job_id]


class AsyncRecorder(Recorder):
    @override
    async def __call__(self, event: JobEvent) -> None:  # type: ignore[override]
        self.events.append(event)


@pytest.fixture
def heard(manager: JobManager) -> Recorder:
    """What the manager tells from now on."""
    recorder = Recorder()
    manager.events.subscribe(recorder)
    return recorder


@pytest.fixture(autouse=True)
def work(manager: JobManager) -> None:
    manager.register_handler("work", _work)


async def _work(payload: Any) -> Any:
    return payload


async def test_a_job_that_runs_at_once_is_created_started_and_completed(manager: JobManager, heard: Recorder) -> None:
    job = await run_to_the_end(manager, "work", payload=7)
    assert heard.of(job.job_id) == ["created", "started", "completed"]
    created, started, completed = heard.events
    assert (created.job.status, started.job.status, completed.job.status) == ("pending", "running", "completed")
    assert (started.job.attempt, completed.job.result) == (1, 7)
    assert created.at <= started.at <= completed.at
    assert created.at.tzinfo is not None


async def test_every_change_is_told_under_its_name(manager: JobManager, heard: Recorder) -> None:
    calm, go_on = asyncio.Event(), asyncio.Event()

    @manager.handler("slow")
    async def slow(context: JobContext) -> None:
        context.set_progress(0.5, "half")
        calm.set()
        await go_on.wait()
        if context.attempt == 1:
            msg = "once"
            raise ValueError(msg)

    job = await manager.create_job("slow", max_retries=1, retry_delay=0)
    await manager.start_job(job.job_id)
    await calm.wait()
    await manager.pause_job(job.job_id)
    await manager.resume_job(job.job_id)
    go_on.set()
    await manager.wait_for_job(job.job_id)
    await manager.retry_job(job.job_id)
    await manager.wait_for_job(job.job_id)
    await manager.delete_job(job.job_id)
    told = heard.of(job.job_id)
    assert [name for name in told if name != "progress"] == [
        "created", "queued", "started", "paused", "resumed", "retrying", "started", "completed",
        "queued", "started", "completed", "deleted",
    ]  # fmt: skip
    assert "progress" in told
    progress = next(event for event in heard.events if event.type is EventType.PROGRESS)
    assert (progress.job.progress, progress.job.progress_message) == (0.5, "half")


async def test_the_ends_of_jobs_that_others_take_along_are_told(manager: JobManager, heard: Recorder) -> None:
    parent = await manager.create_job("work", job_id="parent")
    await manager.create_job("work", job_id="child", dependencies=[parent.job_id], auto_start=True)
    await manager.create_job("work", job_id="grandchild", dependencies=["child"], auto_start=True)
    await manager.cancel_job("parent")
    assert [heard.of(name)[-1] for name in ("parent", "child", "grandchild")] == ["cancelled"] * 3
    orphan = await manager.create_job("work", job_id="late", dependencies=["parent"], auto_start=True)
    assert orphan.status == "cancelled"
    assert heard.of("late") == ["created", "cancelled"]
    await manager.retry_job("parent")
    await manager.wait_for_job("grandchild")
    assert heard.of("grandchild") == ["created", "cancelled", "queued", "started", "completed"]


async def test_what_changes_nothing_is_not_told(manager: JobManager, heard: Recorder) -> None:
    job = await manager.create_job("work")
    await manager.pause_job(job.job_id)
    before = list(heard.events)
    await manager.pause_job(job.job_id)
    await manager.delete_job("nobody")
    with pytest.raises(JobNotFoundError):
        await manager.cancel_job("nobody")
    assert heard.events == before


async def test_a_batch_is_told_job_by_job_in_its_order(manager: JobManager, heard: Recorder) -> None:
    _, jobs = await manager.create_job_batch([{"name": f"job {number}"} for number in range(20)])
    assert [event.job_id for event in heard.events] == [job.job_id for job in jobs]
    assert {event.type for event in heard.events} == {EventType.CREATED}


async def test_cleaning_up_tells_what_it_deletes(clock: ManualClock) -> None:
    async with JobManager(MemoryJobStore(clock=clock), clock=clock, retention_days=1, run_jobs=False) as manager:
        heard = Recorder()
        manager.events.subscribe(heard, [EventType.DELETED])
        job = await manager.create_job("work")
        await manager.cancel_job(job.job_id)
        clock.advance(25 * 3600)
        assert await manager.cleanup_old_jobs() == 1
        assert heard.of(job.job_id) == ["deleted"]


# subscribers


@pytest.mark.parametrize(
    "types", [[EventType.COMPLETED], ["completed"], ("completed",), {"completed"}, iter(["completed"])], ids=shown
)
async def test_a_subscriber_of_some_types_hears_no_others(manager: JobManager, types: Any) -> None:
    heard = Recorder()
    manager.events.subscribe(heard, types)
    job = await run_to_the_end(manager, "work")
    assert heard.of(job.job_id) == ["completed"]


@pytest.mark.parametrize("types", ["completed", EventType.COMPLETED])
async def test_one_type_need_not_be_put_into_a_list(manager: JobManager, types: Any) -> None:
    heard = Recorder()
    manager.events.subscribe(heard, types)
    job = await run_to_the_end(manager, "work")
    assert heard.of(job.job_id) == ["completed"]


async def test_a_coroutine_function_hears_everything_in_order_before_the_manager_has_stopped() -> None:
    functions: list[AsyncRecorder] = [AsyncRecorder(), AsyncRecorder()]

    async def slow(event: JobEvent) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        functions[1].events.append(event)

    async with JobManager() as manager:
        manager.register_handler("work", _work)
        manager.events.subscribe(functions[0])
        manager.events.subscribe(slow)
        jobs = [await run_to_the_end(manager, "work") for _ in range(5)]
    for function in functions:
        assert [event.job_id for event in function.events] == [job.job_id for job in jobs for _ in range(3)]
        assert all(function.of(job.job_id) == ["created", "started", "completed"] for job in jobs)


async def test_events_are_told_after_they_are_stored(manager: JobManager) -> None:
    seen: list[tuple[str, str, str]] = []
    over = asyncio.Event()

    async def read(event: JobEvent) -> None:
        stored = await manager.get_job(event.job_id)
        seen.append((event.type.value, event.job.status, stored.status))
        if event.type is EventType.COMPLETED:
            over.set()

    manager.events.subscribe(read, ["created", "completed"])
    await manager.create_job("work", auto_start=True)
    await over.wait()
    created, completed = seen
    assert created[:2] == ("created", "pending")
    assert completed == ("completed", "completed", "completed")


async def test_a_job_is_told_to_be_over_before_those_that_waited_for_it_start(
    manager: JobManager, heard: Recorder
) -> None:
    names: list[str] = []
    for number in range(5):
        options: Any = {"dependencies": names[-1:], "auto_start": True}
        names.append((await manager.create_job("work", job_id=f"job-{number}", **options)).job_id)
    await manager.wait_for_job(names[-1])
    told = [(event.job_id, event.type.value) for event in heard.events]
    for parent, child in itertools.pairwise(names):
        assert told.index((parent, "completed")) < told.index((child, "started"))


class TickingClock(SystemClock):
    """A clock that never tells the same time twice."""

    def __init__(self) -> None:
        self._ticks = itertools.count()

    @override
    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=next(self._ticks))


async def test_what_is_told_and_returned_about_the_end_of_a_job_is_what_is_stored() -> None:
    clock = TickingClock()
    async with JobManager(MemoryJobStore(clock=clock), clock=clock, shutdown_timeout=1) as manager:
        manager.register_handler("work", _work)
        heard = Recorder()
        manager.events.subscribe(heard, ["started", "completed"])
        returned = await run_to_the_end(manager, "work")
        stored = await manager.get_job(returned.job_id)
        assert returned == stored
        started, completed = heard.events
        assert completed.job == stored
        assert started.job.started_at == stored.started_at


class HeldStore(MemoryJobStore):
    """A store whose writes wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self.waiting = asyncio.Event()

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        if changes:
            self.waiting.set()
            await self.go.wait()
        return await super().apply(changes, claim=claim)


async def test_nothing_is_told_while_it_is_not_stored() -> None:
    store = HeldStore()
    async with JobManager(store) as manager:
        heard = Recorder()
        manager.events.subscribe(heard)
        store.go.clear()
        creating = asyncio.create_task(manager.create_job("work"))
        await store.waiting.wait()
        assert heard.events == []
        store.go.set()
        job = await creating
        assert heard.of(job.job_id) == ["created"]


async def test_a_subscriber_that_raises_harms_nobody(manager: JobManager, caplog: pytest.LogCaptureFixture) -> None:
    before, after = Recorder(), AsyncRecorder()

    def fail(event: JobEvent) -> None:
        raise ValueError(event.type.value)

    async def fail_later(event: JobEvent) -> None:
        raise ValueError(event.type.value)

    for callback in (before, fail, fail_later, after):
        manager.events.subscribe(callback)
    jobs = [await run_to_the_end(manager, "work") for _ in range(2)]
    assert [job.status for job in jobs] == ["completed", "completed"]
    await manager.stop()
    for job in jobs:
        assert before.of(job.job_id) == after.of(job.job_id) == ["created", "started", "completed"]
    assert caplog.text.count("failed at event") == 12
    assert "ValueError: completed" in caplog.text


async def test_a_subscriber_that_raises_a_cancellation_harms_nobody(manager: JobManager) -> None:
    def fail(event: JobEvent) -> None:
        msg = "of something else"
        raise asyncio.CancelledError(msg)

    unsubscribe = manager.events.subscribe(fail, ["started", "completed"])
    heard = Recorder()
    manager.events.subscribe(heard)
    for _ in range(2):
        job = await run_to_the_end(manager, "work")
        assert job.status == "completed"
        assert heard.of(job.job_id) == ["created", "started", "completed"]
    unsubscribe()
    await manager.stop(timeout=0)
    assert "stopped" in repr(manager)


EXITING = """
import asyncio, sys
from openagents_json.job import JobManager

async def main():
    async with JobManager(shutdown_timeout=0) as manager:
        manager.register_handler("work", lambda: 1)
        manager.events.subscribe(lambda event: sys.exit(3), ["started", "completed"])
        print(await manager.run_job("work"), await manager.run_job("work"))

asyncio.run(main())
"""


def test_a_subscriber_that_exits_harms_nobody() -> None:
    process = subprocess.run([sys.executable, "-c", EXITING], capture_output=True, text=True, check=False, timeout=9)
    assert (process.returncode, process.stdout) == (0, "1 1\n"), process.stderr


async def test_a_coroutine_function_that_is_cancelled_goes_on_with_the_next_event(manager: JobManager) -> None:
    seen: list[str] = []

    async def cancelled(event: JobEvent) -> None:
        seen.append(event.type.value)
        raise asyncio.CancelledError

    manager.events.subscribe(cancelled)
    await run_to_the_end(manager, "work")
    await manager.stop()
    assert seen == ["created", "started", "completed"]


async def test_a_subscriber_that_hangs_harms_nobody_and_ends_with_the_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openagents_json.job._runtime._LAST_STEPS", 0.02)
    hanging = asyncio.Event()
    ended: list[str] = []

    async def hang(event: JobEvent) -> None:
        hanging.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event.type.value)

    async with JobManager() as manager:
        manager.register_handler("work", _work)
        heard = Recorder()
        manager.events.subscribe(hang)
        manager.events.subscribe(heard)
        job = await run_to_the_end(manager, "work")
        await hanging.wait()
        assert heard.of(job.job_id) == ["created", "started", "completed"]
        assert ended == []
    assert ended == ["created"]


async def test_a_hanging_subscriber_that_was_unsubscribed_ends_with_the_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("openagents_json.job._runtime._LAST_STEPS", 0.02)
    hanging = asyncio.Event()

    async def hang(event: JobEvent) -> None:
        hanging.set()
        await asyncio.Event().wait()

    async with JobManager() as manager:
        unsubscribe = manager.events.subscribe(hang)
        await manager.create_job("work")
        await hanging.wait()
        unsubscribe()
    left = [task for task in asyncio.all_tasks() if "hang" in task.get_name()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert left == []


async def test_a_subscriber_that_is_too_slow_is_dropped_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("openagents_json.job.events.MAX_BEHIND", 3)
    monkeypatch.setattr("openagents_json.job._runtime._LAST_STEPS", 0.02)
    go_on = asyncio.Event()
    seen: list[str] = []

    async def slow(event: JobEvent) -> None:
        seen.append(event.job_id)
        await go_on.wait()

    async with JobManager() as manager:
        heard = Recorder()
        manager.events.subscribe(slow)
        manager.events.subscribe(heard)
        jobs = [await manager.create_job("work") for _ in range(6)]
        assert len(heard.events) == 6
        assert "slow" in caplog.text
        assert "dropped" in caplog.text
        go_on.set()
    assert seen == [job.job_id for job in jobs[: len(seen)]]
    assert len(seen) < 6


async def test_a_subscriber_may_end_another_one_that_is_too_slow(
    manager: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openagents_json.job.events.MAX_BEHIND", 1)
    slow = AsyncRecorder()
    unsubscribes: list[Callable[[], None]] = []

    def end_the_slow_one(event: JobEvent) -> None:
        if event.job.name == "second":
            unsubscribes[0]()

    manager.events.subscribe(end_the_slow_one)
    unsubscribes.append(manager.events.subscribe(slow))
    heard = Recorder()
    manager.events.subscribe(heard)
    await manager.create_job_batch([{"name": name} for name in ("first", "second", "third")])
    assert len(heard.events) == 3


class Unshowable(AsyncRecorder):
    @override
    def __repr__(self) -> str:
        msg = "not to be shown"
        raise RuntimeError(msg)


async def test_a_subscriber_that_cannot_be_shown_harms_nobody() -> None:
    unshowable, heard = Unshowable(), Recorder()
    async with JobManager(shutdown_timeout=0) as manager:
        manager.events.subscribe(unshowable)
        manager.events.subscribe(heard)
        job = await manager.create_job("work")
        assert heard.of(job.job_id) == ["created"]
    assert unshowable.of(job.job_id) == ["created"]


async def test_unsubscribing_ends_it_and_may_be_repeated(manager: JobManager) -> None:
    once, twice = Recorder(), Recorder()
    unsubscribe = manager.events.subscribe(once)
    manager.events.subscribe(twice)
    await manager.create_job("work")
    unsubscribe()
    unsubscribe()
    await manager.create_job("work")
    assert (len(once.events), len(twice.events)) == (1, 2)


async def test_a_subscriber_may_unsubscribe_itself_and_subscribe_others(manager: JobManager) -> None:
    late = Recorder()
    unsubscribes: list[Callable[[], None]] = []

    def first(event: JobEvent) -> None:
        unsubscribes[0]()
        manager.events.subscribe(late)

    unsubscribes.append(manager.events.subscribe(first))
    for _ in range(3):
        await manager.create_job("work")
    assert len(late.events) == 2


async def test_the_same_function_may_subscribe_twice_and_end_either(manager: JobManager) -> None:
    heard = Recorder()
    first, second = manager.events.subscribe(heard), manager.events.subscribe(heard)
    await manager.create_job("work")
    assert len(heard.events) == 2
    first()
    await manager.create_job("work")
    assert len(heard.events) == 3
    second()
    await manager.create_job("work")
    assert len(heard.events) == 3


async def test_subscribing_is_possible_before_the_start_and_lasts_beyond_a_restart() -> None:
    manager = JobManager()
    heard = Recorder()
    manager.events.subscribe(heard)
    async with manager:
        await manager.create_job("work")
    async with manager:
        await manager.create_job("work")
    assert len(heard.events) == 2


async def test_a_subscriber_may_create_jobs(manager: JobManager) -> None:
    done = asyncio.Event()

    async def next_one(event: JobEvent) -> None:
        if event.job.payload == 0:
            done.set()
        else:
            await manager.create_job("work", payload=event.job.payload - 1, auto_start=True)

    manager.events.subscribe(next_one, ["completed"])
    await manager.create_job("work", payload=3, auto_start=True)
    await done.wait()
    assert await manager.count_jobs(status="completed") == 4


# streams


async def test_a_stream_hears_all_jobs_from_the_moment_it_is_made(manager: JobManager) -> None:
    before = await manager.create_job("work")
    stream = manager.events.stream()
    job = await manager.create_job("work", auto_start=True)
    seen = []
    async for event in stream:
        seen.append(event.type.value)
        assert event.job_id != before.job_id
        if event.type is EventType.COMPLETED:
            break
    assert seen == ["created", "started", "completed"]
    assert (await manager.get_job(job.job_id)).status == "completed"


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "deleted"])
async def test_a_stream_of_one_job_ends_after_its_end(manager: JobManager, end: str) -> None:
    @manager.handler("fail")
    async def fail() -> None:
        raise ValueError

    name = "fail" if end == "failed" else "work"
    job = await manager.create_job(name)
    other = await manager.create_job("work", auto_start=True)
    stream = manager.events.stream(job.job_id)
    if end == "cancelled":
        await manager.cancel_job(job.job_id)
    elif end == "deleted":
        await manager.delete_job(job.job_id)
    else:
        await manager.start_job(job.job_id)
    events = [event async for event in stream]
    assert events[-1].type == end
    assert other.job_id not in {event.job_id for event in events}
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_of_one_job_goes_on_over_its_retries(manager: JobManager) -> None:
    @manager.handler("flaky")
    async def flaky(context: JobContext) -> None:
        if context.attempt < 3:
            raise ValueError

    job = await manager.create_job("flaky", max_retries=2, retry_delay=0)
    stream = manager.events.stream(job.job_id)
    await manager.start_job(job.job_id)
    assert [event.type.value async for event in stream] == [
        "queued", "started", "retrying", "started", "retrying", "started", "completed",
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
async def test_a_stream_of_a_job_that_is_over_tells_its_end_once(manager: JobManager, end: str) -> None:
    @manager.handler("fail")
    async def fail() -> None:
        raise ValueError

    if end == "cancelled":
        job = await manager.create_job("work")
        job = await manager.cancel_job(job.job_id)
    else:
        job = await run_to_the_end(manager, "fail" if end == "failed" else "work")
    events = [event async for event in manager.events.stream(job.job_id)]
    assert [event.type.value for event in events] == [end]
    assert events[0].job == await manager.get_job(job.job_id)
    assert events[0].at == events[0].job.completed_at


async def test_a_stream_of_one_job_ends_at_its_end_although_more_was_told_meanwhile(manager: JobManager) -> None:
    job = await manager.create_job("work")
    stream = manager.events.stream(job.job_id)
    await manager.cancel_job(job.job_id)
    await manager.retry_job(job.job_id)
    await manager.wait_for_job(job.job_id)
    await manager.delete_job(job.job_id)
    assert [event.type.value async for event in stream] == ["cancelled"]


async def test_a_stream_of_a_job_that_nobody_has_says_so(manager: JobManager) -> None:
    with pytest.raises(JobNotFoundError, match="'nobody'"):
        await anext(manager.events.stream("nobody"))


async def test_a_stream_hears_what_happens_before_its_reader_is_ready(manager: JobManager) -> None:
    job = await manager.create_job("work", auto_start=False)
    stream = manager.events.stream(job.job_id)
    await manager.start_job(job.job_id)
    await manager.wait_for_job(job.job_id)
    assert [event.type.value async for event in stream] == ["queued", "started", "completed"]


async def test_several_streams_hear_the_same(manager: JobManager) -> None:
    job = await manager.create_job("work")
    streams = [manager.events.stream(job.job_id) for _ in range(3)]

    async def follow(stream: Any) -> list[str]:
        return [event.type.value async for event in stream]

    following = [asyncio.create_task(follow(stream)) for stream in streams]
    await manager.start_job(job.job_id)
    assert await asyncio.gather(*following) == [["queued", "started", "completed"]] * 3


async def test_an_abandoned_stream_is_forgotten(manager: JobManager) -> None:
    async for _ in manager.events.stream((await run_to_the_end(manager, "work")).job_id):
        break
    job = await manager.create_job("work")
    stream = manager.events.stream()
    await manager.cancel_job(job.job_id)
    async for _ in stream:
        break
    del stream
    gc.collect()
    assert len(manager.events._streams) == 0


async def test_a_closed_stream_ends_also_for_who_waits_for_it(manager: JobManager) -> None:
    stream = manager.events.stream()
    waiting = asyncio.create_task(anext(stream, None))
    await asyncio.sleep(0)
    await stream.aclose()
    assert await waiting is None
    await stream.aclose()


async def test_a_reader_that_is_cancelled_loses_no_event(manager: JobManager) -> None:
    stream = manager.events.stream()
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    await manager.create_job("work")
    assert (await anext(stream)).type is EventType.CREATED


async def test_a_stream_that_is_too_slow_is_dropped_and_told(
    manager: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openagents_json.job.events.MAX_BEHIND", 3)
    slow, quick = manager.events.stream(), manager.events.stream()
    for _ in range(5):
        await manager.create_job("work")
        assert (await anext(quick)).type is EventType.CREATED
    for _ in range(2):
        with pytest.raises(EventsLostError, match=r"3 events behind.*take events faster") as lost:
            await anext(slow)
        assert lost.value.buffered == 3


async def test_stopping_ends_streams_after_what_they_have_not_read_yet() -> None:
    async with JobManager() as manager:
        unread, waiting = manager.events.stream(), manager.events.stream()
        of_one = manager.events.stream((await manager.create_job("work")).job_id)
        assert (await anext(waiting)).type is EventType.CREATED
        reading = asyncio.create_task(anext(waiting, None))
        await asyncio.sleep(0)
    assert await reading is None
    assert [event.type.value async for event in unread] == ["created"]
    with pytest.raises(StopAsyncIteration):
        await anext(of_one)


async def test_events_and_streams_show_themselves_briefly(manager: JobManager, heard: Recorder) -> None:
    stream = manager.events.stream()
    job = await manager.create_job("work", payload="x" * 10_000)
    assert "1 event" in repr(stream)
    text = repr(heard.events[0])
    assert "created" in text
    assert job.job_id in text
    assert len(text) < 300
