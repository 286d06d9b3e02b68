"""`ManualClock`: time that stands still until a test moves it. No threads, no real waiting."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from typing_extensions import override

from openagents_json.job._clock import Clock, Timer

if TYPE_CHECKING:
    from collections.abc import Callable

#: Where a clock starts unless told otherwise; the microseconds show whether a store keeps them.
START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)

#: How many make a second.
MICROSECONDS = 1_000_000


class ManualClock(Clock):
    """A clock that goes forward only when told to, and runs the timers that become due on the way.

    It counts in whole microseconds, so that many small steps add up exactly. A timer of zero seconds (or fewer) is
    due at once: the event loop runs it, as any clock's, without `advance`.

    Args:
        start: the wall-clock time it begins with, aware.
    """

    def __init__(self, start: datetime = START) -> None:
        self._elapsed = 0
        self._wall_at_zero = _utc(start)
        self._timers: list[tuple[int, int, _Timer]] = []
        self._numbers = count()
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @override
    def __repr__(self) -> str:
        return f"ManualClock({self.now().isoformat()}, {self.pending} timers)"

    @override
    def now(self) -> datetime:
        return self._wall_at_zero + timedelta(microseconds=self._elapsed)

    @override
    def monotonic(self) -> float:
        return self._elapsed / MICROSECONDS

    @override
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        if seconds <= 0:
            return asyncio.get_running_loop().call_soon(callback)
        timer = _Timer(callback)
        due = self._elapsed + max(1, round(seconds * MICROSECONDS))
        heapq.heappush(self._timers, (due, next(self._numbers), timer))
        self._tell_waiters()
        return timer

    @property
    def pending(self) -> int:
        """How many timers wait for their time."""
        return sum(not timer.cancelled for _, _, timer in self._timers)

    @property
    def next_timer_in(self) -> float | None:
        """Seconds until the next timer is due; None: nothing waits."""
        due = min((due for due, _, timer in self._timers if not timer.cancelled), default=None)
        return None if due is None else max(0, due - self._elapsed) / MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Let time pass, wall and monotonic, and run the timers that become due, in order.

        Each is called from here, at its own moment; those it sets are run too if they fall within `seconds`. Tasks
        it wakes run when the caller next awaits something, and see the time after all of `seconds`.

        Args:
            seconds: how many, >= 0.

        Raises:
            ValueError: `seconds` is negative; only `set_wall` goes back.
        """
        if seconds < 0:
            msg = f"monotonic time cannot go back by {-seconds} seconds; set_wall() moves the wall clock"
            raise ValueError(msg)
        until = self._elapsed + round(seconds * MICROSECONDS)
        while self._timers and self._timers[0][0] <= until:
            due, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                self._elapsed = max(self._elapsed, due)
                timer.callback()
        self._elapsed = until

    def set_wall(self, moment: datetime) -> None:
        """Make the wall clock jump, forward or back, to an aware time; timers do not notice.

        Raises:
            ValueError: `moment` is naive.
        """
        self._wall_at_zero = _utc(moment) - timedelta(microseconds=self._elapsed)

    async def wait_for_timers(self, number: int = 1) -> None:
        """Return as soon as at least that many timers are pending: whoever is to wait for the time does so."""
        if self.pending < number:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append((number, reached))
            await reached

    def _tell_waiters(self) -> None:
        pending = self.pending if self._waiters else 0
        for waiter in tuple(self._waiters):
            number, reached = waiter
            if reached.done() or pending >= number:
                self._waiters.remove(waiter)
            if not reached.done() and pending >= number:
                reached.set_result(None)


class _Timer:
    """A callback that waits in a `ManualClock`."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        self.callback = _nothing  # it stays in the heap till its time, and must not keep an old event loop alive


def _nothing() -> None:
    pass


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        msg = f"{moment!r} is naive; give it a time zone, such as datetime.UTC"
        raise ValueError(msg)
    return moment.astimezone(UTC)
