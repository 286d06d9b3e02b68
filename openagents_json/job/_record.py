"""The job as stores and the engine carry it: one slim, immutable row.

A `JobRecord` differs from the `Job` that users see in three ways: its JSON values stay encoded, it holds what only
the engine needs (the lease, counters), and changing a field costs two microseconds instead of fifteen. A `Job` is
made from it (`to_job`) when somebody looks.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import pydantic_core

from openagents_json.job.model import (
    Attempt,
    DependencyFailurePolicy,
    Job,
    JobError,
    JobPriority,
    JobStatus,
    WaitReason,
)
from openagents_json.job.retry import RetryPolicy

#: The metadata key under which a job's recoveries are shown.
RECOVERY_HISTORY = "recovery_history"


class Recovery(NamedTuple):
    """One time a job was taken from its worker and put back."""

    at: datetime
    why: str
    worker_id: str
    attempt: int


class JobSpec(NamedTuple):
    """What was asked for when the job was created; fixed from then on. Fields mean what they mean on `Job`."""

    job_id: str
    name: str
    description: str
    handler: str | None
    queue: str
    payload: bytes
    """JSON"""
    metadata: bytes
    """JSON object, without the recovery history"""
    tags: tuple[str, ...]
    priority: JobPriority
    batch_id: str | None
    on_dependency_failure: DependencyFailurePolicy
    max_retries: int
    retry_delay: float
    retry_policy: RetryPolicy | None
    timeout: float | None
    max_recoveries: int | None
    request_id: str
    """the call that created it: tells a repeated `Add` from a duplicate id"""
    batch_position: int = 0
    """its place in its batch"""

    @property
    def handler_name(self) -> str:
        """The handler it asks for."""
        return self.handler or self.name


class JobRecord(NamedTuple):
    """A job in a store: what was asked for, and what became of it since."""

    spec: JobSpec
    created_at: datetime
    updated_at: datetime
    version: int
    """rises with every change"""
    status: JobStatus
    queued: bool
    """start was asked for"""
    dependencies: tuple[str, ...]
    unmet: int
    """how many dependencies it still waits for; follows from their states"""
    run_at: datetime | None
    ready_at: datetime | None
    """when nothing but a free worker stood, or will stand, in its way; None: something else than time does"""
    started_at: datetime | None = None
    completed_at: datetime | None = None
    attempt: int = 0
    retry_count: int = 0
    recoveries: int = 0
    """recoveries in a row, since an attempt last ended by itself"""
    lease: str | None = None
    """the claim that holds it; None: nobody does"""
    worker_id: str | None = None
    finished_lease: str | None = None
    """the lease whose outcome was accepted last: makes `Finish` repeatable"""
    progress: float = 0.0
    progress_message: str = ""
    result: bytes | None = None
    """JSON"""
    error: JobError | None = None
    attempts: tuple[Attempt, ...] = ()
    recovery_history: tuple[Recovery, ...] = ()
    cancelled_by: str | None = None
    """the dependency whose failure cancelled it"""

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.spec.job_id

    def to_job(self, now: datetime) -> Job:
        """Build what users see; `now` decides between waiting for a time and waiting for a worker."""
        spec = self.spec
        metadata = pydantic_core.from_json(spec.metadata)
        if self.recovery_history:
            metadata[RECOVERY_HISTORY] = [
                {"at": entry.at.isoformat(), "why": entry.why, "worker_id": entry.worker_id, "attempt": entry.attempt}
                for entry in self.recovery_history
            ]
        return Job(
            job_id=spec.job_id,
            name=spec.name,
            description=spec.description,
            handler=spec.handler,
            queue=spec.queue,
            payload=pydantic_core.from_json(spec.payload),
            metadata=metadata,
            tags=spec.tags,
            priority=spec.priority,
            status=self.status,
            wait_reason=wait_reason(self, now),
            batch_id=spec.batch_id,
            dependencies=self.dependencies,
            on_dependency_failure=spec.on_dependency_failure,
            max_retries=spec.max_retries,
            retry_delay=spec.retry_delay,
            retry_policy=spec.retry_policy,
            timeout=spec.timeout,
            max_recoveries=spec.max_recoveries,
            run_at=self.run_at,
            created_at=self.created_at,
            updated_at=self.updated_at,
            started_at=self.started_at,
            completed_at=self.completed_at,
            attempt=self.attempt,
            retry_count=self.retry_count,
            progress=self.progress,
            progress_message=self.progress_message,
            result=None if self.result is None else pydantic_core.from_json(self.result),
            error=self.error,
            attempts=self.attempts,
            worker_id=self.worker_id,
        )


def wait_reason(job: JobRecord, now: datetime) -> WaitReason | None:
    """Say what a pending job waits for; None for a job that is not pending."""
    if job.status is not JobStatus.PENDING:
        return None
    if not job.queued:
        return WaitReason.START
    if job.unmet:
        return WaitReason.DEPENDENCIES
    if job.run_at is not None and job.run_at > now:
        return WaitReason.TIME
    return WaitReason.WORKER
