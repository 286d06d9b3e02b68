"""Jobs: their model, their stores, and the `JobManager` that runs them."""

from __future__ import annotations

from openagents_json.job._queries import JobFilters, JobOrder
from openagents_json.job.context import JobContext
from openagents_json.job.events import EventType, JobEvent
from openagents_json.job.handlers import NonRetryableError, Retry
from openagents_json.job.manager import JobManager
from openagents_json.job.model import (
    Attempt,
    AttemptOutcome,
    BatchJob,
    DependencyFailurePolicy,
    Job,
    JobError,
    JobOptions,
    JobPriority,
    JobStatus,
    WaitReason,
)
from openagents_json.job.retry import RetryPolicy

__all__ = [
    "Attempt",
    "AttemptOutcome",
    "BatchJob",
    "DependencyFailurePolicy",
    "EventType",
    "Job",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobFilters",
    "JobManager",
    "JobOptions",
    "JobOrder",
    "JobPriority",
    "JobStatus",
    "NonRetryableError",
    "Retry",
    "RetryPolicy",
    "WaitReason",
]
