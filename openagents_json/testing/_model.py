"""What a job store must hold: the contract's words as a small dict model, with no index and no cleverness.

The model says of each change whether it may happen and what it does, by looking at all jobs each time. Where the
contract leaves the store a choice (which of several equal jobs a claim gets, how long a job waits after its second
recovery, what a purge removes first) it takes what the store chose and checks that it might. It shares no code with
`_lifecycle`, `_graph` or any store, or it would share their mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from openagents_json.errors import (
    DependencyCycleError,
    DuplicateJobError,
    InvalidTransitionError,
    JobInUseError,
    JobNotFoundError,
    LeaseLostError,
    OpenAgentsError,
    UnknownDependencyError,
    WorkerDeadError,
)
from openagents_json.job._changes import (
    Add,
    AddDependency,
    Applied,
    Cancel,
    Change,
    Delete,
    Finish,
    Pause,
    Progress,
    Purge,
    Recover,
    Refused,
    Release,
    RemoveDependency,
    Rerun,
    Resume,
    Start,
    Unclaim,
)
from openagents_json.job.model import AttemptOutcome, DependencyFailurePolicy, JobError, JobStatus, WaitReason

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from openagents_json.job._changes import Answer, Claim, Claimed, NewJob, Query
    from openagents_json.job._record import JobRecord, JobSpec

_PENDING, _RUNNING, _PAUSED = JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED
_COMPLETED, _FAILED, _CANCELLED = JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED
FINISHED = frozenset({_COMPLETED, _FAILED, _CANCELLED})
_BROKEN = frozenset({_FAILED, _CANCELLED})

#: Where a change is allowed; in the last of the two sets it finds its work done and changes nothing.
_FROM: dict[type[Change], tuple[frozenset[JobStatus], frozenset[JobStatus]]] = {
    Start: (frozenset({_PENDING}), frozenset({_RUNNING})),
    Pause: (frozenset({_PENDING, _RUNNING}), frozenset({_PAUSED})),
    Resume: (frozenset({_PAUSED}), frozenset({_PENDING, _RUNNING})),
    Cancel: (frozenset({_PENDING, _RUNNING, _PAUSED}), frozenset({_CANCELLED})),
    Rerun: (FINISHED, frozenset()),
}

#: Errors whose text is the store's own; the model knows that they must be there.
_OWN_WORDS = frozenset({"DependencyFailed", "TooManyRecoveries"})

#: No recovery is put off for longer.
_LONGEST_RECOVERY_DELAY = timedelta(hours=1)


@dataclass(slots=True)
class ModelJob:
    """A job as it must be. Fields that are named like those of `JobRecord` mean the same."""

    spec: JobSpec
    created_at: datetime
    queued: bool
    dependencies: list[str]
    run_at: datetime | None
    unmet: int = 0
    status: JobStatus = _PENDING
    ready_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    attempt: int = 0
    retry_count: int = 0
    recoveries: int = 0
    lease: str | None = None
    worker_id: str | None = None
    finished_lease: str | None = None
    progress: float = 0.0
    progress_message: str = ""
    result: bytes | None = None
    error: JobError | None = None
    attempts: list[tuple[object, ...]] = field(default_factory=list)
    recovery_history: list[tuple[object, ...]] = field(default_factory=list)
    cancelled_with_dependency: bool = False
    before_claim: tuple[datetime | None, str | None] = (None, None)
    """`started_at` and `worker_id`, for an undone claim"""
    edits: int = 0
    """rises when the store may write the job"""

    @property
    def finished(self) -> bool:
        """Whether it is over."""
        return self.status in FINISHED

    @property
    def policy(self) -> DependencyFailurePolicy:
        """What becomes of it if a dependency fails."""
        return self.spec.on_dependency_failure


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the answer to a change must be.

    Attributes:
        refusals: where not empty, it is refused with one of these errors, and nothing has happened.
        named: the jobs the answer begins with.
        others: the jobs that follow in it, in any order.
        changed: whether anything changed; None: the contract does not say.
        edges: what a cycle named by the error must consist of.
    """

    refusals: frozenset[type[OpenAgentsError]] = frozenset()
    named: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    changed: bool | None = True
    edges: Mapping[str, Collection[str]] = field(default_factory=dict)

    def check_refusal(self, error: OpenAgentsError) -> None:
        """Check the error that a change was refused with."""
        assert type(error) in self.refusals, f"{error!r}, but the model says {self}"
        if isinstance(error, DependencyCycleError):
            assert error.cycle[0] == error.cycle[-1]
            assert all(there in self.edges[here] for here, there in pairwise(error.cycle)), f"{error.cycle} is no cycle"


class Model:
    """All jobs and workers of one store, as they must be.

    Attributes:
        jobs: by id, in the order they were created.
        workers: those that may claim.
        dead: those declared dead.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, ModelJob] = {}
        self.workers: set[str] = set()
        self.dead: set[str] = set()
        self._now = datetime.min.replace(tzinfo=UTC)

    def copy(self) -> Model:
        """Give a model that goes on from here by itself."""
        other = Model()
        other.workers, other.dead = set(self.workers), set(self.dead)
        for name, job in self.jobs.items():
            other.jobs[name] = replace(
                job,
                dependencies=[*job.dependencies],
                attempts=[*job.attempts],
                recovery_history=[*job.recovery_history],
            )
        return other

    def apply(self, change: Change, answer: Answer, now: datetime) -> None:
        """Make a change, and what follows from it; check that it was answered rightly."""
        self._now = now
        verdict = self._make(change, answer.jobs if isinstance(answer, Applied) else ())
        if isinstance(answer, Refused):
            verdict.check_refusal(answer.error)
            return
        assert not verdict.refusals, f"{change} was applied, but the model says {verdict}"
        cancelled = self._cancel_with_dependencies()
        self._update_waiting()
        assert verdict.changed in {None, answer.changed}
        names = [job.job_id for job in answer.jobs]
        assert (*names[: len(verdict.named)],) == verdict.named, f"{names} are shown, the model says {verdict}"
        others = (verdict.others | cancelled) - {*verdict.named}
        assert sorted(names[len(verdict.named) :]) == sorted(others), f"{names} are shown, and not {others}"
        for job in answer.jobs:
            assert job.job_id not in self.jobs or job.status is self.jobs[job.job_id].status

    def claim(self, claim: Claim, claimed: Claimed, now: datetime) -> None:
        """Check what a claim got, and hand it out."""
        self._now = now
        assert all(job.lease == claim.lease and job.worker_id == claim.worker_id for job in claimed.jobs)
        got = [job.job_id for job in claimed.jobs]
        if claim.worker_id not in self.workers:
            assert isinstance(claimed.error, WorkerDeadError), "only a living worker may claim"
            assert not got
            return
        assert claimed.error is None
        held = {name for name, job in self.jobs.items() if job.lease == claim.lease}
        if claim.repeated and held:
            assert sorted(got) == sorted(held), "a repeated claim gets what it got before"
        else:
            self._hand_out(claim, got)
        due = min((job.ready_at for job in self.jobs.values() if job.ready_at and job.ready_at > now), default=None)
        wait = None if due is None else (due - now).total_seconds()
        told = claimed.next_due_in
        if wait is None:
            assert told is None or claim.repeated, "no job is due"
        else:
            assert told is not None, f"the next job is due in {wait} seconds"
            assert told < wait + 0.001, f"the next job is due in {wait} seconds"
            assert told > wait - 0.001 or claim.repeated, f"the next job is due in {wait} seconds"

    def compare(self, records: Iterable[JobRecord], now: datetime) -> None:
        """Check that a store's jobs are these and no others, each as it must be."""
        self._now = now
        names = set()
        for record in records:
            names.add(record.job_id)
            job = self.jobs.get(record.job_id)
            assert job is not None, f"{record.job_id} came back"
            facts, shown = self._facts(job), _comparable(record)
            assert {field: shown[field] for field in facts} == facts, f"{record.job_id} is not what it must be"
            assert record.to_job(self._now).wait_reason is self._wait_reason(job)
            self._check_blame(job, record)
        assert names == self.jobs.keys(), "a job was lost"

    def ready(self) -> list[str]:
        """List the jobs that could be claimed when the model was last used."""
        return [name for name, job in self.jobs.items() if job.ready_at is not None and job.ready_at <= self._now]

    def holders(self) -> dict[str, set[str]]:
        """Tell which jobs each worker holds."""
        holders: dict[str, set[str]] = {name: set() for name in self.workers | self.dead}
        for name, job in self.jobs.items():
            if job.lease is not None and job.worker_id is not None:
                holders[job.worker_id].add(name)
        return holders

    def _facts(self, job: ModelJob) -> dict[str, Any]:
        """Give the fields a job's record must have."""
        facts = {name: getattr(job, name) for name in _SAME_AS_RECORD}
        facts["dependencies"], facts["attempts"] = tuple(job.dependencies), tuple(job.attempts)
        facts["recovery_history"] = tuple(job.recovery_history)
        if not job.finished:
            facts["unmet"] = job.unmet
        return facts

    def _wait_reason(self, job: ModelJob) -> WaitReason | None:
        if job.status is not _PENDING:
            return None
        if not job.queued:
            return WaitReason.START
        if job.unmet:
            return WaitReason.DEPENDENCIES
        return WaitReason.TIME if job.run_at is not None and job.run_at > self._now else WaitReason.WORKER

    def _check_blame(self, job: ModelJob, record: JobRecord) -> None:
        """A job that was cancelled with a dependency says with which."""
        if not job.cancelled_with_dependency:
            assert record.cancelled_by is None
            return
        blamable = {name for name in job.dependencies if name in self.jobs and self.jobs[name].status in _BROKEN}
        if not self.jobs.keys() >= {*job.dependencies}:
            blamable = {*job.dependencies}  # the deleted one may be the reason, or what kept the job from coming back
        assert record.cancelled_by in blamable
        assert record.error is not None
        assert repr(record.cancelled_by) in record.error.message, "the error names the dependency"

    def _make(self, change: Change, answered: Sequence[JobRecord]) -> Verdict:  # noqa: PLR0911 - one for each kind
        match change:
            case Add():
                return self._add(change)
            case Purge():
                return self._purge(change, [job.job_id for job in answered])
            case Recover():
                return self._recover(change, {job.job_id: job.run_at for job in answered})
            case Delete():
                return self._delete(change.job_id)
            case _:
                pass
        job = self.jobs.get(change.job_id)
        if job is None:
            return _of_nobody(change)
        match change:
            case AddDependency():
                return self._add_dependency(job, change.depends_on_id)
            case RemoveDependency():
                return self._remove_dependency(job, change.depends_on_id)
            case Finish() | Progress() | Release() | Unclaim():
                return self._written_by_holder(job, change)
            case _:
                return self._asked_for(job, change)

    def _add(self, change: Add) -> Verdict:
        names = [new.spec.job_id for new in change.jobs]
        known = [self.jobs[name] for name in names if name in self.jobs]
        if known and all(job.spec.request_id == change.jobs[0].spec.request_id for job in known):
            return Verdict(named=tuple(job.spec.job_id for job in known), changed=False)
        edges = self._edges() | {new.spec.job_id: new.dependencies for new in change.jobs}
        refusals: set[type[OpenAgentsError]] = set()
        if known or len(set(names)) < len(names):
            refusals.add(DuplicateJobError)
        if any(dependency not in edges for new in change.jobs for dependency in new.dependencies):
            refusals.add(UnknownDependencyError)
        if any(_leads_back(name, edges) for name in names):
            refusals.add(DependencyCycleError)
        if refusals:
            return Verdict(frozenset(refusals), edges=edges)
        for new in change.jobs:
            self.jobs[new.spec.job_id] = self._new(new)
        return Verdict(named=tuple(names))

    def _new(self, new: NewJob) -> ModelJob:
        run_at = new.run_at if new.delay is None else self._now + timedelta(seconds=new.delay)
        return ModelJob(new.spec, self._now, new.queued, list(new.dependencies), run_at)

    def _purge(self, change: Purge, removed: list[str]) -> Verdict:
        limit = self._now - timedelta(seconds=change.age)
        old = {name for name, job in self.jobs.items() if job.completed_at is not None and job.completed_at < limit}
        old = {name for name in old if not self._unfinished_dependents(name)}
        assert len(set(removed)) == len(removed)
        assert old.issuperset(removed), "a purge removes only old jobs that nobody needs"
        assert len(removed) == min(change.limit, len(old)), "a purge removes as many as it may"
        for name in removed:
            del self.jobs[name]
        return Verdict(named=tuple(removed), changed=bool(removed))

    def _recover(self, change: Recover, chosen: Mapping[str, datetime | None]) -> Verdict:
        self.workers.discard(change.worker_id)
        self.dead.add(change.worker_id)
        held = {name: job for name, job in self.jobs.items() if job.lease and job.worker_id == change.worker_id}
        for name, job in held.items():
            self._interrupt(job, change.why)
            job.recoveries += 1
            if job.spec.max_recoveries is not None and job.recoveries > job.spec.max_recoveries:
                self._end(job, _FAILED, JobError("TooManyRecoveries", ""))
                continue
            self._let_go(job)
            job.run_at = chosen.get(name)
            if job.recoveries == 1:
                assert job.run_at is None, "the first recovery is immediate"
            else:
                assert job.run_at is not None, "later recoveries back off"
                assert timedelta(0) < job.run_at - self._now <= _LONGEST_RECOVERY_DELAY
        return Verdict(others=frozenset(held), changed=True if held else None)

    def _delete(self, job_id: str) -> Verdict:
        job = self.jobs.get(job_id)
        if job is None:
            return Verdict(changed=False)
        refusals: set[type[OpenAgentsError]] = set()
        if job.lease is not None:
            refusals.add(InvalidTransitionError)
        if self._unfinished_dependents(job_id):
            refusals.add(JobInUseError)
        if refusals:
            return Verdict(frozenset(refusals))
        del self.jobs[job_id]
        return Verdict(named=(job_id,))

    def _add_dependency(self, job: ModelJob, depends_on_id: str) -> Verdict:
        job_id = job.spec.job_id
        if depends_on_id in job.dependencies:
            return Verdict(named=(job_id,), changed=False)
        edges = self._edges() | {job_id: (*job.dependencies, depends_on_id)}
        refusals: set[type[OpenAgentsError]] = set()
        if job.lease is not None or job.finished:
            refusals.add(InvalidTransitionError)
        if depends_on_id not in self.jobs:
            refusals.add(UnknownDependencyError)
        if _leads_back(job_id, edges):
            refusals.add(DependencyCycleError)
        if refusals:
            return Verdict(frozenset(refusals), edges=edges)
        job.dependencies.append(depends_on_id)
        job.edits += 1
        return Verdict(named=(job_id,))

    def _remove_dependency(self, job: ModelJob, depends_on_id: str) -> Verdict:
        if depends_on_id not in job.dependencies:
            return Verdict(named=(job.spec.job_id,), changed=False)
        if job.lease is not None or job.finished:
            return _refused(InvalidTransitionError)
        job.dependencies.remove(depends_on_id)
        job.edits += 1
        return Verdict(named=(job.spec.job_id,))

    def _written_by_holder(self, job: ModelJob, change: Finish | Progress | Release | Unclaim) -> Verdict:
        if job.lease != change.lease:
            again = isinstance(change, Finish) and job.finished_lease == change.lease
            harmless = again or isinstance(change, Release | Unclaim)
            return Verdict(changed=False) if harmless else _refused(LeaseLostError)
        job.edits += 1
        match change:
            case Progress():
                job.progress, job.progress_message = change.fraction, change.message
            case Release():
                self._interrupt(job, change.why)
                self._let_go(job)
            case Unclaim():
                job.attempt -= 1
                job.started_at, job.worker_id = job.before_claim
                self._let_go(job)
            case Finish():
                self._finish(job, change)
        return Verdict()

    def _finish(self, job: ModelJob, change: Finish) -> None:
        job.finished_lease, job.recoveries = change.lease, 0
        if change.progress is not None:
            job.progress, job.progress_message = change.progress
        self._end_attempt(job, change.outcome)
        if change.outcome is AttemptOutcome.COMPLETED:
            job.result, job.progress = change.result, 1.0
            self._end(job, _COMPLETED, None)
        elif change.retry_in is None:
            self._end(job, _FAILED, change.error)
        else:
            job.error, job.retry_count = change.error, job.retry_count + 1
            job.run_at = self._now + timedelta(seconds=change.retry_in)
            self._let_go(job)

    def _asked_for(self, job: ModelJob, change: Change) -> Verdict:
        """What people and programs ask for: start, pause, resume, cancel, retry."""
        effective, done = _FROM[type(change)]
        if job.queued and isinstance(change, Start | Rerun):
            done, effective = done | {_PENDING}, effective - {_PENDING}
        named = (job.spec.job_id,)
        if job.status in done:
            return Verdict(named=named, changed=False)
        if job.status not in effective:
            return _refused(InvalidTransitionError)
        if isinstance(change, Rerun) and not self._may_wait(job):
            return _refused(InvalidTransitionError)
        job.edits += 1
        match change:
            case Start():
                job.queued = True
            case Pause():
                job.status = _PAUSED
            case Resume():
                job.status = _PENDING if job.lease is None else _RUNNING
            case Cancel():
                self._cancel(job, JobError("Cancelled", change.why))
            case Rerun():
                return Verdict(named=named, others=self._bring_back(job))
            case _:
                pass
        return Verdict(named=named)

    def _bring_back(self, job: ModelJob) -> frozenset[str]:
        """Queue a job again, and what was cancelled with it and now waits for nothing that failed."""
        _renew(job, queued=True, run_at=None)
        back = {job.spec.job_id}
        while True:
            lost = [one for one in self.jobs.values() if one.cancelled_with_dependency and back & {*one.dependencies}]
            for left in lost:
                left.edits += 1  # where it stays cancelled, the store may name another dependency as the reason
            found = [left for left in lost if self._may_wait(left)]
            if not found:
                return frozenset(back)
            for left in found:
                _renew(left, queued=left.queued, run_at=left.run_at)
                back.add(left.spec.job_id)

    def _hand_out(self, claim: Claim, got: list[str]) -> None:
        def rank(job: ModelJob) -> tuple[int, int, datetime | None]:
            return claim.queues.index(job.spec.queue), -job.spec.priority, job.ready_at

        ready = {
            name: rank(job)
            for name, job in self.jobs.items()
            if job.ready_at is not None
            and job.ready_at <= self._now
            and job.spec.queue in claim.queues
            and job.spec.priority >= claim.min_priority
            and job.spec.handler not in claim.exclude_handlers
            and (job.spec.handler or job.spec.name not in claim.exclude_names)
            and name not in claim.exclude_jobs
        }
        assert len(set(got)) == len(got), "a job is handed out once"
        assert ready.keys() >= set(got), f"claimed {got}, ready are {ready}"
        best = sorted(ready.values())[: claim.limit]
        assert [ready[name] for name in got] == best, f"claimed {got}, ready are {ready}"
        for job in [self.jobs[name] for name in got]:
            job.before_claim = job.started_at, job.worker_id
            job.status, job.lease, job.worker_id = _RUNNING, claim.lease, claim.worker_id
            job.started_at, job.attempt = self._now, job.attempt + 1
            job.progress, job.progress_message, job.ready_at = 0.0, "", None
            job.edits += 1

    def _cancel_with_dependencies(self) -> frozenset[str]:
        """Cancel every unfinished job that must not outlive a dependency, until none is left."""
        cancelled: set[str] = set()
        while True:
            doomed = [job for job in self.jobs.values() if not job.finished and self._broken(job)]
            if not doomed:
                return frozenset(cancelled)
            for job in doomed:
                self._cancel(job, JobError("DependencyFailed", ""))
                job.cancelled_with_dependency = True
                cancelled.add(job.spec.job_id)

    def _update_waiting(self) -> None:
        """Count anew what each job waits for, and note since when, or until when, it waits for nothing but that."""
        for job in self.jobs.values():
            unmet = self._unmet(job)
            job.edits += unmet != job.unmet
            job.unmet = unmet
            if job.status is not _PENDING or not job.queued or unmet:
                job.ready_at = None
            elif job.ready_at is None:
                job.ready_at = self._now if job.run_at is None else max(self._now, job.run_at)

    def _unmet(self, job: ModelJob) -> int:
        met = FINISHED if job.policy is DependencyFailurePolicy.RUN else {_COMPLETED}
        return sum(name not in self.jobs or self.jobs[name].status not in met for name in job.dependencies)

    def _broken(self, job: ModelJob) -> bool:
        """Whether a dependency's failure must take the job along."""
        states = (self.jobs[name].status for name in job.dependencies if name in self.jobs)
        return job.policy is DependencyFailurePolicy.CANCEL and any(status in _BROKEN for status in states)

    def _may_wait(self, job: ModelJob) -> bool:
        """Whether a finished job could be pending again: all it waits for is there and has not failed it."""
        return self.jobs.keys() >= set(job.dependencies) and not self._broken(job)

    def _unfinished_dependents(self, job_id: str) -> bool:
        return any(job_id in job.dependencies and not job.finished for job in self.jobs.values())

    def _edges(self) -> dict[str, Sequence[str]]:
        return {name: job.dependencies for name, job in self.jobs.items()}

    def _end(self, job: ModelJob, status: JobStatus, error: JobError | None) -> None:
        job.status, job.error, job.lease, job.completed_at = status, error, None, self._now
        job.edits += 1

    def _cancel(self, job: ModelJob, error: JobError) -> None:
        if job.lease is not None:
            self._end_attempt(job, AttemptOutcome.CANCELLED)
        self._end(job, _CANCELLED, error)

    def _let_go(self, job: ModelJob) -> None:
        """Nobody holds it any more: it is pending, or stays paused."""
        job.lease = None
        job.status = _PAUSED if job.status is _PAUSED else _PENDING
        job.edits += 1

    def _interrupt(self, job: ModelJob, why: str) -> None:
        job.recovery_history.append((self._now, why, job.worker_id, job.attempt))
        self._end_attempt(job, AttemptOutcome.INTERRUPTED)

    def _end_attempt(self, job: ModelJob, outcome: AttemptOutcome) -> None:
        job.attempts.append((job.attempt, job.worker_id, job.started_at, self._now, outcome))


_SAME_AS_RECORD = (
    "spec", "created_at", "status", "queued", "run_at", "ready_at", "started_at", "completed_at", "attempt",
    "retry_count", "recoveries", "lease", "worker_id", "finished_lease", "progress", "progress_message", "result",
    "error",
)  # fmt: skip


def _comparable(record: JobRecord) -> dict[str, Any]:
    """Give a record's fields in the form of `Model._facts`."""
    facts: dict[str, Any] = record._asdict()
    facts["attempts"] = tuple(
        (attempt.number, attempt.worker_id, attempt.started_at, attempt.ended_at, attempt.outcome)
        for attempt in record.attempts
    )
    facts["recovery_history"] = tuple(tuple(entry) for entry in record.recovery_history)
    if record.error is not None and record.error.type in _OWN_WORDS:
        facts["error"] = JobError(record.error.type, "")
    return facts


def select(records: Iterable[JobRecord], query: Query) -> list[JobRecord]:
    """Give the records a query must match, in its order, before they are cut into pages."""
    found = [record for record in records if all(_conditions(record, query))]
    return sorted(found, key=lambda record: (sort_value(record, query), record.job_id), reverse=query.descending)


def sort_value(record: JobRecord, query: Query) -> Any:
    """Give what a query sorts a record by, before its id."""
    return getattr(record.spec if query.sort_by in {"name", "priority"} else record, query.sort_by)


def _conditions(record: JobRecord, query: Query) -> Iterable[bool]:
    spec = record.spec
    yield query.statuses is None or record.status in query.statuses
    yield set(query.tags) <= set(spec.tags)
    yield query.name in {None, spec.name}
    yield query.queue in {None, spec.queue}
    yield query.batch_id in {None, spec.batch_id}
    yield query.priority in {None, spec.priority}
    yield query.created_after is None or query.created_after <= record.created_at
    yield query.created_before is None or record.created_at <= query.created_before
    yield query.depends_on is None or query.depends_on in record.dependencies
    yield query.held_by is None or (record.lease is not None and record.worker_id == query.held_by)


def _refused(error: type[OpenAgentsError]) -> Verdict:
    return Verdict(frozenset({error}))


def _of_nobody(change: Change) -> Verdict:
    """What a change of a job that is not there comes to."""
    match change:
        case Release() | Unclaim():
            return Verdict(changed=False)
        case Finish() | Progress():
            return _refused(LeaseLostError)
        case _:
            return _refused(JobNotFoundError)


def _renew(job: ModelJob, *, queued: bool, run_at: datetime | None) -> None:
    """Make a finished job pending, with a fresh set of retries; its history stays."""
    job.status, job.queued, job.run_at, job.completed_at = _PENDING, queued, run_at, None
    job.retry_count = job.recoveries = 0
    job.progress, job.progress_message = 0.0, ""
    job.result = job.error = None
    job.cancelled_with_dependency = False
    job.edits += 1


def _leads_back(job_id: str, edges: Mapping[str, Collection[str]]) -> bool:
    """Tell whether a job depends on itself, directly or not."""
    seen: set[str] = set()
    frontier = list(edges[job_id])
    while frontier:
        name = frontier.pop()
        if name == job_id:
            return True
        if name not in seen:
            seen.add(name)
            frontier += edges.get(name, ())
    return False
