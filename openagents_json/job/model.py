"""What users see of a job: `Job` and the small types it is made of. Data only; nothing here decides anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Required, Self, TypedDict

from typing_extensions import override

from openagents_json.errors import InvalidJobError
from openagents_json.job._shown import shown
from openagents_json.job.retry import RetryPolicy


class JobStatus(StrEnum):
    """The six states of a job. The members are strings: ``status == "completed"`` works."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether the job is over: completed, failed or cancelled."""
        return self in _FINISHED


_FINISHED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})


class JobPriority(IntEnum):
    """How urgent a job is; strict within a queue: no LOW job starts while a HIGH one is ready."""

    LOW = 0
    MEDIUM = 1
    HIGH = 2
    CRITICAL = 3

    @classmethod
    def parse(cls, value: object) -> JobPriority:
        """Read a priority given as a member, its name (in any case), or its number.

        Raises:
            InvalidJobError: it is none of these.
        """
        if isinstance(value, str):
            member = cls.__members__.get(value.upper())
            if member is not None:
                return member
        elif isinstance(value, int) and not isinstance(value, bool) and cls.LOW <= value <= cls.CRITICAL:
            return cls(value)
        names = ", ".join(repr(name.lower()) for name in cls.__members__)
        raise InvalidJobError("priority", f"must be a JobPriority or one of {names}, not {shown(value)}")


class WaitReason(StrEnum):
    """What a pending job waits for."""

    START = "start"
    TIME = "time"
    DEPENDENCIES = "dependencies"
    WORKER = "worker"


class DependencyFailurePolicy(StrEnum):
    """What becomes of a job when one it depends on fails or is cancelled."""

    CANCEL = "cancel"
    WAIT = "wait"
    RUN = "run"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why an attempt, or a job, failed.

    Attributes:
        type: the exception's class name (``ValueError``), or one of the package's own: ``Timeout``, ``Cancelled``,
            ``DependencyFailed``, ``TooManyRecoveries``.
        message: the exception's text.
        traceback: the formatted traceback, shortened in the middle when very long; empty where there is none.
    """

    type: str
    message: str
    traceback: str = ""

    @override
    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """its worker died, or was shut down"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job that has ended.

    Attributes:
        number: which claim of the job it was, from 1.
        worker_id: who ran it.
        started_at: when it was claimed.
        ended_at: when its end was recorded.
        outcome: how it ended.
        error: why, unless it completed.
    """

    number: int
    worker_id: str
    started_at: datetime
    ended_at: datetime
    outcome: AttemptOutcome
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was when it was read: an immutable value. ``job["status"]`` reads like ``job.status``.

    Attributes:
        job_id: time-ordered UUIDv7 text, or the creator's own.
        name: what it is called; also selects the handler when `handler` is None.
        description: free text.
        handler: name of the handler that runs it; None: the one registered for `name`.
        queue: the queue it waits in.
        payload: the handler's input, a JSON value.
        metadata: the creator's own JSON object, and ``recovery_history`` once there is one: a list of objects with
            ``at`` (ISO time), ``why``, ``worker_id`` and ``attempt``.
        tags: in the order given.
        priority: its urgency.
        status: one of the six states.
        wait_reason: what a pending job waits for; None in every other state.
        batch_id: shared by the jobs of one `create_job_batch`; None outside batches.
        dependencies: ids of the jobs that must complete first, in the order given.
        on_dependency_failure: what becomes of it if one of those fails or is cancelled.
        max_retries: retries after the first try.
        retry_delay: seconds before a retry, when there is no `retry_policy`.
        retry_policy: how the delay grows; None: `retry_delay` each time.
        timeout: seconds of running time an attempt may take; None: no limit.
        max_recoveries: worker deaths in a row it may suffer before it fails; None: no limit.
        run_at: it does not start before; also the time of the next retry while it backs off.
        created_at: when it was stored.
        updated_at: when anything of it last changed.
        started_at: when the latest attempt was claimed.
        completed_at: when it reached its present terminal state, whichever; else None.
        attempt: how often it has been claimed.
        retry_count: retries used up since it was created, or since the last `retry_job`.
        progress: fraction done as the handler reported it, 0 to 1; 1 when completed.
        progress_message: the text reported with it.
        result: what the handler returned, a JSON value; None until completed.
        error: why it failed, was cancelled, or had to be retried last; None otherwise.
        attempts: the attempts that ended, oldest first, the last 50.
        worker_id: who holds it, or held it last.
    """

    job_id: str
    name: str
    description: str
    handler: str | None
    queue: str
    payload: Any
    metadata: dict[str, Any]
    tags: tuple[str, ...]
    priority: JobPriority
    status: JobStatus
    wait_reason: WaitReason | None
    batch_id: str | None
    dependencies: tuple[str, ...]
    on_dependency_failure: DependencyFailurePolicy
    max_retries: int
    retry_delay: float
    retry_policy: RetryPolicy | None
    timeout: float | None
    max_recoveries: int | None
    run_at: datetime | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    attempt: int
    retry_count: int
    progress: float
    progress_message: str
    result: Any
    error: JobError | None
    attempts: tuple[Attempt, ...]
    worker_id: str | None

    def __getitem__(self, field: str) -> Any:
        """Read a field by its name.

        Raises:
            KeyError: a job has no such field.
        """
        if field not in _JOB_FIELDS:
            raise KeyError(field)
        return getattr(self, field)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the fields' names, like a mapping."""
        return iter(_JOB_FIELDS)

    def __len__(self) -> int:
        """Count the fields, like a mapping."""
        return len(_JOB_FIELDS)

    @override
    def __hash__(self) -> int:
        return hash((self.job_id, self.updated_at))

    def keys(self) -> tuple[str, ...]:
        """List the fields' names, so that ``dict(job)`` works."""
        return _JOB_FIELDS

    @override
    def __repr__(self) -> str:
        waits = f" for {self.wait_reason}" if self.wait_reason else ""
        error = f", error={str(self.error)[:80]!r}" if self.error else ""
        return f"<Job {self.job_id} {self.name!r} {self.status}{waits}, attempt={self.attempt}{error}>"

    def to_dict(self) -> dict[str, Any]:
        """Give the job as plain JSON values: times as ISO text, the priority by name."""
        data = {name: getattr(self, name) for name in _JOB_FIELDS}
        data["priority"] = self.priority.name.lower()
        data["tags"], data["dependencies"] = list(self.tags), list(self.dependencies)
        data["error"] = _error_to_dict(self.error)
        data["attempts"] = [
            {
                "number": attempt.number,
                "worker_id": attempt.worker_id,
                "started_at": attempt.started_at.isoformat(),
                "ended_at": attempt.ended_at.isoformat(),
                "outcome": attempt.outcome.value,
                "error": _error_to_dict(attempt.error),
            }
            for attempt in self.attempts
        ]
        if self.retry_policy is not None:
            data["retry_policy"] = {f.name: getattr(self.retry_policy, f.name) for f in fields(RetryPolicy)}
        for name in _TIME_FIELDS:
            data[name] = None if data[name] is None else data[name].isoformat()
        for name in ("status", "wait_reason", "on_dependency_failure"):
            data[name] = None if data[name] is None else data[name].value
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            InvalidJobError: a field is missing, unknown, or cannot be read.
        """
        if not isinstance(data, Mapping):
            raise InvalidJobError("job", f"must be what Job.to_dict() returned, not {shown(data)}")
        unlike = set(data) ^ set(_JOB_FIELDS)
        if unlike:
            raise InvalidJobError(min(unlike), "this field is missing or unknown; pass what Job.to_dict() returned")
        values = dict(data)
        try:
            values["priority"] = JobPriority.parse(data["priority"])
            values["status"] = JobStatus(data["status"])
            values["wait_reason"] = data["wait_reason"] and WaitReason(data["wait_reason"])
            values["on_dependency_failure"] = DependencyFailurePolicy(data["on_dependency_failure"])
            values["tags"], values["dependencies"] = _texts(data["tags"]), _texts(data["dependencies"])
            values["error"] = data["error"] and JobError(**data["error"])
            values["retry_policy"] = data["retry_policy"] and RetryPolicy(**data["retry_policy"])
            values["attempts"] = tuple(_attempt_from_dict(attempt) for attempt in data["attempts"])
            for name in _TIME_FIELDS:
                values[name] = data[name] and datetime.fromisoformat(data[name])
            values["created_at"] = datetime.fromisoformat(data["created_at"])
            values["updated_at"] = datetime.fromisoformat(data["updated_at"])
        except (TypeError, ValueError, KeyError) as exc:
            raise InvalidJobError("job", f"{exc}; pass what Job.to_dict() returned") from exc
        return cls(**values)


class JobOptions(TypedDict, total=False):
    """What may be said about a new job besides its name; every key is optional.

    Attributes:
        job_id: an id of your own: a letter or digit, then up to 63 letters, digits, ``.``, ``_``, ``:`` or ``-``.
            Default: a time-ordered UUIDv7.
        description: free text, up to 10,000 characters.
        payload: the handler's input: anything with a JSON form. Default: ``{}``.
        handler: the registered function, or its name. Default: the one registered under the job's name.
        queue: where it waits: like an id, up to 64 characters. Default: ``"default"``.
        priority: a `JobPriority`, or its name. Default: medium.
        tags: up to 50 texts of up to 100 characters.
        metadata: your own JSON object, kept with the job.
        max_retries: retries after the first try, >= 0. Default: from the settings (0).
        retry_delay: seconds before a retry, >= 0. Default: from the settings (1).
        retry_policy: a `RetryPolicy`, instead of `retry_delay`.
        timeout: seconds of running time an attempt may take, > 0; None: no limit. Default: from the settings (None).
        max_recoveries: worker deaths in a row it may suffer, >= 0; None: no limit. Default: from the settings (5).
        dependencies: ids of jobs that must complete first. In a batch, also positions in the batch.
        on_dependency_failure: ``"cancel"`` (default), ``"wait"`` or ``"run"``.
        auto_start: queue it at once, or wait for `start_job`. Default: False, and True through `OpenAgentsApp`.
        run_at: an aware datetime, or ISO text with an offset, before which it does not start.
        delay: seconds before which it does not start, instead of `run_at`.
    """

    job_id: str | None
    description: str
    payload: Any
    handler: Callable[..., Any] | str | None
    queue: str
    priority: JobPriority | str
    tags: Sequence[str]
    metadata: Mapping[str, Any]
    max_retries: int
    retry_delay: float
    retry_policy: RetryPolicy | None
    timeout: float | None
    max_recoveries: int | None
    dependencies: Sequence[str | int]
    on_dependency_failure: DependencyFailurePolicy | str
    auto_start: bool
    run_at: datetime | str | None
    delay: float | None


class BatchJob(JobOptions, total=False):
    """One job of a batch: the options, and its name."""

    name: Required[str]


_JOB_FIELDS = tuple(field.name for field in fields(Job))
_TIME_FIELDS = ("run_at", "created_at", "updated_at", "started_at", "completed_at")


def _error_to_dict(error: JobError | None) -> dict[str, str] | None:
    if error is None:
        return None
    return {"type": error.type, "message": error.message, "traceback": error.traceback}


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        msg = f"{shown(value)} is not a list of texts"
        raise TypeError(msg)
    return tuple(value)


def _attempt_from_dict(data: dict[str, Any]) -> Attempt:
    return Attempt(
        number=data["number"],
        worker_id=data["worker_id"],
        started_at=datetime.fromisoformat(data["started_at"]),
        ended_at=datetime.fromisoformat(data["ended_at"]),
        outcome=AttemptOutcome(data["outcome"]),
        error=data["error"] and JobError(**data["error"]),
    )
