"""One run of the demo: its jobs are found or created, followed, and waited for. Prints nothing itself."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openagents_json._version import __version__
from openagents_json.app import OpenAgentsApp
from openagents_json.demo import _batch, _jobs, _report, _sources
from openagents_json.job import JobManager, JobStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from openagents_json.demo._batch import Batch, Standing
    from openagents_json.demo._progress import Progress
    from openagents_json.job import Job
    from openagents_json.job.storage import JobStore

#: How long running jobs may go on after Ctrl-C, in seconds.
_SHUTDOWN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run shall do.

    Attributes:
        packages: the names of the packages, with the size of their sources in bytes.
        root: the library's directory.
        folder: where the report goes.
        concurrency: how many jobs run at once.
    """

    packages: Mapping[str, int]
    root: Path
    folder: Path
    concurrency: int

    def stages(self) -> dict[str, int]:
        """Tell how many jobs each stage has."""
        return {_jobs.EXTRACT: len(self.packages), _jobs.TRANSFORM: 3, _jobs.LOAD: 1}

    def identity(self) -> str:
        """Compute what the run is about: the same for the same sources, report and versions. Reads all sources."""
        facts = [
            __version__,
            platform.python_version(),
            str(self.root),
            str(self.folder),
            list(self.packages),
            _sources.digest(self.root, self.packages),
        ]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended.

    Attributes:
        files: the report's files, as `_report.Files` has them; None when it failed.
        failed: the jobs because of which there is no report.
        batch_id: the batch of its jobs.
        jobs: how many there are.
        resumed: how far they had come before; None when they were new.
        seconds: from the beginning, or the resumption, to the end of the last job.
    """

    files: dict[str, Any] | None
    failed: tuple[Job, ...]
    batch_id: str
    jobs: int
    resumed: Standing | None
    seconds: float


@contextlib.asynccontextmanager
async def opened(plan: Plan, store: JobStore) -> AsyncIterator[Batch]:
    """Open the store, with the plan's jobs in it; none of them runs yet.

    Raises:
        StoreLockedError: another process works on the jobs there.
        StoreError: the store cannot be opened, or did not answer.
    """
    async with JobManager(store, run_jobs=False) as manager:
        identity = await asyncio.to_thread(plan.identity)
        specs = _jobs.batch(plan.packages, plan.root, plan.folder, platform.python_version(), run=identity)
        shown = _report.last_shown(plan.folder)
        yield await _batch.find_or_create(manager, specs, identity, shown=shown)


async def finish(plan: Plan, store: JobStore, batch: Batch, progress: Progress) -> Result:
    """Run the jobs of an opened batch to their end, or to the first failure.

    Raises:
        StoreError: the store did not answer.
    """
    app = OpenAgentsApp(
        store,
        max_concurrent_jobs=plan.concurrency,
        # the store may hold jobs of others: they are neither run nor cleaned up
        queues=(_jobs.QUEUE,),
        retention_days=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    _jobs.register(app)
    app.events.subscribe(progress.tell)
    began = store.now()
    async with app:
        report = await app.wait_for_job(batch.report_id)
        failed = await app.list_jobs(batch_id=batch.batch_id, status=JobStatus.FAILED, sort_order="asc")
    completed = report.status is JobStatus.COMPLETED
    return Result(
        files=report.result if completed else None,
        failed=() if completed else tuple(failed) or (report,),
        batch_id=batch.batch_id,
        jobs=sum(plan.stages().values()),
        resumed=batch.resumed,
        # the last job was over before, if only the report had to be shown
        seconds=max(0.0, ((report.completed_at or report.updated_at) - began).total_seconds()),
    )
