"""What a change would do: decided on after-images, before anything is stored.

A `Plan` collects the jobs as they would be after a sequence of changes. It reads the jobs as they are from a
`Source`, applies the rules of `_lifecycle` and `_graph`, and carries each job's new state on to its dependents. It
stores nothing and waits for nothing: who made it persists `Plan.after` as a whole, or drops it.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from openagents_json.errors import (
    DuplicateJobError,
    InvalidTransitionError,
    JobInUseError,
    JobNotFoundError,
    LeaseLostError,
    OpenAgentsError,
    UnknownDependencyError,
)
from openagents_json.job import _graph, _lifecycle
from openagents_json.job._changes import (
    Add,
    AddDependency,
    Answer,
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

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from openagents_json.job._record import JobRecord
    from openagents_json.job.model import DependencyFailurePolicy

_NOTHING_HELD = Applied((), changed=False)


class Source(Protocol):
    """The jobs as they are stored, and what is kept about them to find them."""

    def get(self, job_id: str) -> JobRecord | None:
        """Read a job."""

    def dependents_of(self, job_id: str) -> Iterable[str]:
        """Name the jobs that depend directly on this one."""

    def held_by(self, worker_id: str) -> Iterable[str]:
        """Name the jobs a worker holds."""

    def finished_before(self, moment: datetime) -> Iterable[JobRecord]:
        """Read the jobs that finished before that moment."""


class Plan:
    """The jobs after a sequence of changes, and the changes' answers.

    Attributes:
        now: the time at which it all happens.
        after: the jobs that change, as they will be; None: deleted.
        dead: the workers declared dead.
    """

    def __init__(self, source: Source, now: datetime) -> None:
        self.now = now
        self.after: dict[str, JobRecord | None] = {}
        self.dead: set[str] = set()
        self._source = source
        self._new_dependents: dict[str, list[str]] = {}

    def decide(self, change: Change) -> Answer:
        """Add a change to the plan; one that is refused leaves the plan as it was."""
        try:
            return self._decide(change)
        except OpenAgentsError as refusal:
            return Refused(refusal.with_traceback(None))

    def get(self, job_id: str) -> JobRecord | None:
        """Read a job as it will be."""
        if job_id in self.after:
            return self.after[job_id]
        return self._source.get(job_id)

    def put(self, job: JobRecord) -> None:
        """Plan the job to be like this."""
        self.after[job.job_id] = job

    def _decide(self, change: Change) -> Answer:  # noqa: C901, PLR0911, PLR0912 - one short case for each change
        now = self.now
        match change:
            case Finish(job_id, lease):
                job = self._require_leased(job_id, lease)
                return self._change(job, _lifecycle.finish(job, change, now), own=False)
            case Add():
                return self._add(change)
            case Start(job_id):
                job = self._require(job_id)
                return self._change(job, _lifecycle.start(job, now))
            case Progress(job_id, lease):
                job = self._require_leased(job_id, lease)
                return self._change(job, _lifecycle.progress(job, change, now), own=False)
            case Pause(job_id):
                job = self._require(job_id)
                return self._change(job, _lifecycle.pause(job, now))
            case Resume(job_id):
                job = self._require(job_id)
                return self._change(job, _lifecycle.resume(job, now))
            case Cancel(job_id):
                job = self._require(job_id)
                return self._change(job, _lifecycle.cancel(job, change, now))
            case Rerun(job_id):
                return self._rerun(self._require(job_id))
            case Release(job_id, lease, why):
                if (held := self.get(job_id)) is None:
                    return _NOTHING_HELD
                return self._change(held, _lifecycle.release(held, lease, why, now), own=False)
            case Unclaim(job_id, lease):
                if (held := self.get(job_id)) is None:
                    return _NOTHING_HELD
                return self._change(held, _lifecycle.unclaim(held, lease, now), own=False)
            case AddDependency(job_id, depends_on_id):
                return self._add_dependency(self._require(job_id), depends_on_id)
            case RemoveDependency(job_id, depends_on_id):
                return self._remove_dependency(self._require(job_id), depends_on_id)
            case Delete(job_id):
                return self._delete(job_id)
            case Purge(age, limit):
                return self._purge(age, limit)
            case Recover(worker_id, why):
                return self._recover(worker_id, why)

    def _require(self, job_id: str) -> JobRecord:
        job = self.get(job_id)
        if job is None:
            raise JobNotFoundError(job_id)
        return job

    def _require_leased(self, job_id: str, lease: str) -> JobRecord:
        job = self.get(job_id)
        if job is None:
            raise LeaseLostError(job_id, lease)
        return job

    def _change(self, before: JobRecord, after: JobRecord, *, own: bool = True) -> Applied:
        """Plan one job's change and what it means for its dependents; `own`: the answer shows the job itself."""
        cascaded: list[JobRecord] = []
        if after is not before:
            self.put(after)
            if after.status is not before.status:
                cascaded = self._tell_dependents(before, after)
        jobs = (after, *cascaded) if own else tuple(cascaded)
        return Applied(jobs, changed=after is not before, at=after.updated_at)

    def _add(self, change: Add) -> Answer:
        known = [job for job in (self.get(new.spec.job_id) for new in change.jobs) if job is not None]
        for job in known:
            if job.spec.request_id != change.jobs[0].spec.request_id:
                raise DuplicateJobError(job.job_id)
        if known or not change.jobs:
            return Applied(tuple(known), changed=False)
        ids = {new.spec.job_id for new in change.jobs}
        self._refuse_impossible(change, ids)
        for new in change.jobs:
            policy = new.spec.on_dependency_failure
            unmet = sum(name in ids or not self._is_met(name, policy) for name in new.dependencies)
            self.put(_lifecycle.new(new, unmet, self.now))
            for dependency in new.dependencies:
                self._new_dependents.setdefault(dependency, []).append(new.spec.job_id)
        for new in change.jobs:
            if new.dependencies:
                self._cancel_if_broken(self._require(new.spec.job_id))
        return Applied(tuple(self._require(new.spec.job_id) for new in change.jobs))

    def _refuse_impossible(self, change: Add, ids: set[str]) -> None:
        """Refuse new jobs that share an id, depend on what does not exist, or on each other in a circle."""
        if len(ids) < len(change.jobs):
            names = [new.spec.job_id for new in change.jobs]
            raise DuplicateJobError(next(name for name in names if names.count(name) > 1))
        inner = False
        for new in change.jobs:
            for dependency in new.dependencies:
                inner = inner or dependency in ids
                if dependency not in ids and self.get(dependency) is None:
                    raise UnknownDependencyError(new.spec.job_id, dependency)
        edges = {new.spec.job_id: new.dependencies for new in change.jobs}
        if inner:
            _graph.refuse_cycle(edges)
        for name, dependencies in edges.items():
            # Jobs that outlived a deleted one still name it, and so depend on a new one of its id.
            if dependencies and any(self._dependents_of(name)):
                for dependency in dependencies:
                    _graph.refuse_closing_edge(
                        name, dependency, lambda other: edges.get(other) or self._dependencies_of(other)
                    )

    def _is_met(self, dependency: str, policy: DependencyFailurePolicy) -> bool:
        job = self.get(dependency)
        return job is not None and _graph.is_met(job.status, policy)

    def _broken_dependency(self, job: JobRecord) -> JobRecord | None:
        """Find the first dependency whose failure must take the job along."""
        for name in job.dependencies:
            dependency = self.get(name)
            if dependency is not None and _graph.breaks(dependency.status, job.spec.on_dependency_failure):
                return dependency
        return None

    def _cancel_if_broken(self, job: JobRecord) -> list[JobRecord]:
        broken = None if job.status.finished else self._broken_dependency(job)
        if broken is None:
            return []
        after = self._cancelled_by(job, broken, broken)
        self.put(after)
        return self._tell_dependents(job, after)

    def _cancelled_by(self, job: JobRecord, dependency: JobRecord, root: JobRecord) -> JobRecord:
        error = _graph.failure_of(dependency, root)
        return _lifecycle.end_by(job, _lifecycle.CANCELLED, error, self.now, by=dependency.job_id)

    def _rerun(self, job: JobRecord) -> Applied:
        after = _lifecycle.rerun(job, self._unmet(job), self.now)
        if after is not job:
            for name in job.dependencies:
                if self.get(name) is None:
                    remedy = f"its dependency {name!r} was deleted; create the job anew"
                    raise InvalidTransitionError(job.job_id, job.status.value, "retry", remedy)
            broken = self._broken_dependency(job)
            if broken is not None:
                remedy = f"its dependency {broken.job_id!r} is {broken.status}; retry_job({broken.job_id!r}) first"
                raise InvalidTransitionError(job.job_id, job.status.value, "retry", remedy)
        return self._change(job, after)

    def _unmet(self, job: JobRecord) -> int:
        policy = job.spec.on_dependency_failure
        return sum(not self._is_met(name, policy) for name in job.dependencies)

    def _add_dependency(self, job: JobRecord, depends_on_id: str) -> Applied:
        if depends_on_id in job.dependencies:
            return Applied((job,), changed=False)
        _lifecycle.refuse_edge_change(job, "add a dependency to")
        if self.get(depends_on_id) is None:
            raise UnknownDependencyError(job.job_id, depends_on_id)
        _graph.refuse_closing_edge(job.job_id, depends_on_id, self._dependencies_of)
        unmet = job.unmet + (not self._is_met(depends_on_id, job.spec.on_dependency_failure))
        after = _lifecycle.dependencies_changed(job, (*job.dependencies, depends_on_id), unmet, self.now)
        self.put(after)
        self._new_dependents.setdefault(depends_on_id, []).append(job.job_id)
        cascaded = self._cancel_if_broken(after)
        return Applied((self._require(job.job_id), *cascaded))

    def _dependencies_of(self, job_id: str) -> tuple[str, ...]:
        job = self.get(job_id)
        return () if job is None else job.dependencies

    def _remove_dependency(self, job: JobRecord, depends_on_id: str) -> Applied:
        if depends_on_id not in job.dependencies:
            return Applied((job,), changed=False)
        _lifecycle.refuse_edge_change(job, "remove a dependency from")
        unmet = job.unmet - (not self._is_met(depends_on_id, job.spec.on_dependency_failure))
        remaining = tuple(name for name in job.dependencies if name != depends_on_id)
        return self._change(job, _lifecycle.dependencies_changed(job, remaining, unmet, self.now))

    def _delete(self, job_id: str) -> Applied:
        job = self.get(job_id)
        if job is None:
            return Applied((), changed=False)
        _lifecycle.refuse_delete(job)
        needed_by = self._unfinished_dependent(job_id)
        if needed_by is not None:
            raise JobInUseError(job_id, job.status.value, needed_by)
        self.after[job_id] = None
        return Applied((job,))

    def _unfinished_dependent(self, job_id: str) -> str | None:
        return next((job.job_id for job in self._dependents_of(job_id) if not job.status.finished), None)

    def _purge(self, age: float, limit: int) -> Applied:
        purged: list[JobRecord] = []
        moment = self.now - timedelta(seconds=age)
        for stored in self._source.finished_before(moment):
            if len(purged) == limit:
                break
            job = self.get(stored.job_id)
            if job is None or job.completed_at is None or job.completed_at >= moment:
                continue
            if self._unfinished_dependent(job.job_id) is None:
                self.after[job.job_id] = None
                purged.append(job)
        return Applied(tuple(purged), changed=bool(purged))

    def _recover(self, worker_id: str, why: str) -> Applied:
        self.dead.add(worker_id)
        held = [
            job
            for name in self._source.held_by(worker_id)
            if (job := self.get(name)) is not None and job.lease is not None and job.worker_id == worker_id
        ]
        # All are taken from it before any dependent hears of it: what becomes of each depends on no order.
        recovered = [_lifecycle.recover(job, why, self.now) for job in held]
        for job in recovered:
            self.put(job)
        told = [told for pair in zip(held, recovered, strict=True) for told in self._tell_dependents(*pair)]
        # A job put back may be cancelled next, by one that failed with it: each is shown once, as it is in the end.
        names = dict.fromkeys(job.job_id for job in (*recovered, *told))
        return Applied(tuple(self._require(name) for name in names), changed=bool(held))

    def _dependents_of(self, job_id: str) -> Iterable[JobRecord]:
        names = [*self._source.dependents_of(job_id), *self._new_dependents.get(job_id, ())]
        for name in dict.fromkeys(names):  # an edge may have gone and come back
            job = self.get(name)
            if job is not None and job_id in job.dependencies:
                yield job

    def _tell_dependents(self, before: JobRecord, after: JobRecord) -> list[JobRecord]:
        """Carry a job's new state on: counters, cascades of cancellation, and their undoing.

        Returns:
            The jobs cancelled or brought back, nearest first.
        """
        cascaded: list[JobRecord] = []
        news = deque([(before, after, after)])
        while news:
            old, new, root = news.popleft()
            for job in self._dependents_of(new.job_id):
                told = self._told(job, old, new, root)
                if told is job:
                    continue
                self.put(told)
                if told.status is not job.status and (told.status.finished or job.status.finished):
                    cascaded.append(told)
                    news.append((job, told, root))
        return cascaded

    def _told(self, job: JobRecord, old: JobRecord, new: JobRecord, root: JobRecord) -> JobRecord:
        """Decide what a dependency that went from `old` to `new` means for a job."""
        policy = job.spec.on_dependency_failure
        if job.status.finished:
            revivable = job.cancelled_by == new.job_id and old.status.finished and not new.status.finished
            return self._revived(job) if revivable else job
        if _graph.breaks(new.status, policy):
            return self._cancelled_by(job, new, root)
        change = _graph.is_met(old.status, policy) - _graph.is_met(new.status, policy)
        if change == 0:
            return job
        return _lifecycle.dependencies_changed(job, job.dependencies, job.unmet + change, self.now)

    def _revived(self, job: JobRecord) -> JobRecord:
        """Bring a job back that was cancelled because of a dependency which now runs again."""
        broken = self._broken_dependency(job)
        if broken is not None:
            error = _graph.failure_of(broken, broken)
            return job._replace(updated_at=self.now, version=job.version + 1, error=error, cancelled_by=broken.job_id)
        if any(self.get(name) is None for name in job.dependencies):
            return job
        return _lifecycle.revive(job, self._unmet(job), self.now, queued=job.queued, run_at=job.run_at)
