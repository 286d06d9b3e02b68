"""The contract between the job engine and a job store: `JobStore`.

A store keeps jobs and answers "what may run next". It runs no timers for jobs, knows no handlers and publishes no
events. These docstrings are the specification; `openagents_json.testing.JobStoreConformance` checks every rule of it
on any implementation.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openagents_json.errors import StoreClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from openagents_json.job._changes import Change, Claim, Query, Result, Wakeup, Worker, WorkerState
    from openagents_json.job._record import JobRecord


@dataclass(frozen=True, slots=True)
class StoreTraits:
    """What a store promises beyond the contract.

    Attributes:
        durable: jobs outlive the process.
        shared: several processes may write to it at once. Where not, a worker of another process is known dead.
        pushes: every `Wakeup` reaches every listener by itself. Where not, managers poll for changes that
            others make.
    """

    durable: bool
    shared: bool
    pushes: bool


class JobStore(ABC):
    """Where jobs are kept. One object may serve several managers of one event loop.

    Subclasses implement `_open` and `_close`, the abstract methods, and call `_wake` after each change took effect.

    Rules:
        * `apply` is the only way to change jobs. All changes of one call, the claim included, are one transaction.
          They take effect one after the other, the claim last. `Add`s keep their order, and so do changes that name
          the same job; the order of others is the store's own. A change that is refused leaves the others standing.
        * The lease. `Finish` and `Progress` take effect only where the job is held under the lease they name, else
          `LeaseLostError` is the answer, except to a `Finish` repeated after it was accepted.
        * A worker declared dead (`Recover`) holds nothing from that moment on; its claims are refused, its beats
          answered False. (A store of one process may forget that when it is opened anew.)
        * An outcome, the counters of the job's dependents, their promotion, and cascades of cancellation are one
          transaction.
        * Any call may fail with `StoreUnavailableError`, also after it took effect; every change can be repeated.
        * Every call ends within a bounded time.
        * Text is stored as given: ids compare by code point, case matters. JSON keeps its values; a durable store may
          change its spacing.
    """

    traits: StoreTraits

    def __init__(self) -> None:
        self._users = 0
        self._opening = asyncio.Lock()
        self._listeners: list[Callable[[Wakeup], None]] = []

    async def open(self) -> None:
        """Make the store ready; counted, so every `open` needs its `close`.

        Raises:
            StoreError: it cannot be opened; it is as if `open` had not been called.
        """
        async with self._opening:
            if self._users == 0:
                await self._open()
            self._users += 1

    async def close(self) -> None:
        """Give up what `open` acquired, when this was the last user.

        Raises:
            StoreClosedError: it is not open.
        """
        async with self._opening:
            if self._users == 0:
                raise StoreClosedError(f"{self!r} is not open; call open() first")
            self._users -= 1
            if self._users == 0:
                await self._close()

    @abstractmethod
    async def _open(self) -> None:
        """Acquire connections, files, locks; load what must be loaded."""

    @abstractmethod
    async def _close(self) -> None:
        """Release them."""

    @abstractmethod
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        """Make all the changes, then serve the claim, in one transaction.

        Args:
            changes: what to do; may be empty.
            claim: what to hand out once they are made.

        Returns:
            An answer for each change, in order; refusals are answers. The claim's answer, if there was one.

        Raises:
            StoreUnavailableError: it may or may not have happened, as a whole.
        """

    @abstractmethod
    async def get(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Read jobs by id, in the order asked; ids nobody has are left out."""

    @abstractmethod
    async def find(self, query: Query) -> list[JobRecord]:
        """Read the jobs that match, in the query's order."""

    @abstractmethod
    async def count(self, query: Query) -> int:
        """Count the jobs that match; order, limit, offset and page are ignored."""

    @abstractmethod
    async def register(self, worker: Worker) -> None:
        """Make a worker known; its first beat. Repeating it is a beat.

        Raises:
            WorkerDeadError: this id was declared dead.
        """

    @abstractmethod
    async def beat(self, worker_id: str) -> bool:
        """Note a sign of life; False when the worker is unknown or was declared dead."""

    @abstractmethod
    async def unregister(self, worker_id: str) -> None:
        """Forget a worker that holds nothing; without effect for one that holds jobs or is unknown."""

    @abstractmethod
    async def workers(self) -> list[WorkerState]:
        """List the workers that are neither dead nor unregistered."""

    @abstractmethod
    def now(self) -> datetime:
        """Tell the store's time, aware, in UTC: the one its timestamps are made from."""

    def listen(self, listener: Callable[[Wakeup], None]) -> Callable[[], None]:
        """Call `listener` in the event loop after changes took effect; the returned function ends it.

        A listener must return at once and must not raise.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _wake(self, wakeup: Wakeup) -> None:
        for listener in tuple(self._listeners):
            listener(wakeup)

    def _require_open(self) -> None:
        if self._users == 0:
            raise StoreClosedError(f"{self!r} is not open; call open() first")
