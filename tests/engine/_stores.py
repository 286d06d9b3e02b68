"""A store to which a test says what happens to which call: `ScriptedStore`. (Random faults are `FaultyStore`'s.)"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from typing_extensions import override

from openagents_json.job._changes import Change, Claim, Query, Result, Wakeup, Worker, WorkerState
from openagents_json.job._record import JobRecord
from openagents_json.job.storage import JobStore
from tests.engine._time import soon

T = TypeVar("T")


@dataclass(eq=False)
class Hitch:
    """What happens to the first call that matches, once.

    Attributes:
        method: which method of the store.
        matches: whether a call of it, with these arguments, is meant.
        after: it happens after the call took effect, not before.
        error: what the call raises then; None: it goes on as usual.
        reached: set when the call has come there, and is held.
    """

    method: str
    matches: Callable[[tuple[object, ...]], bool]
    after: bool
    error: Exception | None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    async def happen(self) -> None:
        """Hold the call, then let it go on or fail."""
        self.reached.set()
        await self._go.wait()
        if self.error is not None:
            raise self.error

    async def wait_reached(self) -> None:
        """Wait until a call is held here."""
        await soon(self.reached.wait())

    def let_go(self) -> None:
        """Let the call go on, or fail."""
        self._go.set()


def changes_a(*kinds: type[Change], job_id: str | None = None) -> Callable[[tuple[object, ...]], bool]:
    """Match an `apply` with a change of one of these kinds, to that job if one is named."""

    def matches(arguments: tuple[object, ...]) -> bool:
        changes = arguments[0]
        assert isinstance(changes, Sequence)
        return any(
            isinstance(change, kinds) and (job_id is None or getattr(change, "job_id", None) == job_id)
            for change in changes
        )

    return matches


def claims(arguments: tuple[object, ...]) -> bool:
    """Match an `apply` that claims."""
    return arguments[1] is not None


def anything(arguments: tuple[object, ...]) -> bool:
    """Match every call."""
    return True


class ScriptedStore(JobStore):
    """Pass calls on to another store, and let happen to them what the test says.

    Args:
        inner: the store that does the work.
        deaf: whether wake-ups get lost on the way.

    Attributes:
        applied: the changes and the claim of every `apply` that was called, in order.
        calls: the names of the methods that were called, in order.
    """

    def __init__(self, inner: JobStore, *, deaf: bool = False) -> None:
        super().__init__()
        self.traits = inner.traits
        self._deaf = deaf
        self.applied: list[tuple[tuple[Change, ...], Claim | None]] = []
        self.calls: list[str] = []
        self._inner = inner
        self._hitches: list[Hitch] = []
        self._down: set[str] = set()
        self._down_error: Callable[[], Exception] = RuntimeError

    def hold(
        self,
        method: str,
        matches: Callable[[tuple[object, ...]], bool] = anything,
        *,
        after: bool = False,
        error: Exception | None = None,
    ) -> Hitch:
        """Hold the first call that matches, before or after it takes effect, until the hitch is let go."""
        hitch = Hitch(method, matches, after, error)
        self._hitches.append(hitch)
        return hitch

    def fail(
        self,
        method: str,
        error: Exception,
        matches: Callable[[tuple[object, ...]], bool] = anything,
        *,
        after: bool = False,
    ) -> Hitch:
        """Let the first call that matches fail, before or after it takes effect."""
        hitch = self.hold(method, matches, after=after, error=error)
        hitch.let_go()
        return hitch

    def take_down(self, *methods: str, error: Callable[[], Exception]) -> None:
        """Let every call of these methods fail, without effect, from now on."""
        self._down = set(methods)
        self._down_error = error

    def bring_up(self) -> None:
        """Let calls work again."""
        self._down = set()

    @override
    async def _open(self) -> None:
        await self._inner.open()

    @override
    async def _close(self) -> None:
        await self._inner.close()

    @override
    async def open(self) -> None:
        async def opening() -> None:
            await super(ScriptedStore, self).open()

        await self._pass_on("open", opening)

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        self.applied.append((tuple(changes), claim))
        return await self._pass_on("apply", lambda: self._inner.apply(changes, claim=claim), changes, claim)

    @override
    async def get(self, job_ids: Sequence[str]) -> list[JobRecord]:
        return await self._pass_on("get", lambda: self._inner.get(job_ids), job_ids)

    @override
    async def find(self, query: Query) -> list[JobRecord]:
        return await self._pass_on("find", lambda: self._inner.find(query), query)

    @override
    async def count(self, query: Query) -> int:
        return await self._pass_on("count", lambda: self._inner.count(query), query)

    @override
    async def register(self, worker: Worker) -> None:
        await self._pass_on("register", lambda: self._inner.register(worker), worker)

    @override
    async def beat(self, worker_id: str) -> bool:
        return await self._pass_on("beat", lambda: self._inner.beat(worker_id), worker_id)

    @override
    async def unregister(self, worker_id: str) -> None:
        await self._pass_on("unregister", lambda: self._inner.unregister(worker_id), worker_id)

    @override
    async def workers(self) -> list[WorkerState]:
        return await self._pass_on("workers", self._inner.workers)

    @override
    def now(self) -> datetime:
        return self._inner.now()

    @override
    def listen(self, listener: Callable[[Wakeup], None]) -> Callable[[], None]:
        return (lambda: None) if self._deaf else self._inner.listen(listener)

    async def _pass_on(self, method: str, call: Callable[[], Awaitable[T]], *arguments: object) -> T:
        self.calls.append(method)
        if method in self._down:
            raise self._down_error()
        hitch = next((one for one in self._hitches if one.method == method and one.matches(arguments)), None)
        if hitch is None:
            return await call()
        self._hitches.remove(hitch)
        if not hitch.after:
            await hitch.happen()
            return await call()
        answer = await call()
        await hitch.happen()
        return answer
