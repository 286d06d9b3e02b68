"""`TableStore`: what the stores that keep all jobs in a `Table` have in common: reading, and the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from openagents_json.job._clock import Clock, SystemClock
from openagents_json.job.storage._table import Table
from openagents_json.job.storage.base import JobStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from openagents_json.job._changes import Query, Worker, WorkerState
    from openagents_json.job._record import JobRecord


class TableStore(JobStore):
    """A store whose jobs are in memory, whatever else it does with them.

    Args:
        clock: where timestamps come from; None: the system's.
    """

    def __init__(self, clock: Clock | None) -> None:
        super().__init__()
        self._clock = clock or SystemClock()
        self._table = Table()

    @override
    async def get(self, job_ids: Sequence[str]) -> list[JobRecord]:
        await self._refresh()
        return [job for job_id in job_ids if (job := self._table.get(job_id)) is not None]

    @override
    async def find(self, query: Query) -> list[JobRecord]:
        await self._refresh()
        return self._table.find(query)

    @override
    async def count(self, query: Query) -> int:
        await self._refresh()
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

    async def _refresh(self) -> None:
        """Bring the table up to date before it is read."""
        self._require_open()
