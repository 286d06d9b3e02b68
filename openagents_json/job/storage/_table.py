"""Jobs in memory, with the indexes that make claims quick: plan, then install. Synchronous, no I/O.

`Table.plan` decides what a sequence of changes and a claim would do and touches no job; `Table.install` makes it so.
Between the two, a store may persist the plan. One plan at a time: make one, then install it or `abort` it.

The heaps of ready and due jobs hold hints, not truth: an entry counts only while the job it names is still ready
since the same moment. Stale entries are dropped when they come to the top, so nothing has to be searched for.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from typing_extensions import override

from openagents_json.errors import WorkerDeadError
from openagents_json.job import _graph, _lifecycle
from openagents_json.job._changes import (
    Answer,
    Change,
    Claim,
    Claimed,
    Query,
    Result,
    Wakeup,
    Worker,
    WorkerState,
)
from openagents_json.job.storage import _query
from openagents_json.job.storage._plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from openagents_json.job._record import JobRecord

_Ready = tuple[int, "datetime", int, str]
"""(-priority, ready_at, arrival, job id)"""


class TablePlan(Plan):
    """A plan on a table, with the result it will be answered with."""

    result: Result

    def __init__(self, table: Table, now: datetime) -> None:
        super().__init__(table, now)
        self._hint = table.hint

    @override
    def put(self, job: JobRecord) -> None:
        super().put(job)
        self._hint(job, self.now)


@dataclass(slots=True)
class _WorkerEntry:
    worker: Worker
    beats: int
    beat_at: float


class Table:
    """The jobs and workers of one store."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobRecord] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        self._held: dict[str, dict[str, None]] = {}
        self._ready: dict[str, list[_Ready]] = {}
        self._parked: dict[tuple[str, str | None, str], list[_Ready]] = {}
        self._due: list[tuple[datetime, str]] = []
        self._arrivals = count()
        self._workers: dict[str, _WorkerEntry] = {}
        self._dead: dict[str, None] = {}

    def plan(self, changes: Sequence[Change], claim: Claim | None, now: datetime) -> TablePlan:
        """Decide what the changes, then the claim, would do; see `JobStore.apply`."""
        plan = TablePlan(self, now)
        try:
            answers: list[Answer] = [plan.decide(change) for change in changes]
            claimed = None if claim is None else self._claim(plan, claim)
        except BaseException:
            self.abort(plan)
            raise
        plan.result = Result(tuple(answers), claimed)
        return plan

    def install(self, plan: TablePlan) -> Wakeup:
        """Make a plan come true.

        Returns:
            What listeners should hear of it.
        """
        changed: list[str] = []
        ready = due = False
        for job_id, after in plan.after.items():
            before = self.jobs.get(job_id)
            self._index(before, after)
            if after is None:
                self.jobs.pop(job_id, None)
            else:
                self.jobs[job_id] = after
                if after.ready_at is not None and (before is None or after.ready_at != before.ready_at):
                    ready, due = ready or after.ready_at <= plan.now, due or after.ready_at > plan.now
            if before is not None and (after is None or _concerns_others(before, after)):
                changed.append(job_id)
        for worker_id in plan.dead:
            self._workers.pop(worker_id, None)
            self._dead[worker_id] = None
        return Wakeup(ready, self._next_due_in(plan.now, self.jobs.get) if due else None, changed)

    def abort(self, plan: TablePlan) -> None:
        """Drop a plan. Hints about the jobs it was to change may have been used up for it: they are given anew."""
        for job_id in plan.after:
            job = self.jobs.get(job_id)
            if job is not None:
                self.hint(job, plan.now)

    def restore(self, jobs: Mapping[str, JobRecord | None], now: datetime, moment: float) -> None:
        """Take jobs in as they were stored (None: deleted), and derive what is not stored.

        Workers that hold jobs and are not known here become known, so that somebody can find them dead.
        """
        for job_id, job in jobs.items():
            self._index(self.jobs.get(job_id), job)
            if job is None:
                self.jobs.pop(job_id, None)
            else:
                self.jobs[job_id] = job
                if job.lease is not None and job.worker_id is not None and job.worker_id not in self._dead:
                    self._workers.setdefault(job.worker_id, _WorkerEntry(Worker(job.worker_id, 0.0), 0, moment))
        dependents = [name for job_id in jobs for name in self.dependents_of(job_id)]
        touched = [job for name in dict.fromkeys([*jobs, *dependents]) if (job := self.jobs.get(name)) is not None]
        for job in sorted(touched, key=lambda job: (job.created_at, job.job_id)):
            counted = job if job.status.finished else job._replace(unmet=self._unmet(job))
            self.jobs[job.job_id] = counted
            self.hint(counted, now)

    def emptied(self) -> Table:
        """Make a table with the same workers and no jobs."""
        table = Table()
        table._workers, table._dead = self._workers, self._dead
        return table

    def get(self, job_id: str) -> JobRecord | None:
        """Read a job."""
        return self.jobs.get(job_id)

    def find(self, query: Query) -> list[JobRecord]:
        """Read the jobs that match."""
        return _query.select(self._candidates(query), query)

    def count(self, query: Query) -> int:
        """Count the jobs that match."""
        return sum(_query.matches(job, query) for job in self._candidates(query))

    def dependents_of(self, job_id: str) -> Iterable[str]:
        """Name the jobs that depend directly on this one, in the order the edges came."""
        return self._dependents.get(job_id, ())

    def held_by(self, worker_id: str) -> Iterable[str]:
        """Name the jobs a worker holds."""
        return self._held.get(worker_id, ())

    def finished_before(self, moment: datetime) -> Iterable[JobRecord]:
        """Read the jobs that finished before that moment, in the order they were created."""
        return (
            job
            for job in self.jobs.values()
            if job.status.finished and job.completed_at is not None and job.completed_at < moment
        )

    def hint(self, job: JobRecord, now: datetime) -> None:
        """Note where to find a job that is, or will be, ready."""
        ready_at = job.ready_at
        if ready_at is None:
            return
        if ready_at > now:
            heapq.heappush(self._due, (ready_at, job.job_id))
        else:
            entry = (-job.spec.priority, ready_at, next(self._arrivals), job.job_id)
            heapq.heappush(self._ready.setdefault(job.spec.queue, []), entry)

    def register(self, worker: Worker, moment: float) -> None:
        """Make a worker known, or note its beat.

        Raises:
            WorkerDeadError: it was declared dead.
        """
        if worker.worker_id in self._dead:
            raise WorkerDeadError(worker.worker_id)
        entry = self._workers.setdefault(worker.worker_id, _WorkerEntry(worker, 0, moment))
        entry.beats, entry.beat_at = entry.beats + 1, moment

    def beat(self, worker_id: str, moment: float) -> bool:
        """Note a worker's sign of life; False when it is not known (any more)."""
        entry = self._workers.get(worker_id)
        if entry is None:
            return False
        entry.beats, entry.beat_at = entry.beats + 1, moment
        return True

    def unregister(self, worker_id: str) -> None:
        """Forget a worker that holds nothing."""
        if worker_id not in self._held:
            self._workers.pop(worker_id, None)

    def workers(self, moment: float) -> list[WorkerState]:
        """List the workers that live, as far as is known."""
        return [
            WorkerState(entry.worker, entry.beats, max(0.0, moment - entry.beat_at)) for entry in self._workers.values()
        ]

    def _index(self, before: JobRecord | None, after: JobRecord | None) -> None:
        old = () if before is None else before.dependencies
        new = () if after is None else after.dependencies
        if old is not new:
            for name in set(old) - set(new):
                _forget(self._dependents, name, before)
            for name in new:
                if after is not None:
                    self._dependents.setdefault(name, {})[after.job_id] = None
        if before is not None and before.lease is not None and before.worker_id is not None:
            _forget(self._held, before.worker_id, before)
        if after is not None and after.lease is not None and after.worker_id is not None:
            self._held.setdefault(after.worker_id, {})[after.job_id] = None

    def _unmet(self, job: JobRecord) -> int:
        found = (self.jobs.get(name) for name in job.dependencies)
        policy = job.spec.on_dependency_failure
        return sum(dependency is None or not _graph.is_met(dependency.status, policy) for dependency in found)

    def _candidates(self, query: Query) -> Iterable[JobRecord]:
        names: Iterable[str]
        if query.depends_on is not None:
            names = self.dependents_of(query.depends_on)
        elif query.held_by is not None:
            names = self.held_by(query.held_by)
        else:
            return self.jobs.values()
        return [self.jobs[name] for name in names]

    def _claim(self, plan: TablePlan, claim: Claim) -> Claimed:
        if claim.worker_id not in self._workers or claim.worker_id in plan.dead:
            return Claimed(error=WorkerDeadError(claim.worker_id))
        if claim.repeated:
            held = [job for name in self.held_by(claim.worker_id) if (job := plan.get(name)) is not None]
            before = tuple(job for job in held if job.lease == claim.lease)
            if before:
                return Claimed(before, self._next_due_in(plan.now, plan.get))
        self._promote(plan)
        self._unpark(claim)
        jobs: list[JobRecord] = []
        for queue in claim.queues:
            while len(jobs) < claim.limit and (job := self._take(plan, claim, queue)) is not None:
                claimed = _lifecycle.claim(job, claim, plan.now)
                plan.put(claimed)
                jobs.append(claimed)
        return Claimed(tuple(jobs), self._next_due_in(plan.now, plan.get))

    def _promote(self, plan: Plan) -> None:
        """Move the jobs whose time has come to the heaps of ready ones."""
        while self._due and self._due[0][0] <= plan.now:
            ready_at, job_id = heapq.heappop(self._due)
            job = plan.get(job_id)
            if job is not None and job.ready_at == ready_at:
                self.hint(job, plan.now)

    def _unpark(self, claim: Claim) -> None:
        """Put back what earlier claims set aside and this one may take."""
        for key in [key for key in self._parked if not _is_excluded(claim, key[1], key[2])]:
            heap = self._ready.setdefault(key[0], [])
            for entry in self._parked.pop(key):
                heapq.heappush(heap, entry)

    def _take(self, plan: TablePlan, claim: Claim, queue: str) -> JobRecord | None:
        """Take the first ready job of a queue that the claim allows off its heap."""
        heap = self._ready.get(queue)
        passed: list[_Ready] = []
        taken: JobRecord | None = None
        while heap and taken is None and -heap[0][0] >= claim.min_priority:
            entry = heapq.heappop(heap)
            job = plan.get(entry[3])
            if job is None or (-job.spec.priority, job.ready_at) != entry[:2] or job.spec.queue != queue:
                continue
            if job.job_id in claim.exclude_jobs:
                passed.append(entry)
            elif _is_excluded(claim, job.spec.handler, job.spec.name):
                self._parked.setdefault((queue, job.spec.handler, job.spec.name), []).append(entry)
            else:
                taken = job
        for entry in passed:
            heapq.heappush(self._ready[queue], entry)
        return taken

    def _next_due_in(self, now: datetime, get: Callable[[str], JobRecord | None]) -> float | None:
        while self._due:
            ready_at, job_id = self._due[0]
            job = get(job_id)
            if job is not None and job.ready_at == ready_at:
                return max(0.0, (ready_at - now).total_seconds())
            heapq.heappop(self._due)
        return None


def _concerns_others(before: JobRecord, after: JobRecord) -> bool:
    """Tell whether a change is news to whoever holds the job or waits for it; being claimed is not."""
    if before.lease is None and after.lease is not None:
        return False
    return after.status is not before.status or after.lease != before.lease


def _is_excluded(claim: Claim, handler: str | None, name: str) -> bool:
    return name in claim.exclude_names if handler is None else handler in claim.exclude_handlers


def _forget(index: dict[str, dict[str, None]], key: str, job: JobRecord | None) -> None:
    """Take a job out of an index of sets, and an emptied set out with it."""
    members = index.get(key)
    if members is not None and job is not None:
        members.pop(job.job_id, None)
        if not members:
            del index[key]
