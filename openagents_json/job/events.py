"""What happens to jobs, told to whoever listens in this process: `JobEvent`, `EventBus`.

Events are published after what they tell is stored. They are for watching, not for work that must happen: a process
that dies tells nothing. Nobody who listens can hold up or harm the manager, or another listener; one who falls too far
behind is dropped, and told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import weakref
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from openagents_json.errors import EventsLostError, JobNotFoundError
from openagents_json.job._checks import check_id
from openagents_json.job._shown import shown
from openagents_json.job.model import Job, JobStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from datetime import datetime

    from openagents_json.job._record import JobRecord

#: How many events a listener may be behind before it is dropped.
MAX_BEHIND = 10_000

logger: logging.Logger = logging.getLogger(__name__)


class EventType(StrEnum):
    """What happened to a job."""

    CREATED = "created"
    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    PAUSED = "paused"
    RESUMED = "resumed"
    RETRYING = "retrying"
    RELEASED = "released"
    RECOVERED = "recovered"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"


_LAST_EVENTS = {
    JobStatus.COMPLETED: EventType.COMPLETED,
    JobStatus.FAILED: EventType.FAILED,
    JobStatus.CANCELLED: EventType.CANCELLED,
}


def event_of(job: JobRecord, otherwise: EventType) -> EventType:
    """Name the event that brought a job to where it is: its end, if it is over."""
    return _LAST_EVENTS.get(job.status, otherwise)


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        type: what.
        job_id: to which job.
        at: when, by the store's clock.
    """

    type: EventType
    job_id: str
    at: datetime
    _record: JobRecord = field(repr=False)

    @cached_property
    def job(self) -> Job:
        """The job as it was after that."""
        return self._record.to_job(self.at)


class EventStream:
    """Events as they happen: ``async for event in manager.events.stream()``.

    It hears everything from the moment it was made. One for a single job ends after the job's end.
    """

    def __init__(self, bus: EventBus, job_id: str | None) -> None:
        self._bus = bus
        self._job_id = job_id
        self._buffer: deque[JobEvent] = deque()
        self._arrived = asyncio.Event()
        self._lost: EventsLostError | None = None
        self._ended = False
        self._looked = job_id is None

    @override
    def __repr__(self) -> str:
        return f"<EventStream of {self._job_id or 'all jobs'}, {len(self._buffer)} events waiting>"

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> JobEvent:
        """Wait for the next event.

        Raises:
            EventsLostError: the stream was too far behind and has been dropped.
            JobNotFoundError: the stream's one job does not exist.
        """
        if not self._looked and not self._ended:
            self._looked = True
            await self._look()
        while not self._buffer:
            if self._lost is not None:
                raise self._lost
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        event = self._buffer.popleft()
        if self._job_id is not None and event.type in {*_LAST_EVENTS.values(), EventType.DELETED}:
            await self.aclose()
            self._buffer.clear()
        return event

    async def aclose(self) -> None:
        """Stop listening."""
        self._ended = True
        self._bus.forget(self)
        self._arrived.set()

    def offer(self, event: JobEvent) -> None:
        """Take an event in."""
        if self._job_id is not None and event.job_id != self._job_id:
            return
        if len(self._buffer) >= MAX_BEHIND:
            self._lost = EventsLostError(len(self._buffer))
            self._buffer.clear()
            self._bus.forget(self)
            logger.warning("an event stream was dropped: %s", self._lost)
        else:
            self._buffer.append(event)
        self._arrived.set()

    async def _look(self) -> None:
        """See whether the one job is over already: then its end is all there is to tell."""
        job_id = self._job_id or ""
        record = await self._bus.read(job_id)
        if record is None and not self._buffer:
            raise JobNotFoundError(job_id)
        if record is not None and record.status.finished and not self._buffer:
            last = _LAST_EVENTS[record.status]
            self._buffer.append(JobEvent(last, job_id, record.completed_at or record.updated_at, record))


class EventBus:
    """The events of one manager: `subscribe` a function, or iterate over a `stream`."""

    def __init__(self, read: Callable[[str], Awaitable[JobRecord | None]]) -> None:
        self.read = read
        self._subscribers: list[_Subscriber] = []
        self._tasks: set[asyncio.Task[None]] = set()
        # whoever leaves its loop with `break` never closes a stream: those are forgotten with their last reference
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()

    def subscribe(
        self, callback: Callable[[JobEvent], Any], types: EventType | str | Iterable[EventType | str] | None = None
    ) -> Callable[[], None]:
        """Call a function for every event, or every one of some types.

        A plain function is called in the event loop and must be quick; a coroutine function is awaited, one event
        after the other, in a task of its own. What it raises is logged and harms nobody.

        Args:
            callback: takes the event.
            types: the type, or types, it wants, as members or strings; None: all.

        Returns:
            A function that ends the subscription.

        Raises:
            ValueError: there is no such type of event.
            TypeError: `callback` cannot be called.
        """
        given: object = callback
        if not callable(given):
            msg = f"a subscriber must be a function to be called with each event, not {shown(callback)}"
            raise TypeError(msg)
        subscriber = _Subscriber(callback, None if types is None else _event_types(types), self._tasks)
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def stream(self, job_id: str | None = None) -> EventStream:
        """Listen to all jobs, or to one until it is over; to be called inside the event loop.

        Raises:
            InvalidJobError: `job_id` cannot be the id of a job.
        """
        if job_id is not None:
            check_id(job_id)
        stream = EventStream(self, job_id)
        self._streams.add(stream)
        return stream

    @property
    def has_listeners(self) -> bool:
        """Whether anybody listens."""
        return bool(self._subscribers or self._streams)

    def publish(self, type_: EventType, record: JobRecord, at: datetime) -> None:
        """Tell everybody; returns at once."""
        streams = tuple(self._streams) if self._streams else ()
        subscribers = [subscriber for subscriber in self._subscribers if subscriber.wants(type_)]
        if not streams and not subscribers:
            return
        event = JobEvent(type_, record.job_id, at, record)
        for stream in streams:
            stream.offer(event)
        for subscriber in subscribers:
            if not subscriber.offer(event) and subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

    def forget(self, stream: EventStream) -> None:
        """Tell a stream nothing more."""
        self._streams.discard(stream)

    async def close(self, timeout: float) -> None:
        """Give coroutine functions that subscribed `timeout` seconds to take what was published, and end streams."""
        for stream in tuple(self._streams):
            await stream.aclose()
        if self._tasks:
            _, late = await asyncio.wait(tuple(self._tasks), timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=1.0)


def _event_types(types: EventType | str | Iterable[EventType | str]) -> frozenset[EventType]:
    given = [types] if isinstance(types, str) else types
    try:
        return frozenset(EventType(type_) for type_ in given)
    except ValueError as exc:
        msg = f"{exc}; there are {', '.join(type_.value for type_ in EventType)}"
        raise ValueError(msg) from None


class _Subscriber:
    def __init__(
        self,
        callback: Callable[[JobEvent], Any],
        types: frozenset[EventType] | None,
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._tasks = tasks
        self._callback = callback
        self._types = types
        self._buffer: deque[JobEvent] = deque()
        self._task: asyncio.Task[None] | None = None
        self._is_async = inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
            getattr(callback, "__call__", None)  # noqa: B004 - not a test for callability
        )

    def wants(self, type_: EventType) -> bool:
        """Tell whether it asked for events of this type."""
        return self._types is None or type_ in self._types

    def offer(self, event: JobEvent) -> bool:
        """Take an event in; False when the subscriber is too far behind to be kept."""
        if not self._is_async:
            with self._contained(event):
                self._callback(event)
            return True
        if len(self._buffer) >= MAX_BEHIND:
            logger.error("subscriber %s was dropped: %s", shown(self._callback), EventsLostError(len(self._buffer)))
            return False
        self._buffer.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(
                self._drain(), name=f"events for {shown(self._callback)}"
            )
            self._tasks.add(self._task)
            self._task.add_done_callback(self._tasks.discard)
        return True

    async def _drain(self) -> None:
        while self._buffer:
            event = self._buffer.popleft()
            with self._contained(event):
                await self._callback(event)

    @contextlib.contextmanager
    def _contained(self, event: JobEvent) -> Iterator[None]:
        """Let what a subscriber raises reach neither the manager nor other subscribers: it is the user's code."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_async and task is not None and task.cancelling():
                raise
            logger.exception("subscriber %s was cancelled at event %r", shown(self._callback), event.type.value)
        except (Exception, SystemExit):
            logger.exception("subscriber %s failed at event %r", shown(self._callback), event.type.value)
