"""`MemoryJobStore`: jobs in this process's memory, gone with it. The default store, and the quickest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from openagents_json.job._clock import Clock, SystemClock
from openagents_json.job.storage._table import Table
from openagents_json.job.storage.base import JobStore, StoreTraits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from openagents_json.job._changes import Change, Claim, Query, Result, Worker, WorkerState
    from openagents_json.job._record import JobRecord


class MemoryJobStore(JobStore):
    """Keep jobs in memory. They outlive `close()` but not this object, and not the process.

    Args:
        clock: where timestamps come from; a test may bring its own.
    """

    traits: StoreTraits = StoreTraits(durable=False, shared=False, pushes=True)

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__()
        self._clock = clock or SystemClock()
        self._table = Table()

    @override
    def __repr__(self) -> str:
        return f"MemoryJobStore({len(self._table.jobs)} jobs)"

    @override
    async def _open(self) -> None:
        pass

    @override
    async def _close(self) -> None:
        pass

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        self._require_open()
        plan = self._table.plan(changes, claim, self._clock.now())
        self._wake(self._table.install(plan))
        return plan.result

    @override
    async def get(self, job_ids: Sequence[str]) -> list[JobRecord]:
        self._require_open()
        return [job for job_id in job_ids if (job := self._table.get(job_id)) is not None]

    @override
    async def find(self, query: Query) -> list[JobRecord]:
        self._require_open()
        return self._table.find(query)

    @override
    async def count(self, query: Query) -> int:
        self._require_open()
        return self._table.count(query)

    @override
    async def register(self, worker: Worker) -> None:
        self._require_open()
        self._table.register(worker, self._clock.monotonic())

    @override
    async def beat(self, worker_id: str) -> bool:
        self._require_open()
        return self._table.beat(worker_id, self._clock.monotonic())

    @override
    async def unregister(self, worker_id: str) -> None:
        self._require_open()
        self._table.unregister(worker_id)

    @override
    async def workers(self) -> list[WorkerState]:
        self._require_open()
        return self._table.workers(self._clock.monotonic())

    @override
    def now(self) -> datetime:
        return self._clock.now()
