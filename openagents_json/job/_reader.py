"""`JobReader`: the half of `JobManager` that reads jobs and waits for them. It changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from openagents_json.errors import InvalidJobError, JobNotFoundError
from openagents_json.job import _queries
from openagents_json.job._checks import check_id, check_number
from openagents_json.job.context import current_context

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from openagents_json.job._changes import Query
    from openagents_json.job._queries import JobFilters, JobOrder
    from openagents_json.job._record import JobRecord
    from openagents_json.job._runtime import Runtime
    from openagents_json.job.model import Job, JobStatus
    from openagents_json.job.storage.base import JobStore


class JobReader(ABC):
    """Reads the jobs of a store.

    Attributes:
        job_store: where the jobs are kept.
    """

    def __init__(self, job_store: JobStore) -> None:
        self.job_store = job_store

    async def get_job(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            JobNotFoundError: there is no such job.
            StoreError: the store did not answer.
        """
        record = await self._read(check_id(job_id))
        if record is None:
            raise JobNotFoundError(job_id)
        return self._job(record)

    async def get_job_status(self, job_id: str) -> JobStatus:
        """Read a job's status; raises like `get_job`."""
        return (await self.get_job(job_id)).status

    async def get_job_results(self, job_id: str) -> Any:
        """Read a job's result: None until it has completed; raises like `get_job`."""
        return (await self.get_job(job_id)).result

    async def list_jobs(self, **selection: Unpack[JobOrder]) -> list[Job]:
        """Read the jobs that match, newest first unless told otherwise.

        Args:
            selection: see `JobFilters` and `JobOrder`.

        Raises:
            InvalidJobError: a filter has a wrong type or value.
            StoreError: the store did not answer.
        """
        return await self._find(_queries.query(selection))

    async def count_jobs(self, **filters: Unpack[JobFilters]) -> int:
        """Count the jobs that match; raises like `list_jobs`."""
        query = _queries.filters(filters)
        await self._ready()
        return await self.job_store.count(query)

    async def get_batch_jobs(self, batch_id: str) -> list[Job]:
        """Read the jobs of a batch, in the order they were given; empty when there is no such batch."""
        query = _queries.query({"batch_id": check_id(batch_id, "batch_id")})
        await self._ready()
        records = await self.job_store.find(query)
        return [self._job(record) for record in sorted(records, key=lambda record: record.spec.batch_position)]

    async def get_dependencies(self, job_id: str) -> list[Job]:
        """Read the jobs that a job depends on directly, in the order given; raises like `get_job`."""
        job = await self.get_job(job_id)
        return [self._job(record) for record in await self.job_store.get(job.dependencies)]

    async def get_dependent_jobs(self, job_id: str) -> list[Job]:
        """Read the jobs that depend on a job directly, in the order of their creation; raises like `get_job`."""
        await self.get_job(job_id)
        return await self._find(_queries.dependents_of(job_id))

    async def wait_for_job(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until a job is over, whoever runs it. Inside a handler, the handler's slot is lent meanwhile.

        Args:
            job_id: the job.
            timeout: seconds to wait at most; None: as long as it takes. The job is not affected by it.

        Returns:
            The job: completed, failed or cancelled.

        Raises:
            JobNotFoundError: there is no such job, or it was deleted meanwhile.
            TimeoutError: it is not over yet.
            ManagerStoppedError: this manager was stopped meanwhile.
        """
        check_id(job_id)
        if timeout is not None:
            check_number(timeout, "timeout")
        runtime = await self._ready()
        context = current_context.get()
        if context is not None and context.job_id == job_id:
            raise InvalidJobError("job_id", f"job {job_id!r} cannot wait for itself")
        lent = contextlib.nullcontext() if context is None else context.lend_slot_of(self)
        async with lent:
            try:
                async with asyncio.timeout(timeout):
                    record = await runtime.watch.wait(job_id)
            except TimeoutError:
                msg = f"job {job_id!r} is not over after {timeout:g} s; it goes on"
                raise TimeoutError(msg) from None
        return self._job(record)

    @abstractmethod
    async def _ready(self) -> Runtime:
        """Give the runtime, started."""

    async def _read(self, job_id: str) -> JobRecord | None:
        await self._ready()
        records = await self.job_store.get([job_id])
        return records[0] if records else None

    async def _find(self, query: Query) -> list[Job]:
        await self._ready()
        return [self._job(record) for record in await self.job_store.find(query)]

    def _job(self, record: JobRecord) -> Job:
        return record.to_job(self.job_store.now())
