"""The changes a store accepts, and its answers: values, no behaviour.

A change says *what should happen*; the rules of whether it may are in `_lifecycle` and `_graph`. Durations travel as
seconds and become times by the store's own clock. Every change may be repeated when it is unknown whether it took
effect: as long as nobody else changed the job in between, the verdict (applied, or refused in the same way) is the
same, and the effect happens once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openagents_json.job.model import AttemptOutcome, JobError, JobPriority, JobStatus

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from openagents_json.errors import OpenAgentsError
    from openagents_json.job._record import JobRecord, JobSpec


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be stored."""

    spec: JobSpec
    dependencies: tuple[str, ...] = ()
    queued: bool = False
    run_at: datetime | None = None
    delay: float | None = None
    """seconds from now, instead of `run_at`"""


@dataclass(frozen=True, slots=True)
class Add:
    """Store jobs, all or none; dependencies may name each other. Answered with the jobs, in order.

    Refused with `DuplicateJobError`, `UnknownDependencyError` or `DependencyCycleError`.
    """

    jobs: tuple[NewJob, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """Queue a job that was created without being started."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Record how an attempt ended, as the holder of its lease.

    `outcome` COMPLETED takes `result`; FAILED and TIMED_OUT take `error` and end the job unless `retry_in` gives the
    seconds after which it shall be tried again.
    """

    job_id: str
    lease: str
    outcome: AttemptOutcome
    result: bytes | None = None
    error: JobError | None = None
    retry_in: float | None = None
    progress: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Record the progress a handler reported, as the holder of its lease."""

    job_id: str
    lease: str
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Release:
    """Give a job back unfinished (shutdown): noted in its recovery history, not counted as a recovery.

    Applied without effect when the job is not held under this lease (any more): then nothing is held.
    """

    job_id: str
    lease: str
    why: str


@dataclass(frozen=True, slots=True)
class Unclaim:
    """Undo a claim before the attempt began, as if it had not been made, but for the job's place among its equals.

    Without effect like `Release`.
    """

    job_id: str
    lease: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause a pending or running job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a paused job go on, or run again when nobody holds it any more."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel an unfinished job, whoever holds it."""

    job_id: str
    why: str


@dataclass(frozen=True, slots=True)
class Rerun:
    """Queue a finished job again with a fresh set of retries, and what was cancelled because of it."""

    job_id: str


@dataclass(frozen=True, slots=True)
class AddDependency:
    """Make a job that has not begun wait for another one."""

    job_id: str
    depends_on_id: str


@dataclass(frozen=True, slots=True)
class RemoveDependency:
    """Stop a job that has not begun from waiting for another one."""

    job_id: str
    depends_on_id: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a job. Answered with no jobs when there is none."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Purge:
    """Remove up to `limit` jobs that finished more than `age` seconds ago and that no unfinished job depends on.

    Answered with the removed jobs; repeated, it removes more.
    """

    age: float
    limit: int


@dataclass(frozen=True, slots=True)
class Recover:
    """Declare a worker dead, for good, known or not, and put its jobs back. Answered with those jobs.

    Repeated, it is answered with those not put back before.
    """

    worker_id: str
    why: str


Change = (
    Add
    | Start
    | Finish
    | Progress
    | Release
    | Unclaim
    | Pause
    | Resume
    | Cancel
    | Rerun
    | AddDependency
    | RemoveDependency
    | Delete
    | Purge
    | Recover
)


@dataclass(frozen=True, slots=True)
class Applied:
    """The change took effect, or had done so before, or there was nothing to do.

    Attributes:
        jobs: the jobs it is about, as they now are, the one it names first, then those changed by cascade
            (cancelled, or brought back). `Finish`, `Progress`, `Release` and `Unclaim` leave out the one they name:
            its holder knows it.
        changed: whether this very call changed anything.
        at: the time written into the job that `Finish` and its like name, by which their caller can tell what it is.
    """

    jobs: tuple[JobRecord, ...] = ()
    changed: bool = True
    at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """The change is not allowed, and nothing of it happened.

    Attributes:
        error: why; to be raised to whoever asked.
    """

    error: OpenAgentsError


Answer = Applied | Refused


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for ready jobs.

    Attributes:
        worker_id: the registered worker that will run them.
        lease: the claim's own id, new for every claim: the worker's id and a rising number. Every job claimed is
            held under it.
        limit: how many at most.
        queues: where from; the first one is emptied before the next is looked at, each in order of priority, then
            of `ready_at`.
        min_priority: leave less urgent jobs.
        exclude_handlers: leave jobs that ask for one of these handlers.
        exclude_names: leave jobs that ask for no handler and have one of these names.
        exclude_jobs: leave these jobs.
        repeated: the same claim was tried before and its fate is unknown: answer with the jobs held under its
            lease if there are any.
    """

    worker_id: str
    lease: str
    limit: int
    queues: tuple[str, ...]
    min_priority: JobPriority = JobPriority.LOW
    exclude_handlers: frozenset[str] = frozenset()
    exclude_names: frozenset[str] = frozenset()
    exclude_jobs: frozenset[str] = frozenset()
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim got.

    Attributes:
        jobs: the claimed jobs, in order. Fewer than the limit: no more were free at that moment.
        next_due_in: seconds until it is worth asking again although nothing was told by then, since a job becomes
            ready by time alone (or was locked by somebody else just now); None: no such time.
        error: `WorkerDeadError` when the worker may not claim.
    """

    jobs: tuple[JobRecord, ...] = ()
    next_due_in: float | None = None
    error: OpenAgentsError | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What `JobStore.apply` returns: an answer for each change, in order, and the claim's."""

    answers: tuple[Answer, ...] = ()
    claimed: Claimed | None = None


@dataclass(frozen=True, slots=True)
class Wakeup:
    """Something happened that a manager may wait for.

    Attributes:
        ready: jobs may have become ready.
        due_in: seconds until the next job becomes ready by time alone, when that may have changed.
        changed: ids of jobs whose status or holder changed, but for those that were just claimed; None: any may have.
    """

    ready: bool = False
    due_in: float | None = None
    changed: Collection[str] | None = ()


SORT_KEYS = ("created_at", "updated_at", "priority", "name")


@dataclass(frozen=True, slots=True)
class Query:
    """Which jobs to read, and in which order. Every filter that is set must match.

    Attributes:
        statuses: any of these.
        tags: all of these.
        created_after: inclusive.
        created_before: inclusive.
        depends_on: jobs that depend directly on this id.
        held_by: jobs a worker holds.
        sort_by: one of `SORT_KEYS`; ties are ordered by id, in the same direction.
        after: the sort value and the id of the last job of the previous page.
    """

    statuses: frozenset[JobStatus] | None = None
    tags: tuple[str, ...] = ()
    name: str | None = None
    queue: str | None = None
    batch_id: str | None = None
    priority: JobPriority | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    depends_on: str | None = None
    held_by: str | None = None
    sort_by: str = "created_at"
    descending: bool = True
    limit: int | None = None
    offset: int = 0
    after: tuple[object, str] | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    """A process (or one manager of it) that runs jobs.

    Attributes:
        worker_id: fresh at every start.
        silence_limit: the seconds it promises not to be silent for.
        host: the machine's name.
        boot_id: changes when the machine is started; empty where unknown.
        pid_namespace: in which `pid` means something; empty where unknown.
        pid: its process.
        pid_started: when that process started, in the system's own units: tells a reused pid; empty where unknown.
    """

    worker_id: str
    silence_limit: float
    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    pid: int = 0
    pid_started: str = ""


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker that has not been declared dead, as the store sees it.

    Attributes:
        worker: who it is.
        beats: how many beats it has sent; an unchanged number between two looks means silence.
        silent_for: seconds since its last beat, by the store's clock.
    """

    worker: Worker
    beats: int
    silent_for: float
