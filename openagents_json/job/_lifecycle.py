"""The state machine of a job: pure functions from (job, change, now) to the job after it.

::

    from              to                 by
    -                 pending            `new`
    pending           pending            `start`, `dependencies_changed`
    pending           running            `claim` (undone by `unclaim`)
    running, paused*  completed, failed  `finish` (`recover`: too often in a row)
    running           pending            `finish` with a retry left, `release`, `recover`
    paused*           paused             the same three: it loses its holder and waits to be resumed
    pending, running  paused             `pause`
    paused            running, pending   `resume` (running while it is held*)
    pending, running, paused  cancelled  `cancel`
    failed, cancelled, completed  pending  `rerun`

    * held by a worker

Each function returns the job it was given when nothing is to be done, and raises the refusal where the change is
not allowed; stores turn that into an answer. Nothing here does I/O, reads a clock, or looks at other jobs: what
dependencies do to a job is decided in `_graph` and handed in.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from openagents_json.errors import InvalidTransitionError, LeaseLostError
from openagents_json.job._record import JobRecord, Recovery
from openagents_json.job.model import Attempt, AttemptOutcome, JobError, JobStatus
from openagents_json.job.retry import RetryPolicy

if TYPE_CHECKING:
    from datetime import datetime

    from openagents_json.job._changes import Cancel, Claim, Finish, NewJob, Progress

#: How many ended attempts, and how many recoveries, a job remembers.
HISTORY_LENGTH = 50

#: The first recovery of a job is immediate; later ones in a row wait, so that a job which kills its worker parts
#: from the innocent jobs that were with it.
_RECOVERY_BACKOFF = RetryPolicy.exponential(1.0, max_delay=60.0, jitter=0.5)

_PENDING, _RUNNING, _PAUSED = JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED
CANCELLED = JobStatus.CANCELLED


def new(job: NewJob, unmet: int, now: datetime) -> JobRecord:
    """Make the record of a new job that waits for `unmet` dependencies."""
    run_at = job.run_at if job.delay is None else now + timedelta(seconds=job.delay)
    return JobRecord(
        spec=job.spec,
        created_at=now,
        updated_at=now,
        version=1,
        status=_PENDING,
        queued=job.queued,
        dependencies=job.dependencies,
        unmet=unmet,
        run_at=run_at,
        ready_at=_ready_at(now, queued=job.queued, unmet=unmet, run_at=run_at),
    )


def start(job: JobRecord, now: datetime) -> JobRecord:
    """Queue a job that was created without being started; no effect on one that is queued or running."""
    if job.status not in {_PENDING, _RUNNING}:
        remedy = "resume_job() lets it go on" if job.status is _PAUSED else "retry_job() would run it again"
        raise _refusal(job, "start", remedy)
    if job.queued:
        return job
    return _waiting(job, now, queued=True)


def claim(job: JobRecord, claim: Claim, now: datetime) -> JobRecord:
    """Hand a ready job to a worker."""
    return job._replace(
        updated_at=now,
        version=job.version + 1,
        status=_RUNNING,
        ready_at=None,
        started_at=now,
        attempt=job.attempt + 1,
        lease=claim.lease,
        worker_id=claim.worker_id,
        progress=0.0,
        progress_message="",
    )


def unclaim(job: JobRecord, lease: str, now: datetime) -> JobRecord:
    """Undo a claim whose attempt never began; a job held under another lease is left alone."""
    if job.lease != lease:
        return job
    last = job.attempts[-1] if job.attempts else None
    return _let_go(
        job,
        now,
        attempt=job.attempt - 1,
        started_at=last and last.started_at,
        worker_id=last and last.worker_id,
    )


def finish(job: JobRecord, change: Finish, now: datetime) -> JobRecord:
    """Record the outcome of the attempt that holds the job: completed, failed, or to be retried."""
    if job.lease != change.lease:
        if job.finished_lease == change.lease:
            return job
        raise LeaseLostError(job.job_id, change.lease)
    fraction, message = change.progress or (job.progress, job.progress_message)
    ending: dict[str, Any] = {
        "finished_lease": change.lease,
        "recoveries": 0,
        "progress": fraction,
        "progress_message": message,
        "error": change.error,
        "attempts": _with_attempt(job, change.outcome, change.error, now),
    }
    if change.outcome is AttemptOutcome.COMPLETED:
        return _over(job, JobStatus.COMPLETED, now, **ending | {"result": change.result, "progress": 1.0})
    if change.retry_in is None:
        return _over(job, JobStatus.FAILED, now, **ending)
    retry = {"retry_count": job.retry_count + 1, "run_at": now + timedelta(seconds=change.retry_in)}
    return _let_go(job, now, **ending | retry)


def progress(job: JobRecord, change: Progress, now: datetime) -> JobRecord:
    """Record how far the attempt that holds the job has come."""
    if job.lease != change.lease:
        raise LeaseLostError(job.job_id, change.lease)
    return job._replace(
        updated_at=now, version=job.version + 1, progress=change.fraction, progress_message=change.message
    )


def pause(job: JobRecord, now: datetime) -> JobRecord:
    """Pause a job; its holder, if any, keeps it."""
    if job.status is _PAUSED:
        return job
    if job.status.finished:
        raise _refusal(job, "pause", "only pending and running jobs can be paused")
    return job._replace(updated_at=now, version=job.version + 1, status=_PAUSED, ready_at=None)


def resume(job: JobRecord, now: datetime) -> JobRecord:
    """Let a paused job go on where it is held, else wait for a worker; no effect on one that is not paused."""
    if job.status.finished:
        raise _refusal(job, "resume", "retry_job() would run it again")
    if job.status is not _PAUSED:
        return job
    if job.lease is not None:
        return job._replace(updated_at=now, version=job.version + 1, status=_RUNNING)
    return _waiting(job, now)


def cancel(job: JobRecord, change: Cancel, now: datetime) -> JobRecord:
    """End a job for good because somebody asked for it."""
    if job.status is CANCELLED:
        return job
    if job.status.finished:
        raise _refusal(job, "cancel", "only unfinished jobs can be cancelled")
    return end_by(job, CANCELLED, JobError("Cancelled", change.why), now)


def end_by(job: JobRecord, status: JobStatus, error: JobError, now: datetime, *, by: str | None = None) -> JobRecord:
    """End an unfinished job from outside: cancelled, or failed; `by` is the dependency that took it along."""
    attempts = job.attempts
    if job.lease is not None:
        attempts = _with_attempt(job, AttemptOutcome.CANCELLED, error, now)
    return _over(job, status, now, error=error, attempts=attempts, cancelled_by=by)


def rerun(job: JobRecord, unmet: int, now: datetime) -> JobRecord:
    """Queue a finished job again, with a fresh set of retries; no effect on one that is queued."""
    if job.status is _PENDING and job.queued:
        return job
    if not job.status.finished:
        remedy = "start_job() queues it" if job.status is _PENDING else "cancel_job() it first"
        raise _refusal(job, "retry", remedy)
    return revive(job, unmet, now, queued=True, run_at=None)


def revive(job: JobRecord, unmet: int, now: datetime, *, queued: bool, run_at: datetime | None) -> JobRecord:
    """Bring a finished job back to pending, as new but for its history."""
    return _waiting(
        job,
        now,
        queued=queued,
        unmet=unmet,
        run_at=run_at,
        completed_at=None,
        retry_count=0,
        recoveries=0,
        progress=0.0,
        progress_message="",
        result=None,
        error=None,
        cancelled_by=None,
    )


def release(job: JobRecord, lease: str, why: str, now: datetime) -> JobRecord:
    """Give a job back unfinished, at its holder's wish; one held under another lease is left alone."""
    if job.lease != lease:
        return job
    return _let_go(
        job,
        now,
        attempts=_with_attempt(job, AttemptOutcome.INTERRUPTED, JobError("Interrupted", why), now),
        recovery_history=_with_recovery(job, why, now),
    )


def recover(job: JobRecord, why: str, now: datetime) -> JobRecord:
    """Take a job from a worker that died, or end it after too many such deaths in a row."""
    error = JobError("Interrupted", why)
    held = job._replace(
        recoveries=job.recoveries + 1,
        attempts=_with_attempt(job, AttemptOutcome.INTERRUPTED, error, now),
        recovery_history=_with_recovery(job, why, now),
    )
    limit = job.spec.max_recoveries
    if limit is not None and held.recoveries > limit:
        error = JobError("TooManyRecoveries", f"its worker died {held.recoveries} times in a row, last: {why}")
        return _over(held, JobStatus.FAILED, now, error=error)
    delay = recovery_delay(job.job_id, held.recoveries)
    run_at = now + timedelta(seconds=delay) if delay else None
    return _let_go(held, now, run_at=run_at)


def recovery_delay(job_id: str, recoveries: int) -> float:
    """Compute the seconds a job waits after its n-th recovery in a row; the jitter follows from its id."""
    if recoveries <= 1:
        return 0.0
    digest = hashlib.blake2b(f"{job_id}:{recoveries}".encode(), digest_size=4).digest()
    return _RECOVERY_BACKOFF.delay_before(recoveries - 1, int.from_bytes(digest) / 2**32)


def dependencies_changed(job: JobRecord, dependencies: tuple[str, ...], unmet: int, now: datetime) -> JobRecord:
    """Let a job wait for other dependencies than before, or for fewer or more of them."""
    if job.status is _PENDING:
        return _waiting(job, now, dependencies=dependencies, unmet=unmet)
    return job._replace(updated_at=now, version=job.version + 1, dependencies=dependencies, unmet=unmet)


def refuse_edge_change(job: JobRecord, action: str) -> None:
    """Refuse to change what a job depends on once it has begun, or is over."""
    if job.lease is not None or job.status.finished:
        raise _refusal(job, action, "only jobs that wait can change what they depend on")


def refuse_delete(job: JobRecord) -> None:
    """Refuse to delete a job that a worker holds."""
    if job.lease is not None:
        raise _refusal(job, "delete", "cancel_job() it first")


def _refusal(job: JobRecord, action: str, remedy: str) -> InvalidTransitionError:
    return InvalidTransitionError(job.job_id, job.status.value, action, remedy)


def _let_go(job: JobRecord, now: datetime, **changes: Any) -> JobRecord:
    """Take the job from its holder: pending again, or paused with nobody holding it."""
    if job.status is _PAUSED:
        return job._replace(updated_at=now, version=job.version + 1, lease=None, **changes)
    return _waiting(job, now, lease=None, **changes)


def _over(job: JobRecord, status: JobStatus, now: datetime, **changes: Any) -> JobRecord:
    return job._replace(
        updated_at=now,
        version=job.version + 1,
        status=status,
        lease=None,
        ready_at=None,
        completed_at=now,
        **changes,
    )


def _waiting(job: JobRecord, now: datetime, **changes: Any) -> JobRecord:
    """Make the job pending, ready at the time that follows from what it waits for."""
    changed = job._replace(
        updated_at=now,
        version=job.version + 1,
        status=_PENDING,
        **changes,
    )
    ready_at = _ready_at(now, queued=changed.queued, unmet=changed.unmet, run_at=changed.run_at)
    if job.ready_at is not None and ready_at is not None and changed.run_at == job.run_at:
        ready_at = job.ready_at  # it was ready already: it keeps its place
    return changed if changed.ready_at == ready_at else changed._replace(ready_at=ready_at)


def _ready_at(now: datetime, *, queued: bool, unmet: int, run_at: datetime | None) -> datetime | None:
    if not queued or unmet:
        return None
    return now if run_at is None or run_at < now else run_at


def _with_attempt(
    job: JobRecord, outcome: AttemptOutcome, error: JobError | None, now: datetime
) -> tuple[Attempt, ...]:
    ended = Attempt(job.attempt, job.worker_id or "", job.started_at or now, now, outcome, error)
    return (*job.attempts, ended)[-HISTORY_LENGTH:]


def _with_recovery(job: JobRecord, why: str, now: datetime) -> tuple[Recovery, ...]:
    return (*job.recovery_history, Recovery(now, why, job.worker_id or "", job.attempt))[-HISTORY_LENGTH:]
