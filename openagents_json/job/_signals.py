"""SIGTERM and SIGINT as something to await; whoever handled them before handles them again afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The signals that arrive."""

    def __init__(self) -> None:
        self._arrived = asyncio.Event()

    def arrived(self) -> None:
        """Note one."""
        self._arrived.set()

    async def wait(self) -> None:
        """Wait for the next one."""
        await self._arrived.wait()
        self._arrived.clear()

    async def wait_or(self, other: asyncio.Future[None]) -> None:
        """Wait for the next one, or for something else to be done."""
        waiting = asyncio.ensure_future(self.wait())
        try:
            await asyncio.wait({waiting, other}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()


@contextlib.asynccontextmanager
async def caught() -> AsyncIterator[Signals]:
    """Catch the signals while the block runs; only in the main thread, as Python demands."""
    signals = Signals()
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(signals.arrived)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
