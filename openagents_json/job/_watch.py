"""`Watch`: waiting until jobs are over.

Waiters are woken by what this manager stores itself, and by what the store tells of others' changes; where the store
cannot push, the awaited jobs are read now and then.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from openagents_json.errors import JobNotFoundError, ManagerStoppedError, OpenAgentsError
from openagents_json.job.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from openagents_json.job._clock import Clock
    from openagents_json.job._record import JobRecord
    from openagents_json.job.storage.base import JobStore

_POLL = RetryPolicy.exponential(0.05, factor=1.5, max_delay=1.0, jitter=0.2)

logger = logging.getLogger(__name__)


class Watch:
    """Knows who waits for which job."""

    def __init__(self, store: JobStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiters: dict[str, set[asyncio.Future[JobRecord]]] = {}
        self._suspects: set[str] = set()
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._stopped = False

    async def wait(self, job_id: str) -> JobRecord:
        """Return the job once it is over.

        Raises:
            JobNotFoundError: there is none, or it was deleted meanwhile.
            ManagerStoppedError: the manager stopped meanwhile.
        """
        waiter: asyncio.Future[JobRecord] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, set()).add(waiter)
        try:
            try:
                records = await self._store.get([job_id])
            except OpenAgentsError as exc:
                logger.warning("job %s could not be read, trying again: %s", job_id, exc)
                self.look_at([job_id])
            else:
                if not records:
                    raise JobNotFoundError(job_id)
                self.offer(records[0])
                if not self._store.traits.pushes:
                    self.look_at([job_id])
            if self._stopped and not waiter.done():
                raise ManagerStoppedError
            return await waiter
        finally:
            waiters = self._waiters[job_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[job_id]

    def awaits(self, job_id: str) -> bool:
        """Tell whether somebody waits for a job."""
        return job_id in self._waiters

    def offer(self, record: JobRecord) -> None:
        """Take in a job as it now is."""
        if record.status.finished:
            for waiter in self._waiters.get(record.job_id, ()):
                if not waiter.done():
                    waiter.set_result(record)

    def look_at(self, job_ids: Iterable[str] | None) -> None:
        """Read those of the jobs (None: of all) that somebody waits for."""
        if not self._waiters:
            return
        awaited = self._waiters if job_ids is None else (job_id for job_id in job_ids if job_id in self._waiters)
        self._suspects.update(awaited)
        if self._suspects:
            self._changed.set()
            if self._reader is None or self._reader.done():
                self._reader = asyncio.get_running_loop().create_task(self._read(), name="watch awaited jobs")

    async def stop(self) -> None:
        """Read no more; whoever waits still is told."""
        self._stopped = True
        self._changed.set()
        for waiters in self._waiters.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(ManagerStoppedError())
        if self._reader is not None:
            await asyncio.wait({self._reader})

    async def _read(self) -> None:
        """Read suspects while there are any; where the store cannot push, everything awaited is one."""
        looks = 0
        while not self._stopped and (self._suspects or (self._waiters and not self._store.traits.pushes)):
            if not self._suspects:
                looks += 1
                await self._clock.wait(self._changed, _POLL.delay_before(looks, random.random()))
                self._suspects.update(self._waiters)
            self._changed.clear()
            job_ids, self._suspects = tuple(self._suspects), set()
            try:
                records = await self._store.get(job_ids)
            except Exception as exc:  # noqa: BLE001 - the store's own code; whoever waits must not be forgotten
                logger.warning("awaited jobs could not be read, trying again: %s", exc)
                self._suspects.update(job_ids)
                looks += 1
                self._changed.clear()
                await self._clock.wait(self._changed, _POLL.delay_before(looks, random.random()))
                continue
            for record in records:
                self.offer(record)
            for job_id in set(job_ids) - {record.job_id for record in records}:
                for waiter in self._waiters.get(job_id, ()):
                    if not waiter.done():
                        waiter.set_exception(JobNotFoundError(job_id))
