"""`ThreadPool`: the threads in which plain functions run as handlers.

Threads cannot be stopped from outside, so these are daemons: a handler that never returns keeps neither the event
loop nor the program from ending. (The threads of `concurrent.futures` and of asyncio's default executor are joined
at exit.) A thread is started when none is idle, so the pool grows to as many as are ever busy at once; whoever uses
it bounds that.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_Work = tuple["Callable[[], Any]", "contextvars.Context", "asyncio.Future[Ended]"]


class Ended:
    """How a function ended: with a value, or with an exception of any kind."""

    __slots__ = ("exception", "value")

    def __init__(self, value: Any, exception: BaseException | None) -> None:
        self.value = value
        self.exception = exception

    def unwrap(self) -> Any:
        """Return the value, or raise the exception."""
        if self.exception is not None:
            raise self.exception
        return self.value


class ThreadPool:
    """Daemon threads of one event loop; used only from that loop.

    Args:
        name: what the threads' names begin with.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = count(1)
        self._idle: list[SimpleQueue[_Work | None]] = []
        self._closed = False

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Ended]:
        """Run the function in a thread, with the caller's context variables.

        Cancelling the future does not stop the function.
        """
        future: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        inbox = self._idle.pop() if self._idle else self._start_thread()
        inbox.put((function, contextvars.copy_context(), future))
        return future

    def close(self) -> None:
        """Let idle threads end at once, and busy ones when they are done."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _start_thread(self) -> SimpleQueue[_Work | None]:
        inbox: SimpleQueue[_Work | None] = SimpleQueue()
        loop = asyncio.get_running_loop()
        name = f"{self._name}-{next(self._numbers)}"
        threading.Thread(target=self._work, args=(inbox, loop), name=name, daemon=True).start()
        return inbox

    def _work(self, inbox: SimpleQueue[_Work | None], loop: asyncio.AbstractEventLoop) -> None:
        while (work := inbox.get()) is not None:
            function, context, future = work
            try:
                ended = Ended(context.run(function), None)
            except BaseException as exc:  # noqa: BLE001 - a handler's own: handed to whoever awaits it
                ended = Ended(None, exc)
            try:
                loop.call_soon_threadsafe(self._deliver, inbox, future, ended)
            except RuntimeError:  # the event loop is closed: nobody is left to hear of it
                return
            del work, function, context, future, ended

    def _deliver(self, inbox: SimpleQueue[_Work | None], future: asyncio.Future[Ended], ended: Ended) -> None:
        if self._closed:
            inbox.put(None)
        else:
            self._idle.append(inbox)
        if not future.done():
            future.set_result(ended)
