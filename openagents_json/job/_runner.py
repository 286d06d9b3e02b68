"""`Runner`: sees each claimed job through, from its claim to its stored outcome.

Every job has an owner here: a task that awaits its `Execution` and stores what came of it, however long the store is
away. An attempt that does not end when it should keeps its slot, and its job out of this process, until it does.
The runner also follows what the store says about the jobs that run here, and compares the two now and then.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any, TypeVar

from openagents_json.errors import NonRetryableError, Retry, StoreUnavailableError
from openagents_json.job import _codec, _lifecycle
from openagents_json.job._changes import Finish, Progress, Query, Refused, Release
from openagents_json.job._executor import Execution, Failed, Gone, Released, StopReason, Succeeded, TimedOut
from openagents_json.job._slots import CRITICAL
from openagents_json.job.events import EventType, event_of
from openagents_json.job.model import AttemptOutcome, JobError
from openagents_json.job.retry import LONGEST_DELAY, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from openagents_json.job._changes import Answer, Change
    from openagents_json.job._executor import Environment, Outcome
    from openagents_json.job._record import JobRecord
    from openagents_json.job._writer import Writer
    from openagents_json.job.handlers import Handler
    from openagents_json.job.storage.base import JobStore

T = TypeVar("T")

#: How long to wait before asking a store again that did not answer.
BACKOFF = RetryPolicy.exponential(0.1, max_delay=10.0, jitter=0.5)

#: How long the outcomes of interrupted jobs may take to be stored when the manager stops (seconds).
_LAST_WRITES = 5.0

#: How often an outcome may be refused by a store that is otherwise well, before the job is failed instead.
_TRIES_PER_OUTCOME = 3

logger = logging.getLogger(__name__)


class Runner:
    """Runs the jobs it is given.

    Attributes:
        running: the executions whose outcome is not stored yet, by job id.
        lingering: the attempts that go on although the job is not theirs any more, by job id.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        writer: Writer,
        environment: Environment,
        tell: Callable[[EventType, JobRecord], None],
        is_followed: Callable[[str], bool],
        wake: Callable[[], None],
    ) -> None:
        self.running: dict[str, Execution] = {}
        self.lingering: dict[str, Execution] = {}
        self._store = store
        self._writer = writer
        self._environment = environment
        self._clock = environment.clock
        self._tell = tell
        self._is_followed = is_followed
        self._wake = wake
        self._owners: set[asyncio.Task[None]] = set()
        self._suspects: set[str] = set()
        self._looking: asyncio.Task[None] | None = None
        self._orphans: set[tuple[str, str | None]] = set()
        self._none_running = asyncio.Event()
        self._giving_up = asyncio.Event()

    def start(self, record: JobRecord, handler: Handler) -> None:
        """Run a job that has just been claimed."""
        previous = self.running.get(record.job_id) or self.lingering.get(record.job_id)
        execution = Execution(record, handler, self._environment, self.report_progress)
        self._environment.slots.take(record.spec.priority)
        self.running[record.job_id] = execution
        owner = asyncio.get_running_loop().create_task(
            self._own(execution, previous), name=f"owner of job {record.job_id}"
        )
        self._owners.add(owner)
        owner.add_done_callback(self._owners.discard)
        self._tell(EventType.STARTED, record)

    def freed_by(self, changes: Sequence[Change]) -> tuple[int, int]:
        """Count the slots that come free when these changes are stored, and those of CRITICAL jobs among them."""
        ending = [
            execution
            for change in changes
            if isinstance(change, Finish | Release)
            and (execution := self.running.get(change.job_id)) is not None
            and execution.holds_slot
            and execution.done
        ]
        return len(ending), sum(execution.record.spec.priority is CRITICAL for execution in ending)

    def follow(self, record: JobRecord) -> None:
        """Make the execution of a job conform to what the store says about it."""
        execution = self.running.get(record.job_id)
        if execution is not None:
            execution.follow(record)
            if execution.stopping:
                self.lingering[record.job_id] = execution

    def look_at_changed(self, job_ids: Iterable[str] | None) -> None:
        """Read those of the jobs (None: of all) that run here, and follow what the store says."""
        if self.running:
            suspects = [
                job_id for job_id in (tuple(self.running) if job_ids is None else job_ids) if self._is_under_way(job_id)
            ]
            if suspects:
                self._look_at(suspects)

    def lose_everything(self) -> None:
        """End all attempts: the worker was declared dead, and its jobs are not its own any more."""
        for job_id, execution in self.running.items():
            execution.stop(StopReason.LOST)
            self.lingering[job_id] = execution

    def report_progress(self, execution: Execution, fraction: float, message: str) -> None:
        """Store progress, without waiting for it."""
        change = Progress(execution.job_id, execution.lease, fraction, message)
        self.send(change, lambda answer: self._progress_stored(execution, change, answer))

    def send(self, change: Change, then: Callable[[Answer], None] = lambda _: None) -> None:
        """Hand in a change nobody waits for; if it is lost, the next audit mends what is to be mended."""

        def answered(future: asyncio.Future[Answer]) -> None:
            if future.cancelled() or future.exception() is not None:
                logger.warning("%s was not stored: %s", type(change).__name__, future.exception())
            else:
                then(future.result())

        self._writer.submit(change).add_done_callback(answered)

    async def audit(self, worker_id: str) -> None:
        """Compare what the store says this worker holds with what it runs, and mend the difference.

        A job that is held but not run (a claim whose reply was lost for good) is released when it is found so twice.
        """
        held = await self._store.find(Query(held_by=worker_id))
        orphans = {
            (job.job_id, job.lease)
            for job in held
            if job.job_id not in self.running or self.running[job.job_id].lease != job.lease
        }
        for job in held:
            self.follow(job)
        for job_id, lease in orphans & self._orphans:
            logger.warning("job %s is held by this worker, which does not run it; it is released", job_id)
            self.send(Release(job_id, lease or "", "its worker lost track of it"))
        self._orphans = orphans
        here = {job.job_id for job in held}
        self._look_at([job_id for job_id in self.running if job_id not in here and self._is_under_way(job_id)])

    def interrupt(self) -> None:
        """Interrupt what runs, because the manager stops."""
        for execution in self.running.values():
            execution.stop(StopReason.SHUTDOWN)

    async def stop(self, timeout: float) -> None:
        """Let running jobs finish for `timeout` seconds, then interrupt and release them; always ends."""
        for execution in self.running.values():
            if execution.held:
                execution.stop(StopReason.SHUTDOWN)
        await self._wait_none_running(timeout)
        self.interrupt()
        await self._wait_none_running(self._environment.cancel_grace + _LAST_WRITES)
        self._giving_up.set()
        await self._wait_none_running(1.0)
        tasks = [task for task in (*self._owners, self._looking) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)

    async def _wait_none_running(self, timeout: float) -> None:
        if self.running and timeout > 0:
            self._none_running.clear()
            await self._clock.wait(self._none_running, timeout)

    async def _own(self, execution: Execution, previous: Execution | None) -> None:
        """See an attempt through: run it, store its outcome, keep its slot until it has really ended."""
        job_id = execution.job_id
        if previous is not None:
            previous.stop(StopReason.LOST)
            await previous.wait_done()
        results = await self._dependency_results(execution.record)
        outcome = await execution.run(results)
        if not execution.done:
            self.lingering[job_id] = execution
        change = self._change_for(execution, outcome)
        if change is not None:
            await self._store_outcome(execution, change)
        if self.running.get(job_id) is execution:
            del self.running[job_id]
        if not self.running:
            self._none_running.set()
        await execution.wait_done()
        execution.close()
        if self.lingering.get(job_id) is execution:
            del self.lingering[job_id]
            self._wake()

    async def _dependency_results(self, record: JobRecord) -> dict[str, Any]:
        if not record.dependencies:
            return {}
        found = {job.job_id: job for job in await self._insist(lambda: self._store.get(record.dependencies)) or ()}
        return {
            name: None if found[name].result is None else _codec.decode(found[name].result or b"null")
            for name in record.dependencies
            if name in found
        }

    def _change_for(self, execution: Execution, outcome: Outcome) -> Finish | Release | None:
        job_id, lease = execution.job_id, execution.lease
        match outcome:
            case Succeeded(result):
                return Finish(job_id, lease, AttemptOutcome.COMPLETED, result=result, progress=execution.progress)
            case Failed(error, exception):
                return self._failure(execution, AttemptOutcome.FAILED, error, exception)
            case TimedOut(error):
                return self._failure(execution, AttemptOutcome.TIMED_OUT, error, TimeoutError(error.message))
            case Released():
                return Release(job_id, lease, "its manager was shut down")
            case Gone():
                return None

    def _failure(
        self, execution: Execution, outcome: AttemptOutcome, error: JobError, exception: BaseException
    ) -> Finish:
        retry_in = retry_delay(execution.record, execution.handler, exception, random.random())
        return Finish(
            execution.job_id, execution.lease, outcome, error=error, retry_in=retry_in, progress=execution.progress
        )

    async def _store_outcome(self, execution: Execution, change: Finish | Release) -> None:
        """Store an outcome, however long the store is away; tell of it when it is stored."""
        try:
            answer = await self._insist(lambda: self._submit_outcome(execution, change), tries=_TRIES_PER_OUTCOME)
        except Exception as exc:
            logger.exception("the store does not take the outcome of job %s, which fails instead", change.job_id)
            error = JobError("StoreError", f"its outcome could not be stored: {exc}")
            failure = Finish(change.job_id, change.lease, AttemptOutcome.FAILED, error=error)
            answer = await self._insist(lambda: self._submit_outcome(execution, failure))
        if answer is None:
            logger.error("the outcome of job %s is not stored; it will be recovered and run again", change.job_id)
        elif isinstance(answer, Refused):
            logger.info("the outcome of job %s came too late: %s", change.job_id, answer.error)

    def _submit_outcome(self, execution: Execution, change: Finish | Release) -> asyncio.Future[Answer]:
        return self._writer.submit(change, lambda answer: self._tell_outcome(execution, change, answer))

    def _tell_outcome(self, execution: Execution, change: Finish | Release, answer: Answer) -> None:
        if isinstance(answer, Refused):
            return
        if not self._is_followed(change.job_id) and not answer.jobs:
            return
        now = answer.at or self._store.now()
        if isinstance(change, Release):
            self._tell(EventType.RELEASED, _lifecycle.release(execution.record, change.lease, change.why, now))
        else:
            after = _lifecycle.finish(execution.record, change, now)
            self._tell(event_of(after, EventType.RETRYING), after)
        for cascaded in answer.jobs:
            self._tell(event_of(cascaded, EventType.QUEUED), cascaded)

    async def _insist(self, call: Callable[[], Awaitable[T]], *, tries: int | None = None) -> T | None:
        """Call the store until it answers; None when the manager stops and gives up on it.

        Args:
            call: what to call.
            tries: after so many failures that are no outage, raise the last; None: never.
        """
        failures = errors = 0
        while True:
            try:
                return await call()
            except Exception as exc:
                failures += 1
                errors += not isinstance(exc, StoreUnavailableError)
                if self._giving_up.is_set():
                    return None
                if errors == tries:
                    raise
                delay = BACKOFF.delay_before(failures, random.random())
                logger.warning("the store did not do its work, trying again in %.1f s: %s", delay, exc)
            await self._clock.wait(self._giving_up, delay)

    def _progress_stored(self, execution: Execution, change: Progress, answer: Answer) -> None:
        if isinstance(answer, Refused):
            self._look_at([change.job_id])
        else:
            self._tell(
                EventType.PROGRESS, _lifecycle.progress(execution.record, change, answer.at or self._store.now())
            )

    def _is_under_way(self, job_id: str) -> bool:
        execution = self.running.get(job_id)
        return execution is not None and execution.under_way

    def _look_at(self, job_ids: Iterable[str]) -> None:
        self._suspects.update(job_ids)
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="look at changed jobs")

    async def _look(self) -> None:
        try:
            while self._suspects:
                job_ids, self._suspects = tuple(self._suspects), set()
                records = await self._insist(lambda ids=job_ids: self._store.get(ids))  # type: ignore[misc]
                if records is None:
                    return
                for record in records:
                    self.follow(record)
                for job_id in set(job_ids) - {record.job_id for record in records}:
                    if job_id in self.running:
                        self.running[job_id].stop(StopReason.LOST)
        finally:
            self._looking = None


def retry_delay(record: JobRecord, handler: Handler, exception: BaseException, chance: float) -> float | None:
    """Decide whether a failed attempt is tried again.

    Args:
        record: the job, before the failure is counted.
        handler: who raised it; its own policy goes before the job's.
        exception: what it raised.
        chance: a random number in [0, 1) for the jitter.

    Returns:
        Seconds to wait; None: not again.
    """
    spec, retry = record.spec, record.retry_count + 1
    if retry > spec.max_retries or isinstance(exception, NonRetryableError):
        return None
    if isinstance(exception, Retry) and exception.delay is not None:
        return min(exception.delay, LONGEST_DELAY)
    if handler.retry_policy is not None:
        try:
            return handler.own_delay(retry, exception, chance)
        except Exception:
            # the user's code: its failure must not lose the outcome it is asked about
            logger.exception("the retry policy of handler %r failed; the job's own is used", handler.name)
    if spec.retry_policy is not None:
        return spec.retry_policy.delay_before(retry, chance)
    return spec.retry_delay
