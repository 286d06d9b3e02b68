"""`Gate`: suspends a coroutine that knows nothing about being suspended.

The coroutine is driven step by step on behalf of the task that awaits it. While the gate is closed it is not resumed
at its next ``await``: what it waits for completes, and it stays where it is. Everything else goes on as usual; tasks
it spawned, timers and threads do not pass through the gate.

A cancellation that arrives while the gate is closed (the coroutine's own ``asyncio.timeout``, an anyio scope) gets
its one step, so that it can take effect; then the gate holds again. Holding cancellations back instead would make
whoever redelivers them spin.
"""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")


class Gate:
    """Open at first."""

    def __init__(self) -> None:
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def set_open(self, open_: bool) -> None:  # noqa: FBT001 - the only argument, and what it sets is in the name
        """Open or close the gate; opening it lets a held coroutine go on."""
        self._closed = not open_
        if open_ and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def drive(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Call the function and run its coroutine to the end, holding it while the gate is closed."""
        return await self._drive(function())

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        cancellation: BaseException | None = None
        while True:
            try:
                while self._closed and cancellation is None:
                    self._waiter = asyncio.get_running_loop().create_future()
                    yield from self._waiter
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - whatever is thrown at the task belongs to the coroutine
                cancellation = exc
            try:
                if cancellation is None:
                    awaited = coroutine.send(None)
                else:
                    thrown, cancellation = cancellation, None
                    awaited = coroutine.throw(thrown)
            except StopIteration as stop:
                result: T = stop.value
                return result
            try:
                yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as exc:  # noqa: BLE001 - as above
                cancellation = exc
