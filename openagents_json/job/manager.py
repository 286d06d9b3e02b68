"""`JobManager`: the public, async face of the job engine. It checks, asks the store, and tells; it decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from typing_extensions import override

from openagents_json.errors import ConfigurationError, JobCancelledError, JobFailedError
from openagents_json.job import _signals
from openagents_json.job._changes import (
    Add,
    AddDependency,
    Applied,
    Cancel,
    Delete,
    Pause,
    RemoveDependency,
    Rerun,
    Resume,
    Start,
)
from openagents_json.job._checks import check_id, check_number
from openagents_json.job._clock import Clock, SystemClock
from openagents_json.job._codec import check_text
from openagents_json.job._config import UNSET, ManagerConfig, Unset, configuration_errors
from openagents_json.job._lifetime import Lifetime
from openagents_json.job._reader import JobReader
from openagents_json.job._runtime import Runtime
from openagents_json.job._shown import shown
from openagents_json.job._submission import Submission
from openagents_json.job.context import JobContext
from openagents_json.job.events import EventBus, EventType, event_of
from openagents_json.job.handlers import Handler, HandlerRegistry, RetryDelay, Scope, callers_scope
from openagents_json.job.model import Job, JobStatus
from openagents_json.job.retry import RetryPolicy
from openagents_json.job.storage import JobStore, store_from_settings

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from openagents_json.job._changes import Answer, Change
    from openagents_json.job._record import JobRecord, JobSpec
    from openagents_json.job.model import BatchJob, JobOptions

F = TypeVar("F", bound=Callable[..., Any])


class JobManager(JobReader):
    """Creates, runs and controls jobs.

    Use it with ``async with``, or call `start` and `stop`; used without either, it starts when it is first needed,
    and ends with its event loop. One manager serves one event loop at a time.

    To run jobs in a way of your own, register handlers, or override `execute_job`.

    Args:
        job_store: where jobs are kept; None: as the settings say, in memory by default.
        retention_days: finished jobs are deleted after that many days; None: never. Default: from the settings.
        max_concurrent_jobs: how many jobs run at once. Default: from the settings.
        critical_slots: how many more CRITICAL jobs may run when all other slots are taken.
        queues: the queues whose jobs it runs. Priority is strict within each; they take turns in being served first.
        run_jobs: False makes a producer or viewer, which runs, recovers and deletes nothing by itself.
        shutdown_timeout: seconds that running jobs get to finish in `stop`. Default: from the settings.
        job_recovery_timeout_minutes: how long this manager may be silent before others take its jobs over; fractions
            are allowed. Default: from the settings.
        clock: for tests that move time.

    Attributes:
        job_store: where jobs are kept.
        events: what happens to jobs; see `EventBus`.

    Raises:
        ConfigurationError: an argument or a setting makes no sense.
    """

    def __init__(
        self,
        job_store: JobStore | None = None,
        *,
        retention_days: float | Unset | None = UNSET,
        max_concurrent_jobs: int | None = None,
        critical_slots: int = 0,
        queues: Sequence[str] = ("default",),
        run_jobs: bool = True,
        shutdown_timeout: float | None = None,
        job_recovery_timeout_minutes: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        from openagents_json.settings import settings  # noqa: PLC0415 - loads pydantic-settings, which takes its time

        self._config = ManagerConfig.complete(
            settings.job,
            retention_days=retention_days,
            max_concurrent_jobs=max_concurrent_jobs,
            critical_slots=critical_slots,
            queues=queues,
            run_jobs=run_jobs,
            shutdown_timeout=shutdown_timeout,
            job_recovery_timeout_minutes=job_recovery_timeout_minutes,
        )
        if job_store is None:
            job_store = store_from_settings(settings)
        elif not isinstance(job_store, JobStore):
            raise ConfigurationError(f"job_store must be a JobStore (not a class or a name), not {shown(job_store)}")
        super().__init__(job_store)
        self.events: EventBus = EventBus(self._read)
        self._clock = clock or SystemClock()
        self._handlers = HandlerRegistry()
        with configuration_errors():
            self._submission = Submission(settings.job, self._handlers)
        self._lifetime = Lifetime(self._make_runtime)

    @override
    def __repr__(self) -> str:
        lifetime = self._lifetime
        state = "running" if lifetime.runtime is not None else "stopped" if lifetime.stopped else "not started"
        return f"<{type(self).__name__} on {self.job_store!r}, {state}>"

    @property
    def retention_days(self) -> float | None:
        """Finished jobs are deleted after that many days; None: never."""
        return self._config.retention_days

    @property
    def max_concurrent_jobs(self) -> int:
        """How many jobs run at once."""
        return self._config.max_concurrent_jobs

    # starting and stopping

    async def __aenter__(self) -> Self:
        """Start the manager."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the manager."""
        await self.stop()

    async def start(self) -> None:
        """Open the store, put back interrupted jobs, and begin to run what is ready; no effect when it runs.

        Raises:
            StoreError: the store cannot be opened.
        """
        await self._lifetime.start()

    async def stop(self, timeout: float | None = None) -> None:
        """Stop: claim nothing more, let running jobs finish, interrupt and put back those that do not.

        Jobs that are put back run again, here or elsewhere, once there is a worker; that uses up no retry. Always
        ends, also while the store does not answer: what cannot be stored then is recovered by the next start.

        Args:
            timeout: seconds that running jobs get to finish. Default: `shutdown_timeout`.
        """
        seconds = self._config.shutdown_timeout
        if timeout is not None:
            with configuration_errors():
                seconds = check_number(timeout, "timeout")
        await self._lifetime.stop(seconds)

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, then `stop`. A second signal interrupts the jobs that still run."""
        await self.start()
        async with _signals.caught() as signals:
            await signals.wait()
            stopping = asyncio.ensure_future(self.stop())
            try:
                while not stopping.done():
                    await signals.wait_or(stopping)
                    if self._lifetime.runtime is not None and not stopping.done():
                        self._lifetime.runtime.interrupt()
            finally:
                await stopping

    # handlers

    @overload
    def handler(self, name: F) -> F: ...

    @overload
    def handler(
        self, name: str | None = None, *, retry_policy: RetryDelay | RetryPolicy | None = None
    ) -> Callable[[F], F]: ...

    def handler(self, name: Any = None, *, retry_policy: RetryDelay | RetryPolicy | None = None) -> Any:
        """Register the decorated function as a handler: ``@manager.handler("send mail")``.

        Args:
            name: what jobs ask for. Default: the function's own name.
            retry_policy: see `register_handler`.

        Raises:
            InvalidHandlerError: the function cannot be called as a handler, or the name belongs to another one.
        """
        scope = callers_scope()

        def register(function: F) -> F:
            self._register(None if callable(name) else name, function, retry_policy, scope)
            return function

        return register(name) if callable(name) else register

    def register_handler(
        self, name: str | None, function: F, *, retry_policy: RetryDelay | RetryPolicy | None = None
    ) -> F:
        """Make a function the handler of a name.

        Its first parameter is the payload, validated against its annotation (a pydantic model, dataclass, TypedDict
        or any other type pydantic knows); a parameter annotated `JobContext`, or named ``context``, gets the
        context; either may be missing. It is ``async def``, or a plain function, which then runs in a thread. What
        it returns is the job's result.

        Args:
            name: what jobs ask for; None: the function's own name.
            function: the handler.
            retry_policy: a `RetryPolicy`, or a function called with the number of the retry and the exception, which
                returns the seconds to wait, or None to give up. It goes before the job's own policy, within the job's
                `max_retries`.

        Returns:
            The function.

        Raises:
            InvalidHandlerError: the function cannot be called as a handler, or the name belongs to another one.
        """
        self._register(name, function, retry_policy, callers_scope())
        return function

    async def execute_job(self, job: Job, context: JobContext) -> Any:
        """Run a job that has no handler; to be overridden (as a coroutine or plain function). Returns the result."""
        raise NotImplementedError

    # creating jobs

    async def create_job(self, name: str, **options: Unpack[JobOptions]) -> Job:
        """Store a new job.

        Args:
            name: what it is called; also selects the handler, unless `handler` does. Up to 255 characters.
            options: see `JobOptions`.

        Returns:
            The job. Unless ``auto_start=True``, it waits for `start_job`.

        Raises:
            InvalidJobError: an argument is wrong.
            InvalidHandlerError: `handler` is a function that is not registered.
            TypeError: there is no such option.
            DuplicateJobError: the `job_id` is taken.
            DependencyError: a dependency does not exist, or is the job itself.
            StoreError: the store did not answer, or could not do it.
        """
        return await self._create(name, options, auto_start=False)

    async def create_job_batch(self, specs: Sequence[BatchJob], *, auto_start: bool = False) -> tuple[str, list[Job]]:
        """Store several jobs, all or none.

        Args:
            specs: a dict for each job: its ``name``, and any of `JobOptions`. A dependency may be a position in
                this list.
            auto_start: for the jobs that do not say themselves.

        Returns:
            The batch's id, and the jobs in the order given.

        Raises:
            InvalidJobError: an argument is wrong; `field` names the job by its position.
            DuplicateJobError: a `job_id` is taken.
            DependencyError: a dependency does not exist, or they form a cycle, which is named.
            StoreError: the store did not answer, or could not do it.
        """
        batch_id, jobs = self._submission.batch(specs, auto_start=auto_start)
        answer = await self._change(Add(jobs), EventType.CREATED)
        return batch_id, [self._job(record) for record in answer.jobs]

    async def run_job(self, name: str, **options: Unpack[JobOptions]) -> Any:
        """Create a job, start it, and wait for its result.

        Cancelling the caller leaves the job running. Inside a handler, the handler's slot is lent meanwhile.

        Raises:
            JobFailedError: it failed; the error has its type, message and traceback.
            JobCancelledError: it was cancelled.
        """
        job = await self._create(name, options, auto_start=True)
        done = await self.wait_for_job(job.job_id)
        if done.status is JobStatus.COMPLETED:
            return done.result
        kind = JobCancelledError if done.status is JobStatus.CANCELLED else JobFailedError
        raise kind(done.job_id, done.status.value, done.error)

    # controlling jobs

    async def start_job(self, job_id: str) -> Job:
        """Queue a job that was created without being started; no effect on one that is queued or running.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidTransitionError: it is paused, or over.
            StoreError: the store did not answer.
        """
        return await self._control(Start(check_id(job_id)), EventType.QUEUED)

    async def pause_job(self, job_id: str) -> Job:
        """Suspend a job: one that waits is not started, one that runs is held at its next ``await``.

        The handler need not know. Its locks and connections stay held; tasks it spawned and threads go on until they
        come back to it. A plain function cannot be held: its result counts when it returns.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidTransitionError: it is over.
            StoreError: the store did not answer.
        """
        return await self._control(Pause(check_id(job_id)), EventType.PAUSED)

    async def resume_job(self, job_id: str) -> Job:
        """Let a paused job go on; no effect on one that is not paused.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidTransitionError: it is over.
            StoreError: the store did not answer.
        """
        return await self._control(Resume(check_id(job_id)), EventType.RESUMED)

    async def cancel_job(self, job_id: str, reason: str = "") -> Job:
        """Cancel an unfinished job, wherever it runs, and the jobs that depend on it, as they asked.

        It is cancelled when this returns; its handler is told at once and may take a moment to end. What it still
        returns is ignored.

        Args:
            job_id: the job.
            reason: kept as the message of its error.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidTransitionError: it has completed or failed.
            StoreError: the store did not answer.
        """
        why = check_text(reason, "reason", longest=10_000) or "on request"
        return await self._control(Cancel(check_id(job_id), why), EventType.CANCELLED)

    async def retry_job(self, job_id: str) -> Job:
        """Run a finished job again, with a fresh set of retries; it keeps its history.

        Dependents that were cancelled because of it come back, too; dependents that still wait, wait for it anew.

        Raises:
            JobNotFoundError: there is no such job.
            InvalidTransitionError: it is not over, or a dependency of it has failed.
            StoreError: the store did not answer.
        """
        return await self._control(Rerun(check_id(job_id)), EventType.QUEUED)

    async def delete_job(self, job_id: str) -> bool:
        """Delete a job; False when there is none.

        Raises:
            InvalidTransitionError: a worker holds it (cancel it first).
            JobInUseError: an unfinished job depends on it.
            StoreError: the store did not answer.
        """
        answer = await self._change(Delete(check_id(job_id)), EventType.DELETED)
        return answer.changed

    async def add_job_dependency(self, job_id: str, depends_on_id: str) -> Job:
        """Make a job that has not begun wait for another one; no effect when it does already.

        Raises:
            JobNotFoundError: there is no job `job_id`.
            UnknownDependencyError: there is no job `depends_on_id`.
            DependencyCycleError: they would wait for each other; it names the cycle.
            InvalidTransitionError: the job has begun, or is over.
            StoreError: the store did not answer.
        """
        change = AddDependency(check_id(job_id), check_id(depends_on_id, "depends_on_id"))
        return await self._control(change, None)

    async def remove_job_dependency(self, job_id: str, depends_on_id: str) -> Job:
        """Stop a job that has not begun from waiting for another one; no effect when it does not.

        Raises:
            JobNotFoundError: there is no job `job_id`.
            InvalidTransitionError: the job has begun, or is over.
            StoreError: the store did not answer.
        """
        change = RemoveDependency(check_id(job_id), check_id(depends_on_id, "depends_on_id"))
        return await self._control(change, None)

    # looking after the store

    async def recover_interrupted_jobs(self) -> list[Job]:
        """Put back the jobs of workers that died; also done at start-up and regularly while running.

        Where a worker is silent but not surely dead, this watches it for up to ten seconds.

        Returns:
            The jobs put back (or failed, after too many recoveries) by this call.

        Raises:
            StoreError: the store did not answer.
        """
        runtime = await self._ready()
        return [self._job(record) for record in await runtime.recover()]

    async def cleanup_old_jobs(self) -> int:
        """Delete the jobs that finished more than `retention_days` ago and that no unfinished job depends on.

        Also done regularly while running.

        Returns:
            How many were deleted; 0 when `retention_days` is None.

        Raises:
            StoreError: the store did not answer.
        """
        return await (await self._ready()).purge()

    # behind the public methods

    @override
    async def _ready(self) -> Runtime:
        return await self._lifetime.ready()

    def _make_runtime(self) -> Runtime:
        return Runtime(
            self._config,
            store=self.job_store,
            clock=self._clock,
            events=self.events,
            jobs=self,
            find_handler=self._find_handler,
        )

    def _register(
        self,
        name: str | None,
        function: Callable[..., Any],
        retry_policy: RetryDelay | RetryPolicy | None,
        scope: Scope | None,
    ) -> None:
        self._handlers.register(name, function, retry_policy=retry_policy, scope=scope)
        if self._lifetime.runtime is not None:
            self._lifetime.runtime.handlers_changed()

    def _find_handler(self, spec: JobSpec) -> Handler | None:
        handler = self._handlers.get(spec.handler_name)
        if handler is None and spec.handler is None:
            return self._own_handler()
        return handler

    def _own_handler(self) -> Handler | None:
        """Make a handler of `execute_job`, where a subclass overrides it."""
        if type(self).execute_job is JobManager.execute_job:
            return None

        def call(context: JobContext) -> Any:
            return self.execute_job(context.job, context)

        return Handler(
            name="execute_job",
            function=call,
            is_async=asyncio.iscoroutinefunction(self.execute_job),
            payload_parameter=None,
            payload_by_name=False,
            context_parameter="context",
            payload_type=None,
            retry_policy=None,
        )

    async def _create(self, name: str, options: JobOptions, *, auto_start: bool) -> Job:
        new = self._submission.one(name, options, auto_start=auto_start)
        answer = await self._change(Add((new,)), EventType.CREATED)
        return self._job(answer.jobs[0])

    async def _control(self, change: Change, event: EventType | None) -> Job:
        answer = await self._change(change, event)
        return self._job(answer.jobs[0])

    async def _change(self, change: Change, event: EventType | None) -> Applied:
        """Make a change, let what runs here conform to it, and tell of it; a refusal is raised."""
        runtime = await self._ready()

        def told(answer: Answer) -> None:
            if isinstance(answer, Applied):
                for record in answer.jobs:
                    runtime.follow(record)
                if answer.changed:
                    for type_, record in _events_of(change, answer.jobs, event):
                        runtime.tell(type_, record)

        if isinstance(change, Add):
            runtime.expect(job.spec for job in change.jobs if job.queued)
        answer = await runtime.writer.submit(change, told)
        if not isinstance(answer, Applied):
            raise answer.error
        return answer


def _events_of(
    change: Change, jobs: Sequence[JobRecord], event: EventType | None
) -> Iterator[tuple[EventType, JobRecord]]:
    """Name what happened to each job an applied change is about.

    Args:
        change: the change.
        jobs: those it names first, then those changed by cascade.
        event: what happened to those it names; None: nothing worth telling.
    """
    named = len(change.jobs) if isinstance(change, Add) else 1
    for position, job in enumerate(jobs):
        if position >= named:
            yield event_of(job, EventType.QUEUED), job
        elif event is not None:
            yield event, job
            if event is EventType.CREATED and job.status.finished:
                yield event_of(job, event), job
        elif job.status.finished:
            yield event_of(job, EventType.CANCELLED), job
