"""`Execution`: one attempt of one job, from its claim to its `Outcome`.

The attempt is a task of its own; whoever awaits `Execution.run` owns it. The owner keeps the deadline, follows what
the store says about the job (paused, resumed, cancelled, lost), records why an attempt shall end before it cancels
it, gives it time to clean up, and has an outcome even if the attempt takes no notice. Only the attempt is ever
cancelled, never its owner. What the outcome means for the job, and how it is stored, is not decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import threading
import traceback
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from openagents_json.errors import InvalidJobError, NonRetryableError
from openagents_json.job import _codec
from openagents_json.job._gate import Gate
from openagents_json.job._slots import Ticket
from openagents_json.job.context import JobContext, current_context
from openagents_json.job.model import Job, JobError, JobStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from openagents_json.job._clock import Clock, Timer
    from openagents_json.job._record import JobRecord
    from openagents_json.job._slots import Slots
    from openagents_json.job._threads import Ended, ThreadPool
    from openagents_json.job.context import Jobs
    from openagents_json.job.handlers import Handler

_LONGEST_MESSAGE = 10_000
_LONGEST_TRACEBACK = 20_000

#: Progress is stored at most this often for one job (seconds).
_PROGRESS_INTERVAL = 0.1

logger = logging.getLogger(__name__)


class StopReason(StrEnum):
    """Why an attempt was asked to end."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The handler returned; `result` is that, as JSON."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """The handler raised; `exception` is that, or what was wrong with its result."""

    error: JobError
    exception: BaseException


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt took longer than the job's timeout."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Released:
    """The attempt was interrupted because the manager stops."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The job is not this worker's any more: cancelled, or taken away. There is nothing to store."""


Outcome = Succeeded | Failed | TimedOut | Released | Gone


@dataclass(frozen=True, slots=True)
class Environment:
    """What all executions of one manager share."""

    clock: Clock
    slots: Slots
    threads: ThreadPool
    jobs: Jobs
    cancel_grace: float
    max_result_bytes: int


class Execution:
    """One attempt.

    Attributes:
        record: the job as last heard of from the store.
        lease: the claim under which the job is held.
        done: whether the attempt has ended; it may go on after `run` has returned.
        progress: the last reported; None: none.
        holds_slot: whether it fills a slot now.
    """

    def __init__(
        self,
        record: JobRecord,
        handler: Handler,
        environment: Environment,
        report_progress: Callable[[Execution, float, str], None],
    ) -> None:
        self.record = record
        self.lease = record.lease or ""
        self.handler = handler
        self.progress: tuple[float, str] | None = None
        self.holds_slot = True
        self._environment = environment
        self._report_progress = report_progress
        self._gate = Gate()
        self._deadline = _Deadline(record.spec.timeout, environment.clock, self._timed_out)
        self._reason: StopReason | None = None
        self._attempt: asyncio.Task[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._told = False
        self._in_thread = False
        self._paused = record.status is JobStatus.PAUSED
        self._lending = 0
        self._ticket: Ticket | None = None
        self._slot_news: asyncio.Event | None = None
        self._progress_timer: Timer | None = None
        self._progress_sent: tuple[float, str] | None = None
        self._thread_id = threading.get_ident()

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job_id

    @property
    def done(self) -> bool:
        """Whether the attempt has ended (or never began)."""
        return self._attempt is None or self._attempt.done()

    @property
    def under_way(self) -> bool:
        """Whether the attempt has yet to end, and was not asked to."""
        return self._reason is None and (self._attempt is None or not self._attempt.done())

    @property
    def held(self) -> bool:
        """Whether the attempt is paused, and so will not end by itself."""
        return self._paused and not self._in_thread

    @property
    def stopping(self) -> bool:
        """Whether the attempt was asked to end."""
        return self._reason is not None

    @property
    def cancelled(self) -> bool:
        """What the handler is told when it asks whether it shall end."""
        self._told = self._told or self.stopping
        return self.stopping

    def job(self) -> Job:
        """Build the job as last heard of."""
        return self.record.to_job(self._environment.clock.now())

    def stop(self, reason: StopReason) -> None:
        """Ask the attempt to end; the first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._end()

    def follow(self, record: JobRecord) -> None:
        """Conform to what the store says about the job; what is older than what is known is ignored."""
        if record.spec.request_id == self.record.spec.request_id and record.version <= self.record.version:
            return
        if record.lease != self.lease:
            self.stop(StopReason.CANCELLED if record.status is JobStatus.CANCELLED else StopReason.LOST)
            return
        self.record = record
        self._paused = record.status is JobStatus.PAUSED
        self._settle()

    async def run(self, dependency_results: Mapping[str, Any]) -> Outcome:
        """Run the attempt; return when it has ended, or was asked to and had its time."""
        if self._reason is not None:
            return Released() if self._reason is StopReason.SHUTDOWN else Gone()
        work: Callable[[], Coroutine[Any, Any, Any]] = functools.partial(self._call, dependency_results)
        name = f"job {self.job_id} attempt {self.record.attempt}"
        self._attempt = self._loop.create_task(self._gate.drive(work), name=name)
        self._attempt.add_done_callback(self._end)
        self._settle()
        await self._over
        self._deadline.run(False)
        if not self._attempt.done():
            await self._end_attempt(self._attempt)
        if self._progress_timer is not None:
            self._progress_timer.cancel()
        return self._outcome(self._attempt)

    async def wait_done(self) -> None:
        """Wait until the attempt itself has ended."""
        if self._attempt is not None:
            await asyncio.wait({self._attempt})

    def close(self) -> None:
        """Give back the slot, for good."""
        self._lending += 1
        self._settle()

    @contextlib.asynccontextmanager
    async def lent_slot(self) -> AsyncIterator[None]:
        """Lend the slot while the handler, or a task of its own, waits for another job."""
        self._lending += 1
        self._settle()
        self._tell_slot_news()
        try:
            yield
        finally:
            self._lending -= 1
            self._settle()
            while not self.holds_slot and self._lending == 0 and self._reason is None and not self.done:
                if self._slot_news is None:
                    self._slot_news = asyncio.Event()
                self._slot_news.clear()
                await self._slot_news.wait()

    def set_progress(self, fraction: float, message: str) -> None:
        """Note progress, from any thread; see `JobContext.set_progress`."""
        self.progress = (fraction, _codec.storable_text(message, longest=1000))
        if threading.get_ident() == self._thread_id:
            self._schedule_progress()
        else:
            self._loop.call_soon_threadsafe(self._schedule_progress)

    def _schedule_progress(self) -> None:
        if self._progress_timer is None and not self.done and self._reason is None:
            self._progress_timer = self._environment.clock.call_later(_PROGRESS_INTERVAL, self._progress_due)
            self._progress_sent = self.progress
            if self.progress is not None:
                self._report_progress(self, *self.progress)

    def _progress_due(self) -> None:
        self._progress_timer = None
        if self.progress != self._progress_sent:
            self._schedule_progress()

    def _settle(self) -> None:
        """Bring slot, gate and deadline in line with what the job is doing."""
        slots, priority = self._environment.slots, self.record.spec.priority
        wants = not self.held and self._lending == 0
        if self.holds_slot and not wants:
            self.holds_slot = False
            slots.give_back(priority)
        elif not wants and self._ticket is not None:
            slots.withdraw(self._ticket)
            self._ticket = None
        elif wants and not self.holds_slot and self._ticket is None:
            self._ticket = Ticket(priority, self._slot_granted)
            slots.ask(self._ticket)
        goes_on = not self.held and (self.holds_slot or self._lending > 0)
        self._gate.set_open(goes_on or self._reason is not None)
        self._deadline.run(goes_on and not self._paused and self._attempt is not None and not self._attempt.done())

    def _slot_granted(self) -> None:
        self._ticket = None
        self.holds_slot = True
        self._tell_slot_news()
        self._settle()

    def _tell_slot_news(self) -> None:
        """Let those who wait in `lent_slot` for the slot look again."""
        if self._slot_news is not None:
            self._slot_news.set()

    def _end(self, _attempt: object = None) -> None:
        """Wake the owner: the attempt has ended, or shall."""
        self._tell_slot_news()
        if not self._over.done():
            self._over.set_result(None)

    def _timed_out(self) -> None:
        if not self.done:
            self.stop(StopReason.TIMEOUT)

    async def _end_attempt(self, attempt: asyncio.Task[Any]) -> None:
        """Cancel the attempt and give it its grace; a thread is only told, since nothing can stop it."""
        self._tell_slot_news()
        self._settle()
        if self.handler.is_async:
            self._told = True
            attempt.cancel(f"job {self.job_id}: {self._reason}")
        grace_over = asyncio.Event()
        timer = self._environment.clock.call_later(self._environment.cancel_grace, grace_over.set)
        attempt.add_done_callback(lambda _: grace_over.set())
        await grace_over.wait()
        timer.cancel()
        if not attempt.done():
            logger.warning(
                "job %s (%s) takes no notice of being stopped (%s); it keeps its slot until it returns",
                self.job_id,
                self.record.spec.name,
                self._reason,
            )

    async def _call(self, dependency_results: Mapping[str, Any]) -> Any:
        context = JobContext(
            self,
            self._environment.jobs,
            job_id=self.job_id,
            attempt=self.record.attempt,
            dependency_results=dependency_results,
        )
        current_context.set(context)
        positional, named = self.handler.arguments(self.record.spec.payload, context)
        function = self.handler.function
        try:
            if self.handler.is_async:
                return await function(*positional, **named)
            # from here on nothing can be held: neither a thread nor, to any purpose, the coroutine that waits for it
            self._in_thread = True
            ended = self._environment.threads.run(lambda: function(*positional, **named))
            return _result_of_plain(await ended)
        except SystemExit as exc:
            # let through, it would end the event loop and every other job with it
            msg = f"the handler called sys.exit({exc.code!r})"
            raise RuntimeError(msg) from exc

    def _outcome(self, attempt: asyncio.Task[Any]) -> Outcome:
        match self._reason:
            case StopReason.CANCELLED | StopReason.LOST:
                return Gone()
            case StopReason.TIMEOUT:
                return TimedOut(JobError("Timeout", f"it ran longer than its timeout of {self.record.spec.timeout} s"))
            case StopReason.SHUTDOWN if not attempt.done() or self._told or _raised(attempt):
                # what a handler returns or raises once it was told to end may well be because of that: it runs again
                return Released()
        if attempt.cancelled():
            lost = asyncio.CancelledError("the handler was cancelled, and not by its manager")
            return Failed(JobError("CancelledError", str(lost)), lost)
        exception = attempt.exception()
        if exception is not None:
            return Failed(_describe(exception), exception)
        try:
            return Succeeded(_codec.encode(attempt.result(), "result", limit=self._environment.max_result_bytes))
        except InvalidJobError as exc:
            return Failed(JobError("InvalidResult", str(exc)), NonRetryableError(str(exc)))


class _Deadline:
    """Counts running time against a timeout."""

    def __init__(self, timeout: float | None, clock: Clock, passed: Callable[[], None]) -> None:
        self._left = timeout
        self._clock = clock
        self._passed = passed
        self._since: float | None = None
        self._timer: Timer | None = None

    def run(self, running: bool) -> None:  # noqa: FBT001 - the only argument
        """Count from now on, or stop counting."""
        if self._left is None or running == (self._since is not None):
            return
        if running:
            self._since = self._clock.monotonic()
            self._timer = self._clock.call_later(self._left, self._passed)
        elif self._since is not None and self._timer is not None:
            self._timer.cancel()
            self._left = max(0.0, self._left - (self._clock.monotonic() - self._since))
            self._since = None


def _raised(attempt: asyncio.Task[Any]) -> bool:
    return attempt.cancelled() or attempt.exception() is not None


def _result_of_plain(ended: Ended) -> Any:
    """Give what a plain function returned, unless that is a coroutine nobody has awaited."""
    result = ended.unwrap()
    if inspect.iscoroutine(result):
        result.close()
        msg = "the handler is a plain function and returned a coroutine; make it `async def`, or register that"
        raise TypeError(msg)
    return result


def _describe(exception: BaseException) -> JobError:
    """Turn a handler's exception into a `JobError`, without the engine's own frames."""
    trace = exception.__traceback__
    own = {__file__, _codec.__file__.replace("_codec", "_gate"), _codec.__file__.replace("_codec", "_threads")}
    while trace is not None and trace.tb_frame.f_code.co_filename in own:
        trace = trace.tb_next
    shown = "".join(traceback.format_exception(type(exception), exception, trace))
    return JobError(
        type(exception).__name__,
        _codec.storable_text(_message_of(exception), longest=_LONGEST_MESSAGE),
        _codec.storable_text(shown, longest=_LONGEST_TRACEBACK),
    )


def _message_of(exception: BaseException) -> str:
    try:
        return str(exception)
    except Exception:  # noqa: BLE001 - a handler's exception class is the user's code, and may be broken
        return "(its message cannot be shown)"
