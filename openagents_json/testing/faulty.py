"""`FaultyStore`: any job store, with a bad line to it. What the line does follows from a seed: it can be replayed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from openagents_json.errors import StoreUnavailableError
from openagents_json.job._clock import Clock, SystemClock
from openagents_json.job.storage.base import JobStore, StoreTraits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from openagents_json.job._changes import Change, Claim, Query, Result, Wakeup, Worker, WorkerState
    from openagents_json.job._record import JobRecord

T = TypeVar("T")


class Fault(StrEnum):
    """What can happen to a call."""

    FAILED_BEFORE = "failed before it took effect"
    FAILED_AFTER = "failed after it took effect"
    SLOW = "was slow"
    HUNG_BEFORE = "hung, and took no effect"
    HUNG_AFTER = "took effect, and hung"
    OUTAGE = "failed in an outage"


class FaultyStore(JobStore):
    """Pass calls on to another store; lose some of them, or their answers.

    A call that fails raises `StoreUnavailableError`, as the contract allows, whether or not it took effect. At most
    one fault happens to a call; which one depends on the seed and on how many calls came before. Wake-ups pass
    through. `open` and `close` are spared, but for an outage, in which `open` fails.

    Args:
        inner: the store that does the work; opened and closed with this one.
        seed: two stores of one seed do the same to the same calls.
        fail_before: the chance, from 0 to 1, that a call fails before it takes effect.
        fail_after: the chance that it fails after it took effect.
        slow: the chance that it, or its answer, takes up to a tenth of `limit` longer.
        hang: the chance that it fails only after `limit`; it has taken effect as often as not.
        limit: seconds in which the real store would give up.
        clock: what slow and hanging calls wait by.

    Raises:
        ValueError: the chances are no chances, or exceed 1 together.

    Attributes:
        counts: how often each fault was injected.
        calls: how many calls were made.
    """

    def __init__(
        self,
        inner: JobStore,
        *,
        seed: int,
        fail_before: float = 0.0,
        fail_after: float = 0.0,
        slow: float = 0.0,
        hang: float = 0.0,
        limit: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        chances = (fail_before, fail_after, slow, hang)
        if min(chances) < 0 or sum(chances) > 1:
            msg = f"the chances must be at least 0 and at most 1 together, not {chances}"
            raise ValueError(msg)
        self.traits: StoreTraits = inner.traits
        self.counts: Counter[Fault] = Counter()
        self.calls: int = 0
        self._inner = inner
        self._weights = (
            (Fault.FAILED_BEFORE, fail_before),
            (Fault.FAILED_AFTER, fail_after),
            (Fault.SLOW, slow),
            (Fault.HUNG_BEFORE, hang / 2),
            (Fault.HUNG_AFTER, hang / 2),
        )
        self._limit = limit
        self._clock = clock or SystemClock()
        self._random = random.Random(seed)
        self._mode = "erratic"

    @override
    def __repr__(self) -> str:
        return f"FaultyStore({self._inner!r}, {self._mode})"

    def erratic(self) -> None:
        """Inject faults, as from the beginning."""
        self._mode = "erratic"

    def calm(self) -> None:
        """Inject no faults from now on."""
        self._mode = "calm"

    def outage(self) -> None:
        """Let every call fail at once, without effect, from now on."""
        self._mode = "outage"

    @override
    async def _open(self) -> None:
        if self._mode == "outage":
            raise _failure(Fault.OUTAGE)
        await self._inner.open()

    @override
    async def _close(self) -> None:
        await self._inner.close()

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        return await self._pass_on(lambda: self._inner.apply(changes, claim=claim))

    @override
    async def get(self, job_ids: Sequence[str]) -> list[JobRecord]:
        return await self._pass_on(lambda: self._inner.get(job_ids))

    @override
    async def find(self, query: Query) -> list[JobRecord]:
        return await self._pass_on(lambda: self._inner.find(query))

    @override
    async def count(self, query: Query) -> int:
        return await self._pass_on(lambda: self._inner.count(query))

    @override
    async def register(self, worker: Worker) -> None:
        await self._pass_on(lambda: self._inner.register(worker))

    @override
    async def beat(self, worker_id: str) -> bool:
        return await self._pass_on(lambda: self._inner.beat(worker_id))

    @override
    async def unregister(self, worker_id: str) -> None:
        await self._pass_on(lambda: self._inner.unregister(worker_id))

    @override
    async def workers(self) -> list[WorkerState]:
        return await self._pass_on(self._inner.workers)

    @override
    def now(self) -> datetime:
        return self._inner.now()

    @override
    def listen(self, listener: Callable[[Wakeup], None]) -> Callable[[], None]:
        return self._inner.listen(listener)

    async def _pass_on(self, call: Callable[[], Awaitable[T]]) -> T:
        self._require_open()
        fault, delay, late = self._draw()
        if fault is None:
            return await call()
        self.counts[fault] += 1
        match fault:
            case Fault.SLOW if late:
                answer = await call()
                await self._wait(delay)
                return answer
            case Fault.SLOW:
                await self._wait(delay)
                return await call()
            case Fault.HUNG_AFTER | Fault.FAILED_AFTER:
                await call()
            case Fault.HUNG_BEFORE | Fault.FAILED_BEFORE | Fault.OUTAGE:
                pass
        if fault in {Fault.HUNG_BEFORE, Fault.HUNG_AFTER}:
            await self._wait(self._limit)
        raise _failure(fault)

    async def _wait(self, seconds: float) -> None:
        await self._clock.wait(asyncio.Event(), seconds)

    def _draw(self) -> tuple[Fault | None, float, bool]:
        """Draw the fault of the next call, how slow a slow one is, and whether it is its answer that is slow."""
        self.calls += 1
        if self._mode == "calm":
            return None, 0.0, False
        if self._mode == "outage":
            return Fault.OUTAGE, 0.0, False
        chance, delay, late = self._random.random(), self._random.random(), self._random.random() < 0.5
        for fault, weight in self._weights:
            if chance < weight:
                return fault, delay * self._limit / 10, late
            chance -= weight
        return None, 0.0, False


def _failure(fault: Fault) -> StoreUnavailableError:
    return StoreUnavailableError(f"injected: the call {fault}")
