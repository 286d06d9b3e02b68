"""`Lifetime`: when a manager's runtime exists: from first need, or `start`, to `stop`, or the end of its event loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING

from openagents_json.errors import ManagerStoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from openagents_json.job._runtime import Runtime


class Lifetime:
    """Makes, starts and stops the runtimes of one manager, one after the other.

    Args:
        make_runtime: makes a new one, in the running event loop.

    Attributes:
        runtime: the present one; None before the first need and after `stop`.
        stopped: whether `stop` was called, and `start` not since.
    """

    def __init__(self, make_runtime: Callable[[], Runtime]) -> None:
        self.runtime: Runtime | None = None
        self.stopped = False
        self._make_runtime = make_runtime
        self._predecessor: Runtime | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start now, also after a stop; no effect while it runs.

        Raises:
            StoreError: the store cannot be opened.
        """
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
        self.stopped = False
        await self.ready()

    async def ready(self) -> Runtime:
        """Give the runtime of this event loop, started.

        Raises:
            ManagerStoppedError: it was stopped.
            RuntimeError: it lives in another event loop.
            StoreError: the store cannot be opened.
        """
        runtime, loop = self.runtime, asyncio.get_running_loop()
        if runtime is not None and runtime.loop is loop and self._starting is None:
            return runtime
        if self.stopped:
            raise ManagerStoppedError
        if runtime is not None and runtime.loop is not loop:
            self._bury(runtime)
        if self._starting is None:
            self.runtime = self._make_runtime()
            # in a context of its own: handlers must not inherit that of the request which happened to come first
            self._starting = loop.create_task(
                self._start(self.runtime), name="openagents start", context=contextvars.Context()
            )
        # whoever is cancelled while waiting for it does not keep others from starting
        await asyncio.shield(self._starting)
        if self.runtime is None:
            raise ManagerStoppedError
        return self.runtime

    async def stop(self, timeout: float) -> None:
        """Stop within `timeout` seconds and a little; no effect when it does not run."""
        self.stopped = True
        runtime = self.runtime
        if runtime is None or runtime.loop is not asyncio.get_running_loop():
            return
        if self._stopping is None:
            self._stopping = runtime.loop.create_task(self._stop(runtime, timeout), name="openagents stop")
        # whoever is cancelled while waiting for it does not leave it half stopped
        await asyncio.shield(self._stopping)

    def _bury(self, runtime: Runtime) -> None:
        """Put away a runtime whose event loop has ended."""
        if not runtime.loop.is_closed():
            msg = "this job manager runs in another event loop; use one manager for each, they may share a database"
            raise RuntimeError(msg)
        runtime.abandon()
        self._predecessor = runtime
        self.runtime = self._starting = self._stopping = None

    async def _start(self, runtime: Runtime) -> None:
        try:
            await runtime.start(self._predecessor)
            self._predecessor = None
        except BaseException:
            self.runtime = None
            raise
        finally:
            self._starting = None

    async def _stop(self, runtime: Runtime, timeout: float) -> None:
        try:
            if self._starting is not None:
                await asyncio.wait({self._starting})
            if self.runtime is runtime:
                await runtime.stop(timeout)
        finally:
            self._predecessor = None if runtime.in_good_order else runtime
            self.runtime = self._stopping = None
