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
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from enum import Enum
from itertools import combinations, count, permutations
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from typing_extensions import override

from openagents_json.errors import WorkerDeadError
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
    Resume,
    Start,
    Unclaim,
    Worker,
)
from openagents_json.job._record import JobSpec
from openagents_json.job.model import AttemptOutcome, DependencyFailurePolicy, JobError, JobPriority, JobStatus
from openagents_json.testing._model import FINISHED, Model, select, sort_value
from openagents_json.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
    from datetime import datetime

    from openagents_json.job._changes import Answer, Claimed, Wakeup
    from openagents_json.job._clock import Clock
    from openagents_json.job._record import JobRecord
    from openagents_json.job.storage.base import JobStore

    Reopen = Callable[[JobStore, Clock], Coroutine[Any, Any, JobStore]]

_T = TypeVar("_T")

_PENDING, _RUNNING, _PAUSED = JobStatus.PENDING, JobStatus.RUNNING, JobStatus.PAUSED
_QUEUES = ("default", "other")
_HANDLERS = ("one", "two")

#: An id that no job ever has.
NOBODY = "nobody"

#: More at once make programs slower, not better.
_MOST_JOBS = 12
_MOST_CHANGES = 4

#: What most jobs have. Its JSON leaves no room for another spacing, which a store may choose.
_USUAL_SPEC = JobSpec(
    job_id="",
    name=_HANDLERS[0],
    description="",
    handler=None,
    queue=_QUEUES[0],
    payload=b"1",
    metadata=b"{}",
    tags=(),
    priority=JobPriority.MEDIUM,
    batch_id=None,
    on_dependency_failure=DependencyFailurePolicy.CANCEL,
    max_retries=3,
    retry_delay=1.0,
    retry_policy=None,
    timeout=None,
    max_recoveries=None,
    request_id="",
)

_CHOICES = st.integers(0, 2**16 - 1)

#: How long a wake-up may be on its way, in real seconds.
_WAKEUP_LIMIT = 30.0


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


@dataclass(frozen=True, slots=True)
class Together:
    """A step: changes, and perhaps a claim, in one transaction."""

    changes: tuple[Change, ...] = ()
    claim: Claim | None = None

    @override
    def __repr__(self) -> str:
        return f"Together({_brief(self.changes)}, {_brief(self.claim)})"


@dataclass(frozen=True, slots=True)
class TimePasses:
    """A step: the clock jumps."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Visit:
    """A step: a worker registers, sends a sign of life, or leaves."""

    what: str
    """register, beat or unregister"""
    worker_id: str


@dataclass(frozen=True, slots=True)
class Again:
    """A step: the last change, or the last claim, is made again as if its reply had been lost."""

    what: str
    """change or claim"""


@dataclass(frozen=True, slots=True)
class Reopened:
    """A step: the store is closed, or lost, and opened again."""


Step = Together | TimePasses | Visit | Again | Reopened | Query


def _brief(value: object) -> str:
    """Show a value without the fields that are as in any job or change."""
    if isinstance(value, JobSpec):
        usual: dict[str, object] = _USUAL_SPEC._asdict()
        unusual = {name: field for name, field in value._asdict().items() if field != usual[name]}
        return ", ".join(f"{name}={_brief(field)}" for name, field in unusual.items())
    if is_dataclass(value):
        given = [(field.name, getattr(value, field.name), field.default) for field in fields(value)]
        shown = ", ".join(f"{name}={_brief(field)}" for name, field, default in given if field != default)
        return f"{type(value).__name__}({shown})"
    if isinstance(value, tuple):
        return f"({''.join(f'{_brief(item)}, ' for item in value)})"
    return value.name if isinstance(value, Enum) else repr(value)


@st.composite
def _steps(draw: st.DrawFn) -> Step:
    """Make up a step that fits what is there: Hypothesis gives the machine itself to what draws from `st.runner()`."""
    return _Inventor(draw, draw(st.runner())).step()


class _Inventor:
    """Makes up steps for a machine: most often such as mean something to the jobs that are there."""

    def __init__(self, draw: st.DrawFn, machine: StoreMachine) -> None:
        self._draw = draw
        self._machine = machine
        self._jobs = machine.model.jobs
        self._focus: Collection[str] = self._jobs
        self._held = [(name, job.lease) for name, job in self._jobs.items() if job.lease is not None]

    def step(self) -> Step:
        """Make up the next step."""
        machine, model = self._machine, self._machine.model
        step: Step = self._one_of([
            (3, lambda: Together((self._finish(),), self._claim()), self._held),
            (4, lambda: Together((self._finish(),)), self._held),
            (6, lambda: Together((), self._claim()), model.ready()),
            (8, lambda: Together((self._change(),)), True),
            (1, lambda: Together((), self._claim()), True),
            (2, lambda: Together((Recover(self._holder(), "silent"),)), self._held),
            (5, self._several, self._jobs),
            (3, lambda: TimePasses(self._pick([1.0, 0.25, 5.0, 60.0, 3600.0])), True),
            (1, lambda: Again("change"), machine.repeatable),
            (1, lambda: Again("claim"), machine.last_claim),
            (1, self._visit, True),
            (1, self._query, self._jobs),
            (1, Reopened, machine.reopen_store),
        ])  # fmt: skip
        return step

    def _one_of(self, kinds: Sequence[tuple[int, Callable[[], Any], object]]) -> Any:
        """Make one of these: each has its weight, and a condition without which it is left out."""
        return self._pick([make for weight, make, may in kinds if may for _ in range(weight)])()

    def _pick(self, options: Sequence[_T]) -> _T:
        # The range is always the same, or Hypothesis could not reuse a choice once it varies what came before it; and
        # scattered (by Knuth's multiplier), since it prefers small numbers. 0 stays 0: it shrinks to the first option.
        return options[self._draw(_CHOICES) * 40503 % 2**16 * len(options) >> 16]

    def _seldom(self, usual: _T, others: Sequence[_T]) -> _T:
        return self._pick(others) if self._pick([False, False, False, True]) else usual

    def _rarely(self, usual: _T, others: Sequence[_T]) -> _T:
        return self._pick(others) if self._pick([False] * 11 + [True]) else usual

    def _several(self) -> Together:
        """Make changes of a few jobs that have to do with each other."""
        first = self._pick([*self._jobs])
        near = {name for name, job in self._jobs.items() if first in job.dependencies}
        self._focus = [first, *near, *(name for name in self._jobs[first].dependencies if name in self._jobs)]
        changes = [self._change() for _ in range(self._pick(range(1, _MOST_CHANGES)))]
        there_and_back = self._edge()
        if self._pick([False, True]) and there_and_back[0] != there_and_back[1]:
            changes[:0] = [RemoveDependency(*there_and_back), AddDependency(*there_and_back)]
        return Together(tuple(changes), self._claim() if self._pick([False, True]) else None)

    def _change(self) -> Change:
        jobs = self._jobs.values()
        room = len(jobs) < _MOST_JOBS
        moves = 1 if self._held or self._machine.model.ready() else 4  # what gets jobs going where nothing moves
        pending, running = self._those(_PENDING), self._those(_RUNNING)
        unstarted = [name for name in pending if not self._jobs[name].queued]
        paused, over = self._those(_PAUSED), self._those(*FINISHED)
        roots = [name for name in over if not self._jobs[name].cancelled_with_dependency]
        needed = {dependency for name in roots for dependency in self._jobs[name].dependencies}
        outlived = [name for name in over if name in needed]
        waiting = [name for name in (*pending, *paused) if self._jobs[name].lease is None]
        change: Change = self._one_of([
            (2, lambda: self._add(1), room),
            (2, lambda: self._add(4, anything=self._rarely(False, [True])), room),
            (moves, lambda: Rerun(self._one(roots)), roots),
            (moves, lambda: Resume(self._one(paused)), paused),
            (9, lambda: self._add(2), self._survived()),
            (moves, lambda: Start(self._one(unstarted)), unstarted),
            (5, self._finish, self._held),
            (1, self._progress, self._held),
            (1, lambda: Release(*self._lease(), "shutdown"), self._held),
            (1, lambda: Unclaim(*self._lease()), self._held),
            (1, lambda: Pause(self._one(pending)), pending),
            (2, lambda: Pause(self._one(running)), running),
            (1, lambda: Cancel(self._one([*pending, *running, *paused]), "not wanted"), pending or running or paused),
            (1, lambda: Rerun(self._one(over)), over),
            (3, lambda: AddDependency(self._one(waiting), self._pick([*self._jobs, *over])), waiting),
            (2, lambda: RemoveDependency(*self._edge()), waiting),
            (2, lambda: Delete(self._one(over)), over),
            (3, lambda: Delete(self._pick(outlived)), outlived),
            (1, lambda: Delete(self._one(running)), running),
            (2, lambda: Purge(self._pick([0.0, 1.0, 60.0]), self._pick([1, 2, 3])), over),
            (1, lambda: Recover(self._holder(), "silent"), self._held),
            (2, self._misuse, True),
        ])  # fmt: skip
        return change

    def _those(self, *statuses: JobStatus) -> list[str]:
        return [name for name, job in self._jobs.items() if job.status in statuses]

    def _one(self, names: Sequence[str]) -> str:
        """Pick one of these jobs, of those in focus if there are any; seldom any job at all."""
        near = [name for name in names if name in self._focus]
        return self._rarely(self._pick(near or names), [*self._jobs])

    def _misuse(self) -> Change:
        """Ask for what is most often refused, or has no effect."""
        job_id = self._pick([*self._jobs, *(name for name, _ in self._held * 2), NOBODY])
        lease = self._pick([*self._machine.leases, (job_id, "w1:0")])
        changes: list[Change] = [
            Finish(*lease, AttemptOutcome.COMPLETED, result=b'"zombie"'),
            Finish(*lease, AttemptOutcome.FAILED, error=JobError("Zombie", "late"), retry_in=0.0),
            Progress(*lease, 0.9, "zombie"),
            Release(*lease, "zombie"),
            Unclaim(*lease),
            Start(job_id),
            Pause(job_id),
            Resume(job_id),
            Cancel(job_id, "not wanted"),
            Rerun(job_id),
            Delete(job_id),
            AddDependency(job_id, self._pick([*self._jobs, NOBODY])),
            RemoveDependency(job_id, self._pick([*self._jobs, NOBODY])),
            Recover(self._worker(), "silent"),
            self._add(3, anything=True),
        ]  # fmt: skip
        return self._pick(changes)

    def _survived(self) -> list[str]:
        """Name deleted jobs on which others depended that are still there."""
        needed = {dependency for job in self._jobs.values() for dependency in job.dependencies}
        return [name for name in self._machine.free_ids() if name in needed]

    def _edge(self) -> tuple[str, str]:
        edges = [(name, dependency) for name in self._focus for dependency in self._jobs[name].dependencies]
        return self._pick(edges or [(name, name) for name in self._jobs])

    def _lease(self) -> tuple[str, str]:
        """Give a job and a lease that holds it, seldom one that held it once."""
        near = [held for held in self._held if held[0] in self._focus]
        return self._seldom(self._pick(near or self._held), self._machine.leases)

    def _holder(self) -> str:
        return self._pick([job.worker_id for job in self._jobs.values() if job.lease and job.worker_id])

    def _worker(self) -> str:
        return self._rarely(self._pick(sorted(self._machine.model.workers)), [*sorted(self._machine.model.dead), "w0"])

    def _add(self, most: int, *, anything: bool = False) -> Add:
        """Make jobs that depend on those that exist, and on each other; `anything`: and on what they must not."""
        machine = self._machine
        request = f"request {next(machine.numbers)}"
        names = [f"j{next(machine.numbers)}" for _ in range(self._pick(range(1, most + 1)))]
        free = self._survived() or machine.free_ids()
        if free:
            names[0] = self._pick([names[0], *free])
        if anything:
            names[-1] = self._pick([*names, *self._jobs])
        jobs = []
        for position, name in enumerate(names):
            survivors = [other for other, job in self._jobs.items() if name in job.dependencies]
            near = [*self._jobs, *names[:position] * 3, *survivors * 9]
            jobs.append(self._new_job(name, [*near, *names, NOBODY] if anything else near, request))
        if self._pick([False, True]):
            jobs.reverse()
        return Add(tuple(jobs))

    def _new_job(self, job_id: str, dependencies: Sequence[str], request: str) -> NewJob:
        wanted = [self._pick(dependencies) for _ in range(self._pick([0, 0, 1, 1, 2, 3]))] if dependencies else []
        spec = _USUAL_SPEC._replace(
            job_id=job_id,
            name=self._pick(_HANDLERS),
            handler=self._seldom(None, _HANDLERS),
            queue=self._pick(_QUEUES),
            tags=self._pick([(), ("a",), ("a", "b")]),
            priority=self._pick([JobPriority.MEDIUM, *JobPriority]),
            batch_id=self._pick([None, request]),
            on_dependency_failure=self._pick([DependencyFailurePolicy.CANCEL, *DependencyFailurePolicy]),
            max_recoveries=self._pick([None, 0, 1, 2]),
            request_id=request,
        )
        delay = self._seldom(None, [0.0, 1.0, 5.0])
        soon = [self._machine.now + timedelta(seconds=seconds) for seconds in (-1.0, 0.0, 5.0)]
        run_at = None if delay is not None else self._seldom(None, soon)
        queued = self._seldom(True, [False])
        return NewJob(spec, tuple(dict.fromkeys(wanted)), queued, run_at, delay)

    def _finish(self) -> Finish:
        job_id, lease = self._lease()
        progress = self._seldom(None, [(0.75, "nearly")])
        outcome = self._pick([AttemptOutcome.COMPLETED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT])
        if outcome is AttemptOutcome.COMPLETED:
            result = str(next(self._machine.numbers)).encode()
            return Finish(job_id, lease, outcome, result=result, progress=progress)
        error = JobError("ValueError", f"no luck in {lease}")
        return Finish(
            job_id, lease, outcome, error=error, retry_in=self._pick([None, None, 0.0, 5.0]), progress=progress
        )

    def _progress(self) -> Progress:
        return Progress(*self._lease(), self._pick([0.25, 0.5]), self._pick(["", "at it"]))

    def _claim(self) -> Claim:
        worker = self._worker()
        return Claim(
            worker,
            f"{worker}:{next(self._machine.numbers)}",
            limit=self._pick([20, 1, 2, 3]),
            queues=self._pick([_QUEUES, _QUEUES[::-1], _QUEUES, _QUEUES[:1], _QUEUES[1:]]),
            min_priority=self._rarely(JobPriority.LOW, [*JobPriority]),
            exclude_handlers=self._rarely(frozenset(), [frozenset({name}) for name in _HANDLERS]),
            exclude_names=self._rarely(frozenset(), [frozenset({name}) for name in _HANDLERS]),
            exclude_jobs=self._rarely(frozenset(), [frozenset({name}) for name in (NOBODY, *self._jobs)]),
        )

    def _visit(self) -> Visit:
        what = self._pick(["register", "beat", "unregister"])
        dead = sorted(self._machine.model.dead)
        return Visit(what, self._pick([self._worker(), f"w{next(self._machine.numbers)}", *dead]))

    def _query(self) -> Query:
        seen = [*self._machine.seen.values()]
        moments = [record.created_at for record in seen]
        query = Query(
            statuses=self._seldom(None, [frozenset({status, _PENDING}) for status in JobStatus]),
            tags=self._seldom((), [("a",), ("b", "a")]),
            name=self._seldom(None, _HANDLERS),
            queue=self._seldom(None, _QUEUES),
            batch_id=self._seldom(None, [record.spec.batch_id for record in seen]),
            priority=self._seldom(None, [*JobPriority]),
            created_after=self._seldom(None, moments),
            created_before=self._seldom(None, moments),
            depends_on=self._seldom(None, [*self._jobs]),
            held_by=self._seldom(None, [self._worker()]),
            sort_by=self._pick(SORT_KEYS),
            descending=self._pick([True, False]),
            limit=self._pick([None, 1, 2, 5]),
            offset=self._seldom(0, [1, 2]),
        )
        last = self._pick([None, *seen])
        return query if last is None else replace(query, after=(sort_value(last, query), last.job_id))


class StoreMachine(RuleBasedStateMachine):
    """A store and its model, changed in step. Subclassed by `store_machine`.

    Attributes:
        clock: the store's time.
        store: the store, open.
        model: what it must hold.
        seen: its records after the last step, by id.
        leases: every job ever claimed, and the lease.
        repeatable: the last change and what became of it, if nothing has come after it.
        last_claim: the last claim, if nobody has written under its lease.
        numbers: for ids of any kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock: ManualClock = ManualClock()
        self.model: Model = Model()
        self.seen: dict[str, JobRecord] = {}
        self.leases: list[tuple[str, str]] = []
        self.numbers: Iterator[int] = count(1)
        self._edits: dict[str, int] = {}
        self._deleted: dict[str, None] = {}
        self.repeatable: tuple[Change, type] | None = None
        self.last_claim: Claim | None = None
        self._reran = False
        self._forgettable: set[str] = set()
        self._wakeups: list[Wakeup] = []
        self._woken = asyncio.Event()
        # A factory keeps the runner from replacing, and then removing, the event loop of whoever runs the test.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        try:
            self.store: JobStore = self.make_store()
            self._run(self.store.open())
            self._unlisten = self.store.listen(self._on_wakeup)
            for name in ("w1", "w2"):
                self._register(name)
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
        return [name for name in self._deleted if name not in lost and name not in self.model.jobs]

    @override
    def teardown(self) -> None:
        try:
            self._run(self.store.close())
        finally:
            self._runner.close()

    # ---------------------------------------------------------------------------------------------- the steps

    @rule(step=_steps())
    def do(self, step: Step) -> None:
        """Take one step."""
        match step:
            case Together(changes, claim):
                self._apply(*changes, claim=claim)
            case TimePasses(seconds):
                self._run(self._advance(seconds))
            case Visit("register", worker_id):
                self._register(worker_id)
            case Visit("beat", worker_id):
                assert self._run(self.store.beat(worker_id)) is (worker_id in self.model.workers)
            case Visit(_, worker_id):
                self._unregister(worker_id)
            case Again("change"):
                self._repeat()
            case Again() if self.last_claim is not None:
                self._apply(claim=replace(self.last_claim, repeated=True))
            case Query():
                self._look(step)
            case _:
                self._reopen()
        while len(self.model.workers) < 2:
            self._register(f"w{next(self.numbers)}")

    def _register(self, worker_id: str) -> None:
        try:
            self._run(self.store.register(Worker(worker_id, 300.0)))
        except WorkerDeadError:
            assert worker_id in self.model.dead
        else:
            forgotten = worker_id in self._forgettable
            assert worker_id not in self.model.dead or forgotten, "who was declared dead is dead for good"
            self.model.dead.discard(worker_id)
            self.model.workers.add(worker_id)

    def _unregister(self, worker_id: str) -> None:
        self._run(self.store.unregister(worker_id))
        if not self.model.holders().get(worker_id):
            self.model.workers.discard(worker_id)

    def _repeat(self) -> None:
        """Make the last change again: same verdict, and the effect happens once."""
        assert self.repeatable is not None
        change, kind = self.repeatable
        self._apply(change)
        assert self.repeatable == (change, kind)
        if not isinstance(change, Progress | Purge):
            assert self._run(self.store.get([*self.seen])) == [*self.seen.values()]

    def _look(self, query: Query) -> None:
        found = select(self.seen.values(), query)
        assert self._run(self.store.count(query)) == len(found)
        if query.after is not None:
            keys = [(sort_value(record, query), record.job_id) for record in found]
            passed = sum(key >= query.after if query.descending else key <= query.after for key in keys)
            found = found[passed:]
        stop = None if query.limit is None else query.offset + query.limit
        assert self._run(self.store.find(query)) == found[query.offset : stop]

    def _reopen(self) -> None:
        assert self.reopen_store is not None
        self._unlisten()
        self.store = self._run(self.reopen_store(self.store, self.clock))
        self._forgettable = set() if self.store.traits.shared else set(self.model.dead)
        self._unlisten = self.store.listen(self._on_wakeup)
        for worker_id in sorted(self.model.workers):
            self._register(worker_id)

    # ----------------------------------------------------------------------------------------- what must hold

    @invariant()
    def jobs_are_as_the_model_says(self) -> None:
        """No job is lost, none too many, each is what it must be, and none changed without a reason."""
        now = self.now
        records = {record.job_id: record for record in self._run(self.store.find(Query()))}
        self.model.compare(records.values(), now)
        for record in records.values():
            self._check_history(record, now)
        assert self._run(self.store.get([*records, NOBODY])) == [*records.values()]
        assert self._run(self.store.count(Query())) == len(records)
        self._deleted.update(dict.fromkeys(self.seen.keys() - records.keys()))
        self.seen = records
        self._edits = {name: job.edits for name, job in self.model.jobs.items()}

    @invariant()
    def workers_hold_what_the_model_says(self) -> None:
        """Each living worker holds its jobs, and a dead one none."""
        assert {state.worker.worker_id for state in self._run(self.store.workers())} == self.model.workers
        for worker_id, held in self.model.holders().items():
            found = self._run(self.store.find(Query(held_by=worker_id)))
            assert {record.job_id for record in found} == held
            assert not held or worker_id in self.model.workers

    def _check_history(self, record: JobRecord, now: datetime) -> None:
        """Compare a job with what it was before the step."""
        for moment in (record.started_at, record.completed_at):
            assert moment is None or record.created_at <= moment <= record.updated_at
        before = self.seen.get(record.job_id)
        if before is None or before.spec.request_id != record.spec.request_id:
            assert record.created_at == record.updated_at == now
        elif record != before:
            edited = self.model.jobs[record.job_id].edits > self._edits[record.job_id]
            assert edited, f"nothing should have changed {record.job_id}"
            assert record.version > before.version
            assert record.updated_at == now
            assert self._reran or record.status is before.status or not before.status.finished, "over is over"

    # -------------------------------------------------------------------------------------- one transaction

    def _apply(self, *changes: Change, claim: Claim | None = None) -> None:
        """Make changes in the store and in the model, and compare what came of it."""
        self._wakeups.clear()
        result = self._run(self.store.apply(changes, claim=claim))
        shown = self._run(self.store.find(Query()))
        self.model = self._followed([*zip(changes, result.answers, strict=True)], claim, result.claimed, shown)
        if result.claimed is not None and claim is not None:
            self.leases += [(job.job_id, claim.lease) for job in result.claimed.jobs]
            assert set(result.claimed.jobs) <= set(shown)
        elif len(changes) == 1 and isinstance(result.answers[0], Applied):
            there = [job for job in result.answers[0].jobs if job.job_id in self.model.jobs]
            assert set(there) <= set(shown), "an answer shows jobs as they are"
        self._run(self._hear_wakeups(None if claim is None else claim.lease))
        self._reran = any(isinstance(change, Rerun) for change in changes)
        self._remember(changes, claim, result.answers)

    def _followed(
        self,
        answered: Sequence[tuple[Change, Answer]],
        claim: Claim | None,
        claimed: Claimed | None,
        shown: Sequence[JobRecord],
    ) -> Model:
        """Find an order of the changes, of those a store may choose, that leads to what it answered and shows."""
        assert (claim is None) is (claimed is None)
        trouble: AssertionError | None = None
        for order in _orders(answered):
            model = self.model.copy()
            try:
                for change, answer in order:
                    model.apply(change, answer, self.now)
                if claim is not None and claimed is not None:
                    model.claim(claim, claimed, self.now)
                model.compare(shown, self.now)
            except AssertionError as exc:
                trouble = trouble or exc
            else:
                return model
        raise trouble or AssertionError

    def _remember(self, changes: Sequence[Change], claim: Claim | None, answers: Sequence[Answer]) -> None:
        """Keep what can be repeated as if its reply had been lost: nothing came after it."""
        self.repeatable = None
        if claim is not None:
            self.last_claim = claim
        elif len(changes) == 1:
            kind = type(answers[0].error) if isinstance(answers[0], Refused) else Applied
            self.repeatable = changes[0], kind
        for change in changes:
            if self.last_claim is not None and getattr(change, "lease", None) == self.last_claim.lease:
                self.last_claim = None  # whoever writes under a lease knows what he holds

    async def _hear_wakeups(self, lease: str | None) -> None:
        """Wait until listeners have heard what they must."""
        missing = ""
        try:
            async with asyncio.timeout(_WAKEUP_LIMIT):
                while missing := self._unheard(lease):
                    self._woken.clear()
                    await self._woken.wait()
        except TimeoutError:
            msg = f"no wake-up told {missing}: {self._wakeups}"
            raise AssertionError(msg) from None

    def _unheard(self, lease: str | None) -> str:
        """Say what wake-ups do not tell of the last step: changed jobs, ready ones, or the next due time.

        Args:
            lease: the claim that came with it; who was claimed need not be told.
        """
        told: set[str] = set()
        for wakeup in self._wakeups:
            told.update(self.seen if wakeup.changed is None else wakeup.changed)
        for name, before in self.seen.items():
            job = self.model.jobs.get(name)
            same = job is not None and (job.status, job.lease) == (before.status, before.lease)
            just_claimed = job is not None and job.lease is not None and job.lease == lease
            if name not in told and not same and not just_claimed:
                return f"that {name} changed"
        for name, job in self.model.jobs.items():
            if job.ready_at is None or (name in self.seen and self.seen[name].ready_at == job.ready_at):
                continue
            wait = (job.ready_at - self.now).total_seconds()
            if wait <= 0 and not any(wakeup.ready for wakeup in self._wakeups):
                return f"that {name} is ready"
            due = [wakeup.due_in for wakeup in self._wakeups if wakeup.due_in is not None]
            if wait > 0 and not any(due_in < wait + 0.001 for due_in in due):
                return f"that {name} is due in {wait} seconds"
        return ""

    def _on_wakeup(self, wakeup: Wakeup) -> None:
        self._wakeups.append(wakeup)
        self._woken.set()

    async def _advance(self, seconds: float) -> None:
        self.clock.advance(seconds)  # in the loop, for a store that has timers in it

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        # Not `Runner.run`: what it does about SIGINT takes longer than what is run here.
        return self._runner.get_loop().run_until_complete(coroutine)


def _orders(answered: Sequence[tuple[Change, Answer]]) -> Iterator[tuple[tuple[Change, Answer], ...]]:
    """Give the orders in which changes of one call may take effect: as they came, then others."""
    for order in permutations(range(len(answered))):
        if all(
            here < there or _may_swap(answered[here][0], answered[there][0]) for here, there in combinations(order, 2)
        ):
            yield tuple(answered[position] for position in order)


def _may_swap(change: Change, other: Change) -> bool:
    """Tell whether the order of two changes is the store's own: not of two `Add`s, nor of one job's changes."""
    if isinstance(change, Add) and isinstance(other, Add):
        return False
    return not _named(change) & _named(other)


def _named(change: Change) -> set[str]:
    match change:
        case Add(jobs):
            return {new.spec.job_id for new in jobs}
        case Purge() | Recover():
            return set()
        case _:
            return {change.job_id}
