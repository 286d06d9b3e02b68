"""Time: the wall clock for what is stored, a monotonic one for what is waited for, and timers.

Everything in the package that asks for the time or waits for a while does it through a `Clock`, so that tests can
move time (`openagents_json.testing.ManualClock`).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget the callback; harmless when it has run already."""


class Clock(ABC):
    """The time, and timers in it."""

    @abstractmethod
    def now(self) -> datetime:
        """Tell the wall-clock time, aware, in UTC."""

    @abstractmethod
    def monotonic(self) -> float:
        """Tell the seconds since some fixed moment; never goes back."""

    @abstractmethod
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, in the running event loop, when `seconds` have passed."""

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Return when the event is set, or when `seconds` have passed; tell whether it is set."""
        waiting = asyncio.get_running_loop().create_task(event.wait(), name="wait for an event or a while")
        timer = self.call_later(seconds, waiting.cancel)
        try:
            await asyncio.wait({waiting})
        finally:
            timer.cancel()
            waiting.cancel()
        return event.is_set()


class SystemClock(Clock):
    """The machine's own time and the running event loop's timers."""

    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)
