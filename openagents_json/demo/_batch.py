"""Which jobs a run works on: those of a run that was interrupted, or new ones.

A run is resumed when it is not over and was about the very same thing: its jobs carry an identity that follows from
the contents of the sources and everything else that goes into a run. It is over when the user has seen its report, or
why there is none. Whatever other jobs the demo left behind are deleted: those of a run that is over, which the next one
begins anew, and those of a run that cannot be resumed.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openagents_json.demo import _jobs
from openagents_json.demo._report import Files
from openagents_json.job import JobStatus

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from openagents_json.job import BatchJob, Job, JobManager


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a run had come when it was found.

    Attributes:
        total: its jobs.
        done: those that had completed.
        interrupted: those that were running when it ended, and have to run again.
        wait_seconds: how long some of these still wait: a job that is killed again and again has to.
    """

    total: int
    done: int
    interrupted: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs of a run, before any of them is worked on (again).

    Attributes:
        batch_id: their batch.
        report_id: the last of them.
        done: how many of each stage have completed.
        resumed: how far they had come; None when they are new.
        dropped: unfinished runs that could not be resumed and were deleted.
    """

    batch_id: str
    report_id: str
    done: Mapping[str, int]
    resumed: Standing | None
    dropped: tuple[Standing, ...]


async def find_or_create(manager: JobManager, specs: Sequence[BatchJob], identity: str, *, shown: str) -> Batch:
    """Find the jobs of an interrupted run, or create new ones.

    Args:
        manager: one that runs no jobs: here it is decided which ones may run.
        specs: the jobs of the run, as `_jobs.batch` describes them.
        identity: what the run is about; see the module.
        shown: the batch of the run whose report was shown last.

    Raises:
        StoreError: the store did not answer.
    """
    await manager.recover_interrupted_jobs()
    runs: defaultdict[str | None, list[Job]] = defaultdict(list)
    for job in await manager.list_jobs(queue=_jobs.QUEUE, sort_order="asc"):
        runs[job.batch_id].append(job)
    now = manager.job_store.now()
    names = {spec["name"] for spec in specs}
    found = next((jobs for jobs in runs.values() if _can_be_resumed(jobs, names, identity, shown)), None)
    others = [jobs for jobs in runs.values() if jobs is not found]
    await _delete(manager, [job for jobs in others for job in jobs])
    jobs = found or (await manager.create_job_batch(specs, auto_start=True))[1]
    return Batch(
        batch_id=str(jobs[0].batch_id),
        report_id=_report_of(jobs).job_id,
        done=Counter(job.tags[0] for job in jobs if job.status is JobStatus.COMPLETED),
        resumed=None if found is None else _standing(found, now),
        dropped=tuple(_standing(jobs, now) for jobs in others if _is_under_way(jobs)),
    )


def _can_be_resumed(jobs: Sequence[Job], names: set[str], identity: str, shown: str) -> bool:
    same = all(job.metadata.get(_jobs.RUN) == identity for job in jobs)
    # a job may have been lost, to a damaged disk say
    if not same or {job.name for job in jobs} != names:
        return False
    report = _report_of(jobs)
    if report.status is JobStatus.COMPLETED:
        # the process ended between the last job and the user: there is only the report to be shown
        return report.batch_id != shown and Files(**report.result).unchanged()
    return not report.status.finished


def _is_under_way(jobs: Sequence[Job]) -> bool:
    # a job that fails takes those that depend on it along, so the report is over in any case
    return any(not job.status.finished for job in jobs if _jobs.LOAD in job.tags)


def _report_of(jobs: Iterable[Job]) -> Job:
    return next(job for job in jobs if _jobs.LOAD in job.tags)


def _standing(jobs: Sequence[Job], now: datetime) -> Standing:
    interrupted = [job for job in jobs if _was_interrupted(job)]
    waits = ((job.run_at - now).total_seconds() for job in interrupted if job.run_at is not None)
    return Standing(
        total=len(jobs),
        done=sum(job.status is JobStatus.COMPLETED for job in jobs),
        interrupted=len(interrupted),
        wait_seconds=max(waits, default=0.0),
    )


def _was_interrupted(job: Job) -> bool:
    """Tell whether a job's latest attempt came to no end: its process was killed, or stopped with Ctrl-C."""
    history = job.metadata.get("recovery_history", ())
    return not job.status.finished and len(history) > 0 and history[-1]["attempt"] == job.attempt


async def _delete(manager: JobManager, jobs: Sequence[Job]) -> None:
    # a job cannot be deleted before the unfinished ones that need it; within a stage they share a commit
    for stage in reversed(_jobs.STAGES):
        await asyncio.gather(*(manager.delete_job(job.job_id) for job in jobs if stage in job.tags))
