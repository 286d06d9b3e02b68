"""`store_machine`: a Hypothesis state machine that holds any job store against a small model of the contract.

Hypothesis makes up programs of changes, claims, worker deaths and jumps of the clock; after each step all that the
store shows must be what the model (`_model`) says. Use it in a test like this::

    def test_my_store_agrees_with_the_model() -> None:
        run_state_machine_as_test(store_machine(lambda clock: MyStore(clock=clock)), settings=settings(deadline=None))

It knows nothing of how a store works: it goes through `JobStore` alone.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from dataclasses import replace
from datetime import timedelta
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from openagents_json.errors import DependencyCycleError, WorkerDeadError
from openagents_json.job._changes import (
    SORT_KEYS,
    Add,
    AddDependency,
    Applied,
    Cancel,
    Change,
    Claim,
    Delete,
    Finish,
    NewJob,
    Pause,
    Progress,
    Purge,
    Query,
    Recover,
    Refused,
    Release,
    RemoveDependency,
    Rerun,
    Result,
    Resume,
    Start,
    Unclaim,
    Worker,
)
from openagents_json.job._record import JobSpec
from openagents_json.job.model import AttemptOutcome, DependencyFailurePolicy, JobError, JobPriority, JobStatus
from openagents_json.testing._model import FINISHED, Model, comparable, select, sort_value
from openagents_json.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from datetime import datetime

    from openagents_json.job._changes import Answer, Claimed, Wakeup
    from openagents_json.job._clock import Clock
    from openagents_json.job._record import JobRecord
    from openagents_json.job.storage.base import JobStore
    from openagents_json.testing._model import ModelJob, Verdict

    Reopen = Callable[[JobStore, Clock], Coroutine[Any, Any, JobStore]]

_T = TypeVar("_T")

#: An id that no job ever has.
NOBODY = "nobody"

#: More jobs at once make programs slower, not better.
_MOST_JOBS = 12

#: How long a wake-up may be on its way, in real seconds.
_WAKEUP_LIMIT = 5.0


def store_machine(
    make_store: Callable[[Clock], JobStore], *, reopen: Reopen | None = None
) -> type[RuleBasedStateMachine]:
    """Make the state machine for a kind of store.

    Args:
        make_store: makes a new, empty store that takes its time from the clock; called once for each program.
        reopen: closes the open store, or drops it as a crash would, and returns an open one that must hold the
            same jobs: the same object or another. None: the store is not durable, and this step is left out.
    """

    class Machine(StoreMachine):
        @override
        def make_store(self) -> JobStore:
            return make_store(self.clock)

        @property
        @override
        def reopen_store(self) -> Reopen | None:
            return reopen

    return Machine


# ------------------------------------------------------------------------------------------ what is made up
# Hypothesis gives the machine itself to what draws from `st.runner()`: so a program deals with jobs and leases that
# are there, most often with those for which a change means something.

_TICKS = st.sampled_from([0.0, 1.0, 0.5, 5.0, 60.0])
_QUEUES = ("default", "other")
_HANDLERS = ("one", "two")


def _ids(*likely: JobStatus) -> st.SearchStrategy[str]:
    """Any job's id, most often one in these states; rarely one that no job has."""

    def choose(machine: StoreMachine) -> st.SearchStrategy[str]:
        jobs = machine.model.jobs
        favoured = [name for name, job in jobs.items() if job.status in likely]
        return st.sampled_from([*favoured * 5, *jobs, NOBODY])

    return st.runner().flatmap(choose)


def _leases() -> st.SearchStrategy[tuple[str, str]]:
    """A job and a lease it was once claimed under, most often one that still holds it."""

    def choose(machine: StoreMachine) -> st.SearchStrategy[tuple[str, str]]:
        live = [(name, job.lease) for name, job in machine.model.jobs.items() if job.lease is not None]
        return st.sampled_from([*live * 5, *machine.leases, (NOBODY, "w1:0")])

    return st.runner().flatmap(choose)


def _workers() -> st.SearchStrategy[str]:
    """Any worker, most often one that lives."""

    def choose(machine: StoreMachine) -> st.SearchStrategy[str]:
        return st.sampled_from([*sorted(machine.model.workers) * 5, *sorted(machine.model.dead), "w0"])

    return st.runner().flatmap(choose)


def _seldom(usual: _T, otherwise: st.SearchStrategy[_T]) -> st.SearchStrategy[_T]:
    return st.one_of(st.just(usual), st.just(usual), st.just(usual), otherwise)


def _new_id() -> st.SearchStrategy[str]:
    """A fresh id; rarely one that is taken, or that a deleted job had."""

    def choose(machine: StoreMachine) -> st.SearchStrategy[str]:
        fresh = f"j{next(machine.numbers)}"
        return st.sampled_from([fresh] * 10 + machine.free_ids() + [*machine.model.jobs][:1])

    return st.runner().flatmap(choose)


@st.composite
def _new_job(draw: st.DrawFn, job_id: str, dependencies: Sequence[str], request: str) -> NewJob:
    wanted = draw(st.lists(st.sampled_from(dependencies), max_size=3, unique=True)) if dependencies else []
    spec = JobSpec(
        job_id=job_id,
        name=draw(st.sampled_from(_HANDLERS)),
        description="",
        handler=draw(_seldom(None, st.sampled_from(_HANDLERS))),
        queue=draw(_seldom("default", st.just("other"))),
        payload=b'{"n":1}',
        metadata=b"{}",
        tags=draw(_seldom((), st.sampled_from([("a",), ("a", "b")]))),
        priority=draw(st.sampled_from([JobPriority.MEDIUM, *JobPriority])),
        batch_id=draw(_seldom(None, st.just(request))),
        on_dependency_failure=draw(st.sampled_from(DependencyFailurePolicy)),
        max_retries=3,
        retry_delay=1.0,
        retry_policy=None,
        timeout=None,
        max_recoveries=draw(st.sampled_from([None, 0, 1, 2])),
        request_id=request,
    )
    queued = draw(_seldom(True, st.just(False)))  # noqa: FBT003  # a value like any other
    delay = draw(_seldom(None, _TICKS))
    machine: StoreMachine = draw(st.runner())
    moments = st.sampled_from([-1.0, 0.0, 5.0]).map(lambda seconds: machine.now + timedelta(seconds=seconds))
    run_at = draw(_seldom(None, moments)) if delay is None else None
    return NewJob(spec, tuple(wanted), queued, run_at, delay)


@st.composite
def _adds(draw: st.DrawFn, most: int) -> Add:
    """Jobs that depend on those that exist, and on each other; rarely in a cycle, or on one that is not there."""
    machine: StoreMachine = draw(st.runner())
    request = f"request {next(machine.numbers)}"
    names = [draw(_new_id()) for _ in range(draw(st.integers(min(2, most), most)))]
    there = [*machine.model.jobs]
    anything = draw(st.integers(0, 9)) == 9
    jobs = []
    for position, name in enumerate(names):
        dependencies = [*names, *there, NOBODY] if anything else [*names[:position] * 3, *there]
        jobs.append(draw(_new_job(name, dependencies, request)))
    if draw(st.booleans()):
        jobs.reverse()
    return Add(tuple(jobs))


@st.composite
def _finishes(draw: st.DrawFn) -> Finish:
    job_id, lease = draw(_leases())
    progress = draw(_seldom(None, st.just((0.75, "nearly"))))
    outcomes = [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT]
    outcome = draw(st.sampled_from(outcomes))
    if outcome is AttemptOutcome.COMPLETED:
        result = str(draw(st.integers(0, 999))).encode()
        return Finish(job_id, lease, outcome, result=result, progress=progress)
    error = JobError("ValueError", f"no luck in {lease}")
    return Finish(job_id, lease, outcome, error=error, retry_in=draw(st.none() | _TICKS), progress=progress)


@st.composite
def _progresses(draw: st.DrawFn) -> Progress:
    job_id, lease = draw(_leases())
    return Progress(job_id, lease, draw(st.sampled_from([0.25, 0.5])), draw(st.sampled_from(["", "at it"])))


@st.composite
def _claims(draw: st.DrawFn) -> Claim:
    machine: StoreMachine = draw(st.runner())
    worker = draw(_workers())
    return Claim(
        worker,
        f"{worker}:{next(machine.numbers)}",
        limit=draw(st.sampled_from([1, 2, 3, 20])),
        queues=draw(st.sampled_from([_QUEUES, _QUEUES[::-1], _QUEUES[:1], _QUEUES[1:]])),
        min_priority=draw(_seldom(JobPriority.LOW, st.sampled_from(JobPriority))),
        exclude_handlers=draw(_seldom(frozenset(), st.frozensets(st.sampled_from(_HANDLERS)))),
        exclude_jobs=draw(_seldom(frozenset(), st.frozensets(_ids(JobStatus.PENDING), max_size=2))),
    )


_PENDING, _RUNNING, _PAUSED = JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED
_STARTS = st.builds(Start, _ids(_PENDING))
_PAUSES = st.builds(Pause, _ids(_PENDING, _RUNNING))
_RESUMES = st.builds(Resume, _ids(_PAUSED))
_CANCELS = st.builds(Cancel, _ids(_PENDING, _RUNNING, _PAUSED), st.just("not wanted"))
_RERUNS = st.builds(Rerun, _ids(*FINISHED))
_RELEASES = _leases().map(lambda held: Release(*held, "shutdown"))
_UNCLAIMS = _leases().map(lambda held: Unclaim(*held))
_EDGES = st.tuples(_ids(_PENDING, _PAUSED), _ids(*JobStatus))
_NEW_DEPENDENCIES = _EDGES.map(lambda edge: AddDependency(*edge))
_DELETES = st.builds(Delete, _ids(*FINISHED))
_PURGES = st.builds(Purge, _TICKS, st.integers(1, 4))
_RECOVERS = st.builds(Recover, _workers(), st.just("silent"))


@st.composite
def _lost_dependencies(draw: st.DrawFn) -> RemoveDependency:
    machine: StoreMachine = draw(st.runner())
    edges = [(name, dependency) for name, job in machine.model.jobs.items() for dependency in job.dependencies]
    return RemoveDependency(*draw(st.sampled_from(edges) if edges else _EDGES))


_CHANGES: st.SearchStrategy[Change] = st.one_of(
    _finishes(), _finishes(), _progresses(), _STARTS, _PAUSES, _RESUMES, _CANCELS, _RERUNS, _RELEASES, _UNCLAIMS,
    _NEW_DEPENDENCIES, _lost_dependencies(), _DELETES, _PURGES, _RECOVERS, _adds(1), _adds(3),
)  # fmt: skip


@st.composite
def _queries(draw: st.DrawFn) -> Query:
    machine: StoreMachine = draw(st.runner())
    seen = [*machine.seen.values()]
    moments = st.sampled_from([machine.now, *(record.created_at for record in seen)])
    query = Query(
        statuses=draw(_seldom(None, st.frozensets(st.sampled_from(JobStatus), min_size=1))),
        tags=draw(_seldom((), st.sampled_from([("a",), ("b", "a")]))),
        name=draw(_seldom(None, st.sampled_from(_HANDLERS))),
        queue=draw(_seldom(None, st.sampled_from(_QUEUES))),
        batch_id=draw(_seldom(None, st.sampled_from([*(record.spec.batch_id for record in seen), None]))),
        priority=draw(_seldom(None, st.sampled_from(JobPriority))),
        created_after=draw(_seldom(None, moments)),
        created_before=draw(_seldom(None, moments)),
        depends_on=draw(_seldom(None, _ids(*JobStatus))),
        held_by=draw(_seldom(None, _workers())),
        sort_by=draw(st.sampled_from(SORT_KEYS)),
        descending=draw(st.booleans()),
        limit=draw(st.none() | st.integers(1, 5)),
        offset=draw(_seldom(0, st.integers(0, 5))),
    )
    last = draw(_seldom(None, st.sampled_from([None, *seen])))
    return query if last is None else replace(query, after=(sort_value(last, query), last.job_id))


_IS_ROOM = precondition(lambda self: len(self.model.jobs) < _MOST_JOBS)


class StoreMachine(RuleBasedStateMachine):
    """A store and its model, changed in step. Subclassed by `store_machine`.

    Attributes:
        clock: the store's time.
        store: the store, open.
        model: what it must hold.
        seen: its records after the last step, by id.
        leases: every job ever claimed, and the lease.
        numbers: for ids of any kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.model = Model()
        self.seen: dict[str, JobRecord] = {}
        self.leases: list[tuple[str, str]] = []
        self.numbers = count(1)
        self._known: dict[str, tuple[ModelJob, int]] = {}
        self._deleted: dict[str, None] = {}
        self._repeatable: tuple[Change, type] | None = None
        self._last_claim: Claim | None = None
        self._reruns = False
        self._wakeups: list[Wakeup] = []
        self._woken = asyncio.Event()
        # A factory keeps the runner from replacing, and then removing, the event loop of whoever runs the test.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            self.store = self.make_store()
            self._run(self.store.open())
            self._unlisten = self.store.listen(self._on_wakeup)
            for name in ("w1", "w2"):
                self.join(name)
        except BaseException:
            self._runner.close()
            raise

    @abstractmethod
    def make_store(self) -> JobStore:
        """Make a new, empty store on `clock`."""

    @property
    @abstractmethod
    def reopen_store(self) -> Reopen | None:
        """What closes the store and opens it again; None: it is not durable."""

    @property
    def now(self) -> datetime:
        """The store's time."""
        return self.store.now()

    def free_ids(self) -> list[str]:
        """List the ids of deleted jobs that may be used again.

        Left out are those that a job was cancelled with, or might have been: whether a new job of that name can
        bring the old one back is not for the contract to say.
        """
        lost = {name for job in self.model.jobs.values() if job.cancelled_with_dependency for name in job.dependencies}
        return [name for name in self._deleted if name not in lost]

    @override
    def teardown(self) -> None:
        try:
            self._run(self.store.close())
        finally:
            self._runner.close()

    # ---------------------------------------------------------------------------------------------- the steps

    @_IS_ROOM
    @rule(change=_adds(1))
    def create(self, change: Add) -> None:
        """Add one job."""
        self._apply(change)

    @_IS_ROOM
    @rule(change=_adds(4))
    def create_batch(self, change: Add) -> None:
        """Add jobs that depend on each other."""
        self._apply(change)

    @rule(change=_STARTS)
    def start(self, change: Start) -> None:
        """Queue a job."""
        self._apply(change)

    @rule(claim=_claims())
    def claim(self, claim: Claim) -> None:
        """Claim jobs."""
        self._apply(claim=claim)

    @precondition(lambda self: self._last_claim is not None)
    @rule()
    def claim_again(self) -> None:
        """Repeat the last claim, as if its reply had been lost."""
        assert self._last_claim is not None
        self._apply(claim=replace(self._last_claim, repeated=True))

    @rule(change=_progresses())
    def progress(self, change: Progress) -> None:
        """Report progress, as a holder or as a zombie."""
        self._apply(change)

    @rule(change=_finishes())
    def finish(self, change: Finish) -> None:
        """Report an outcome, as a holder or as a zombie."""
        self._apply(change)

    @rule(change=_finishes(), claim=_claims())
    def finish_and_claim(self, change: Finish, claim: Claim) -> None:
        """Report an outcome and take the next jobs with it."""
        self._apply(change, claim=claim)

    @rule(change=_RELEASES | _UNCLAIMS)
    def give_back(self, change: Release | Unclaim) -> None:
        """Give a job back unfinished."""
        self._apply(change)

    @rule(change=_PAUSES)
    def pause(self, change: Pause) -> None:
        """Pause a job."""
        self._apply(change)

    @rule(change=_RESUMES)
    def resume(self, change: Resume) -> None:
        """Let a job go on."""
        self._apply(change)

    @rule(change=_CANCELS)
    def cancel(self, change: Cancel) -> None:
        """Cancel a job."""
        self._apply(change)

    @rule(change=_RERUNS)
    def rerun(self, change: Rerun) -> None:
        """Ask for a finished job again."""
        self._apply(change)

    @rule(change=_NEW_DEPENDENCIES)
    def add_dependency(self, change: AddDependency) -> None:
        """Make a job wait for another, perhaps in a circle."""
        self._apply(change)

    @rule(change=_lost_dependencies())
    def remove_dependency(self, change: RemoveDependency) -> None:
        """Let a job wait no longer for another."""
        self._apply(change)

    @rule(change=_DELETES)
    def delete(self, change: Delete) -> None:
        """Delete a job."""
        self._apply(change)

    @rule(change=_PURGES)
    def purge(self, change: Purge) -> None:
        """Delete jobs that finished long ago."""
        self._apply(change)

    @rule(change=_RECOVERS)
    def worker_dies(self, change: Recover) -> None:
        """Declare a worker dead."""
        self._apply(change)

    @rule(changes=st.lists(_CHANGES, min_size=2, max_size=6), claim=st.none() | _claims())
    def several(self, changes: list[Change], claim: Claim | None) -> None:
        """Make changes of many kinds, and perhaps a claim, in one transaction."""
        self._apply(*changes, claim=claim)

    @precondition(lambda self: self._repeatable is not None)
    @rule()
    def repeat(self) -> None:
        """Make the last change again, as if its reply had been lost: same verdict, and the effect happens once."""
        assert self._repeatable is not None
        change, kind = self._repeatable
        self._apply(change)
        assert self._repeatable == (change, kind)
        if not isinstance(change, Progress | Purge):
            assert self._run(self.store.get([*self.seen])) == [*self.seen.values()]

    @rule(worker_id=_workers() | st.builds("w{}".format, st.integers(1, 5)))
    def join(self, worker_id: str) -> None:
        """Register a worker, new or known, alive or dead."""
        if worker_id in self.model.dead:
            try:
                self._run(self.store.register(Worker(worker_id, 300.0)))
            except WorkerDeadError:
                return
            msg = "a worker that was declared dead is dead for good"
            raise AssertionError(msg)
        self._run(self.store.register(Worker(worker_id, 300.0)))
        self.model.workers.add(worker_id)

    @rule(worker_id=_workers())
    def beat(self, worker_id: str) -> None:
        """Send a sign of life."""
        assert self._run(self.store.beat(worker_id)) is (worker_id in self.model.workers)

    @rule(worker_id=_workers())
    def leave(self, worker_id: str) -> None:
        """Unregister a worker; without effect while it holds a job."""
        self._run(self.store.unregister(worker_id))
        if not any(job.lease and job.worker_id == worker_id for job in self.model.jobs.values()):
            self.model.workers.discard(worker_id)

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0, 60.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        """Let the clock jump."""
        self._run(self._advance(seconds))

    @rule(query=_queries())
    def look(self, query: Query) -> None:
        """Search, sort and page."""
        found = select(self.seen.values(), query)
        assert self._run(self.store.count(query)) == len(found)
        if query.after is not None:
            last = query.after
            found = [
                record
                for record in found
                if ((sort_value(record, query), record.job_id) < last) is query.descending
                and (sort_value(record, query), record.job_id) != last
            ]
        stop = None if query.limit is None else query.offset + query.limit
        assert self._run(self.store.find(query)) == found[query.offset : stop]

    @precondition(lambda self: self.reopen_store is not None)
    @rule()
    def reopen(self) -> None:
        """Close the store, or lose it, and open it again: all is there."""
        assert self.reopen_store is not None
        self._unlisten()
        self.store = self._run(self.reopen_store(self.store, self.clock))
        self._unlisten = self.store.listen(self._on_wakeup)
        for worker_id in sorted(self.model.workers):
            self._run(self.store.register(Worker(worker_id, 300.0)))

    # ----------------------------------------------------------------------------------------- what must hold

    @invariant()
    def jobs_are_as_the_model_says(self) -> None:
        """No job is lost, none too many, and each is what it must be."""
        now = self.now
        records = {record.job_id: record for record in self._run(self.store.find(Query()))}
        assert records.keys() == self.model.jobs.keys(), "a job was lost, or came back"
        names = [*self.model.jobs, NOBODY]
        assert self._run(self.store.get(names)) == [records[name] for name in names[:-1]]
        for name, record in records.items():
            facts = self.model.facts(name)
            shown = comparable(record)
            assert {field: shown[field] for field in facts} == facts, f"{name} is not what it must be"
            assert record.to_job(now).wait_reason == self.model.wait_reason(name, now)
            self._check_blame(record)
            self._check_history(record, now)
        self._deleted.update(dict.fromkeys(self.seen.keys() - records.keys()))
        self.seen = records
        self._known = {name: (job, job.edits) for name, job in self.model.jobs.items()}

    @invariant()
    def counts_and_holders_are_right(self) -> None:
        """`count`, the list of workers, and what each of them holds follow from the jobs."""
        jobs = self.model.jobs
        assert self._run(self.store.count(Query())) == len(jobs)
        assert {state.worker.worker_id for state in self._run(self.store.workers())} == self.model.workers
        for worker_id in self.model.workers | self.model.dead:
            held = {record.job_id for record in self._run(self.store.find(Query(held_by=worker_id)))}
            assert held == {name for name, job in jobs.items() if job.lease and job.worker_id == worker_id}
            assert not held or worker_id in self.model.workers, "the dead hold nothing"

    def _check_blame(self, record: JobRecord) -> None:
        blamable = self.model.blamable(record.job_id)
        if not blamable:
            assert record.cancelled_by is None
            return
        assert record.cancelled_by in blamable
        assert record.error is not None
        assert repr(record.cancelled_by) in record.error.message, "the error names the dependency"

    def _check_history(self, record: JobRecord, now: datetime) -> None:
        """Compare a job with what it was before the step."""
        before = self.seen.get(record.job_id)
        job = self.model.jobs[record.job_id]
        known, edits = self._known.get(record.job_id, (None, 0))
        if before is None or known is not job:
            assert record.created_at == record.updated_at == now
        elif record != before:
            told = before.unmet != record.unmet
            assert job.edits > edits or told, f"nothing should have changed {record.job_id}"
            assert record.version > before.version
            assert record.updated_at == now
            assert before.status not in FINISHED or record.status is before.status or self._reruns, "over is over"
        for moment in (record.started_at, record.completed_at):
            assert moment is None or record.created_at <= moment <= record.updated_at

    # -------------------------------------------------------------------------------------- one transaction

    def _apply(self, *changes: Change, claim: Claim | None = None) -> None:
        now = self.now
        self._wakeups.clear()
        result = self._run(self.store.apply(changes, claim=claim))
        for change, answer in zip(changes, result.answers, strict=True):
            verdict = self.model.apply(change, answer.jobs if isinstance(answer, Applied) else (), now)
            self._check_answer(answer, verdict)
        assert (claim is None) is (result.claimed is None)
        if claim is not None and result.claimed is not None:
            self._take(claim, result.claimed)
        self._run(self._check_wakeups(now))
        self._check_shown(result)
        self._reruns = any(isinstance(change, Rerun) for change in changes)
        self._remember(changes, claim, result)

    def _check_answer(self, answer: Answer, verdict: Verdict) -> None:
        if isinstance(answer, Refused):
            assert type(answer.error) in verdict.refusals, f"{answer.error!r}, but the model says {verdict}"
            if isinstance(answer.error, DependencyCycleError):
                cycle = answer.error.cycle
                assert cycle[0] == cycle[-1]
                assert all(after in verdict.edges[before] for before, after in pairwise(cycle)), f"{cycle} is no cycle"
            return
        assert not verdict.refusals, f"applied, but the model says {verdict}"
        names = [job.job_id for job in answer.jobs]
        assert tuple(names[: len(verdict.named)]) == verdict.named
        assert sorted(names[len(verdict.named) :]) == sorted(verdict.others)
        assert verdict.changed in {None, answer.changed}
        for name, job in ((job.job_id, job) for job in answer.jobs):
            assert name not in self.model.jobs or job.status is self.model.jobs[name].status

    def _take(self, claim: Claim, claimed: Claimed) -> None:
        self.model.claim(claim, claimed, self.now)
        self.leases += [(job.job_id, claim.lease) for job in claimed.jobs]
        assert all(job.lease == claim.lease and job.worker_id == claim.worker_id for job in claimed.jobs)
        assert list(claimed.jobs) == self._run(self.store.get([job.job_id for job in claimed.jobs]))

    def _check_shown(self, result: Result) -> None:
        """An answer shows its jobs as they are, when nothing came after it."""
        match result:
            case Result((Applied(jobs),), None):
                there = [job for job in jobs if job.job_id in self.model.jobs]
                assert there == self._run(self.store.get([job.job_id for job in there]))
            case _:
                pass

    def _remember(self, changes: Sequence[Change], claim: Claim | None, result: Result) -> None:
        """Keep what can be repeated as if its reply had been lost: nothing came after it."""
        self._repeatable = None
        if claim is not None:
            self._last_claim = claim
        elif len(changes) == 1:
            self._repeatable = changes[0], _kind(result.answers[0])
        for change in changes:
            if self._last_claim is not None and getattr(change, "lease", None) == self._last_claim.lease:
                self._last_claim = None  # whoever writes under a lease knows what he holds

    async def _check_wakeups(self, now: datetime) -> None:
        """Listeners hear of what became ready, of the next due time, and of jobs whose status or holder changed."""
        before = {name: (record.status, record.lease, record.ready_at) for name, record in self.seen.items()}
        changed = {
            name
            for name, (status, lease, _) in before.items()
            if (job := self.model.jobs.get(name)) is None or (job.status, job.lease) != (status, lease)
        }
        moved = [
            job.ready_at
            for name, job in self.model.jobs.items()
            if job.ready_at is not None and (name not in before or before[name][2] != job.ready_at)
        ]
        ready = any(moment <= now for moment in moved)
        due_in = min(((moment - now).total_seconds() for moment in moved if moment > now), default=None)

        def heard() -> bool:
            told = {name for wakeup in self._wakeups for name in wakeup.changed}
            dues = [wakeup.due_in for wakeup in self._wakeups if wakeup.due_in is not None]
            return (
                told >= changed
                and (not ready or any(wakeup.ready for wakeup in self._wakeups))
                and (due_in is None or (bool(dues) and min(dues) < due_in + 0.001))
            )

        try:
            async with asyncio.timeout(_WAKEUP_LIMIT):
                while not heard():
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            msg = f"wake-ups missing: changed {changed}, ready {ready}, due in {due_in}; heard {self._wakeups}"
            raise AssertionError(msg) from None

    async def _advance(self, seconds: float) -> None:
        self.clock.advance(seconds)  # in the loop, for a store that has timers in it

    def _on_wakeup(self, wakeup: Wakeup) -> None:
        self._wakeups.append(wakeup)
        self._woken.set()

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(coroutine)


def _kind(answer: Answer) -> type:
    return type(answer.error) if isinstance(answer, Refused) else Applied
