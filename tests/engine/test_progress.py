"""Progress: cheap to report, merged on its way, the latest stored; from anywhere, and never lost at the end."""

import asyncio
import threading

import pytest

from openagents_json.job import EventType, JobContext, JobEvent, JobManager, JobStatus
from openagents_json.job._changes import Progress, Recover
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import HeldThread
from tests.engine._stores import ScriptedStore
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers


class Reporter:
    """A handler that reports what the test tells it to.

    Attributes:
        contexts: those of its attempts, in order.
    """

    def __init__(self) -> None:
        self.contexts: list[JobContext] = []
        self.fails = False
        self._go = asyncio.Event()

    async def __call__(self, payload: object, context: JobContext) -> None:
        self.contexts.append(context)
        await self._go.wait()
        self._go.clear()
        if self.fails:
            raise ValueError

    def report(self, fraction: float, message: str = "") -> None:
        """Report from the test, as the handler would."""
        self.contexts[-1].set_progress(fraction, message)

    def told_to_end(self, attempt: int) -> bool:
        """Say what an attempt's context says about being cancelled."""
        return self.contexts[attempt - 1].cancelled

    def end(self, *, fails: bool = False) -> None:
        """Let the attempt end."""
        self.fails = fails
        self._go.set()


@pytest.fixture
def scripted(store: MemoryJobStore) -> ScriptedStore:
    return ScriptedStore(store)


@pytest.fixture
async def reporter(managers: Managers, scripted: ScriptedStore) -> Reporter:
    return Reporter()


@pytest.fixture
async def running(managers: Managers, scripted: ScriptedStore, reporter: Reporter) -> JobManager:
    """Give a manager whose job ``j`` runs and may be retried once."""
    manager = managers(scripted)
    manager.register_handler("work", reporter)
    await manager.create_job("work", job_id="j", auto_start=True, max_retries=1, retry_delay=30)
    await settled()
    scripted.applied.clear()
    return manager


def stored(scripted: ScriptedStore) -> list[float]:
    """List the fractions that were sent to be stored, in order."""
    return [change.fraction for changes, _ in scripted.applied for change in changes if isinstance(change, Progress)]


async def test_report_is_stored_at_once(running: JobManager, reporter: Reporter) -> None:
    reporter.report(0.25, "a quarter")
    await settled()

    job = await running.get_job("j")
    assert (job.progress, job.progress_message) == (0.25, "a quarter")


async def test_burst_is_merged_and_the_latest_wins(
    running: JobManager, reporter: Reporter, scripted: ScriptedStore, clock: ManualClock
) -> None:
    for number in range(10_000):
        reporter.report(number / 10_000, f"step {number}")
    await pass_time(clock, 1)

    job = await running.get_job("j")
    assert (job.progress, job.progress_message) == (0.9999, "step 9999")
    assert stored(scripted) == [0.0, 0.9999]


async def test_steady_reports_are_stored_ten_times_a_second_at_most(
    running: JobManager, reporter: Reporter, scripted: ScriptedStore, clock: ManualClock
) -> None:
    for number in range(200):
        reporter.report(number / 200)
        await pass_time(clock, 0.01)

    fractions = stored(scripted)
    assert 15 <= len(fractions) <= 21
    assert fractions == sorted(fractions)


async def test_quiet_handler_has_no_timer(running: JobManager, reporter: Reporter, clock: ManualClock) -> None:
    before = clock.pending
    reporter.report(0.5)
    await pass_time(clock, 1)

    assert clock.pending == before


@pytest.mark.parametrize("ending", ["completes", "fails", "is retried", "times out"])
async def test_last_report_is_stored_with_the_outcome(
    managers: Managers, scripted: ScriptedStore, reporter: Reporter, clock: ManualClock, ending: str
) -> None:
    manager = managers(scripted)
    manager.register_handler("work", reporter)
    await manager.create_job(
        "work", job_id="j", auto_start=True, timeout=60, max_retries=int(ending == "is retried"), retry_delay=30
    )
    await settled()
    reporter.report(0.1, "first")
    reporter.report(0.8, "last")

    if ending == "times out":
        await pass_time(clock, 61)
    else:
        reporter.end(fails=ending != "completes")
        await settled()

    job = await manager.get_job("j")
    assert (job.progress, job.progress_message) == (1.0 if ending == "completes" else 0.8, "last")
    assert (
        job.status
        is {
            "completes": JobStatus.COMPLETED,
            "fails": JobStatus.FAILED,
            "is retried": JobStatus.PENDING,
            "times out": JobStatus.FAILED,
        }[ending]
    )


async def test_next_attempt_begins_at_nothing(running: JobManager, reporter: Reporter, clock: ManualClock) -> None:
    reporter.report(0.8, "almost")
    reporter.end(fails=True)
    await pass_time(clock, 30)

    job = await running.get_job("j")
    assert (job.status, job.attempt, job.progress, job.progress_message) == (JobStatus.RUNNING, 2, 0.0, "")


async def test_reports_of_threads_arrive(manager: JobManager, thread: HeldThread) -> None:
    reported = threading.Event()
    told: list[JobEvent] = []
    arrived = asyncio.Event()

    def note(event: JobEvent) -> None:
        told.append(event)
        arrived.set()

    manager.events.subscribe(note, types=[EventType.PROGRESS])

    @manager.handler
    def work(payload: object, context: JobContext) -> None:
        context.set_progress(0.5, f"from {threading.current_thread().name[:18]}")
        reported.set()
        thread(payload, context)

    await manager.create_job("work", job_id="j", auto_start=True)
    await soon(arrived.wait())

    job = await manager.get_job("j")
    assert (job.progress, job.progress_message) == (0.5, "from openagents-handler")
    assert told[0].job.progress == 0.5
    thread.let_go()
    await soon(manager.wait_for_job("j"))


async def test_many_threads_report_for_one_job_and_the_latest_is_stored(manager: JobManager) -> None:
    @manager.handler
    def work(context: JobContext) -> None:
        def report(base: int) -> None:
            for number in range(200):
                context.set_progress((base + number) / 1000)

        others = [threading.Thread(target=report, args=(200 * number,)) for number in range(4)]
        for one in others:
            one.start()
        for one in others:
            one.join()
        context.set_progress(0.999, "all done")

    await manager.create_job("work", job_id="j", auto_start=True)

    done = await soon(manager.wait_for_job("j"))
    assert done.progress_message == "all done"


@pytest.mark.parametrize("fraction", [-0.01, 1.01, float("nan"), float("inf"), True, "0.5", None], ids=repr)
async def test_fraction_must_be_one(running: JobManager, reporter: Reporter, fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction must be a number from 0 to 1, not"):
        reporter.report(fraction)


async def test_message_of_any_kind_can_be_stored(running: JobManager, reporter: Reporter) -> None:
    reporter.report(1, "nul \0, surrogate \ud800, " + "long " * 1000)
    await settled()

    message = (await running.get_job("j")).progress_message
    assert message.startswith("nul \\x00, surrogate \\ud800, long ")
    assert len(message) <= 1000


async def test_reports_after_cancellation_change_nothing(
    running: JobManager, reporter: Reporter, scripted: ScriptedStore, clock: ManualClock
) -> None:
    cancelled = await running.cancel_job("j")
    reporter.report(0.9)
    await pass_time(clock, 1)

    assert await running.get_job("j") == cancelled
    assert stored(scripted) == []


async def test_report_that_is_refused_tells_the_attempt_that_it_lost_its_job(
    managers: Managers, store: MemoryJobStore, reporter: Reporter, clock: ManualClock
) -> None:
    manager = managers(ScriptedStore(store, deaf=True))
    manager.register_handler("work", reporter)
    await manager.create_job("work", job_id="j", auto_start=True)
    await settled()
    await store.apply([Recover((await manager.get_job("j")).worker_id or "", "said the test")])
    await settled()
    assert reporter.told_to_end(1) is False

    reporter.report(0.5)
    await settled()

    assert reporter.told_to_end(1) is True
    assert (await manager.get_job("j")).progress == 0


async def test_reports_are_told_in_order_and_before_the_end(
    running: JobManager, reporter: Reporter, clock: ManualClock
) -> None:
    told: list[tuple[str, float]] = []
    running.events.subscribe(lambda event: told.append((event.type.value, event.job.progress)))
    for fraction in (0.2, 0.4, 0.6):
        reporter.report(fraction)
        await pass_time(clock, 0.2)
    reporter.end()
    await in_time(clock, running.wait_for_job("j"))

    assert told == [("progress", 0.2), ("progress", 0.4), ("progress", 0.6), ("completed", 1.0)]


async def test_progress_that_cannot_be_stored_harms_nobody(
    running: JobManager, reporter: Reporter, scripted: ScriptedStore, clock: ManualClock
) -> None:
    scripted.take_down("apply", error=lambda: ConnectionError("away"))
    reporter.report(0.3)
    await settled()
    scripted.bring_up()
    reporter.report(0.6)
    await pass_time(clock, 1)
    assert (await running.get_job("j")).progress == 0.6

    reporter.end()
    assert (await soon(running.wait_for_job("j"))).status is JobStatus.COMPLETED
