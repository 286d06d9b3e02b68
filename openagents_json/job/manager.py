"""`JobManager`: the public, async face of the job engine. It checks, asks the store, and tells; it decides nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, overload

from typing_extensions import override

from openagents_json.errors import (
    ConfigurationError,
    InvalidJobError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    ManagerStoppedError,
)
from openagents_json.job import _queries, _signals
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
from openagents_json.job._checks import check_count, check_flag, check_id, check_list, check_number
from openagents_json.job._clock import Clock, SystemClock
from openagents_json.job._runtime import Runtime, RuntimeConfig
from openagents_json.job._submission import Defaults, Submission
from openagents_json.job.context import JobContext, current_context
from openagents_json.job.events import EventBus, EventType, event_of
from openagents_json.job.handlers import Handler, HandlerRegistry, RetryDelay, callers_namespace
from openagents_json.job.model import Job, JobStatus

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from openagents_json.job._changes import Change, Query
    from openagents_json.job._queries import JobFilters, JobOrder
    from openagents_json.job._record import JobRecord
    from openagents_json.job.model import BatchJob, JobOptions
    from openagents_json.job.storage.base import JobStore

F = TypeVar("F", bound=Callable[..., Any])


class Unset(Enum):
    """Tells an argument that was left out from None."""

    UNSET = "unset"


UNSET = Unset.UNSET


class JobManager:
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
        retention_days: finished jobs are deleted after that many days; None: never.
        max_concurrent_jobs: how many jobs run at once.
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

        defaults = settings.job
        with _configuration_errors():
            days = defaults.retention_days if retention_days is UNSET else retention_days
            self.retention_days = None if days is None else check_number(days, "retention_days", low=0, high=1e6)
            self.max_concurrent_jobs = check_count(
                defaults.max_concurrent_jobs if max_concurrent_jobs is None else max_concurrent_jobs,
                "max_concurrent_jobs",
                low=1,
            )
            self._shutdown_timeout = check_number(
                defaults.shutdown_timeout if shutdown_timeout is None else shutdown_timeout,
                "shutdown_timeout",
                low=0,
                high=1e6,
            )
            minutes = job_recovery_timeout_minutes
            self._config = RuntimeConfig(
                max_concurrent_jobs=self.max_concurrent_jobs,
                critical_slots=check_count(critical_slots, "critical_slots"),
                queues=_checked_queues(queues),
                run_jobs=check_flag(run_jobs, "run_jobs"),
                retention_days=self.retention_days,
                silence_limit=60
                * check_number(
                    defaults.job_recovery_timeout_minutes if minutes is None else minutes,
                    "job_recovery_timeout_minutes",
                    low=0,
                    high=1e6,
                    above=True,
                ),
                cancel_grace=defaults.cancel_grace,
                max_result_bytes=defaults.max_result_bytes,
            )
        self._clock = clock or SystemClock()
        self.job_store = job_store if job_store is not None else _store_from_settings()
        self.events = EventBus(self._read)
        self._handlers = HandlerRegistry()
        self._submission = Submission(
            Defaults(
                timeout=defaults.default_timeout,
                max_retries=defaults.default_max_retries,
                retry_delay=defaults.default_retry_delay,
                max_recoveries=defaults.default_max_recoveries,
                max_payload_bytes=defaults.max_payload_bytes,
            ),
            self._handlers,
        )
        self._runtime: Runtime | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._stopped = False

    @override
    def __repr__(self) -> str:
        state = "running" if self._runtime is not None else "stopped" if self._stopped else "not started"
        return f"<{type(self).__name__} on {self.job_store!r}, {state}>"

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
        self._stopped = False
        await self._ready()

    async def stop(self, timeout: float | None = None) -> None:
        """Stop: claim nothing more, let running jobs finish, interrupt and put back those that do not.

        Jobs that are put back run again, here or elsewhere, once there is a worker; that uses up no retry. Always
        ends, also while the store does not answer: what cannot be stored then is recovered by the next start.

        Args:
            timeout: seconds that running jobs get to finish. Default: `shutdown_timeout`.
        """
        seconds = self._shutdown_timeout
        if timeout is not None:
            with _configuration_errors():
                seconds = check_number(timeout, "timeout", low=0, high=1e6)
        self._stopped = True
        runtime = self._runtime
        if runtime is None or runtime.loop is not asyncio.get_running_loop():
            return
        if self._stopping is None:
            self._stopping = runtime.loop.create_task(self._stop(runtime, seconds), name="openagents stop")
        # whoever is cancelled while waiting for it does not leave the manager half stopped
        await asyncio.shield(self._stopping)

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, then `stop`. A second signal interrupts the jobs that still run."""
        await self.start()
        async with _signals.caught() as signals:
            await signals.wait()
            stopping = asyncio.ensure_future(self.stop())
            try:
                while not stopping.done():
                    await signals.wait_or(stopping)
                    if self._runtime is not None and not stopping.done():
                        self._runtime.interrupt()
            finally:
                await stopping

    # handlers

    @overload
    def handler(self, name: F) -> F: ...

    @overload
    def handler(self, name: str | None = None, *, retry_policy: RetryDelay | None = None) -> Callable[[F], F]: ...

    def handler(self, name: Any = None, *, retry_policy: RetryDelay | None = None) -> Any:
        """Register the decorated function as a handler: ``@manager.handler("send mail")``.

        Args:
            name: what jobs ask for. Default: the function's own name.
            retry_policy: see `register_handler`.

        Raises:
            InvalidHandlerError: the function cannot be called as a handler, or the name belongs to another one.
        """
        namespace = callers_namespace(1)

        def register(function: F) -> F:
            self._register(None if callable(name) else name, function, retry_policy, namespace)
            return function

        return register(name) if callable(name) else register

    def register_handler(self, name: str | None, function: F, *, retry_policy: RetryDelay | None = None) -> F:
        """Make a function the handler of a name.

        Its first parameter is the payload, validated against its annotation (a pydantic model, dataclass, TypedDict
        or any other type pydantic knows); a parameter annotated `JobContext`, or named ``context``, gets the
        context; either may be missing. It is ``async def``, or a plain function, which then runs in a thread. What
        it returns is the job's result.

        Args:
            name: what jobs ask for; None: the function's own name.
            function: the handler.
            retry_policy: called with the number of the retry and the exception; returns the seconds to wait, or None
                to give up. It goes before the job's own policy, within the job's `max_retries`.

        Returns:
            The function.

        Raises:
            InvalidHandlerError: the function cannot be called as a handler, or the name belongs to another one.
        """
        self._register(name, function, retry_policy, callers_namespace(1))
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
        why = _queries.checked_text(reason, "reason") or "on request"
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

    # reading jobs

    async def get_job(self, job_id: str) -> Job:
        """Read a job.

        Raises:
            JobNotFoundError: there is no such job.
            StoreError: the store did not answer.
        """
        record = await self._read(check_id(job_id))
        if record is None:
            raise JobNotFoundError(job_id)
        return self._job(record)

    async def get_job_status(self, job_id: str) -> JobStatus:
        """Read a job's status; raises like `get_job`."""
        return (await self.get_job(job_id)).status

    async def get_job_results(self, job_id: str) -> Any:
        """Read a job's result: None until it has completed; raises like `get_job`."""
        return (await self.get_job(job_id)).result

    async def list_jobs(self, **selection: Unpack[JobOrder]) -> list[Job]:
        """Read the jobs that match, newest first unless told otherwise.

        Args:
            selection: see `JobFilters` and `JobOrder`.

        Raises:
            InvalidJobError: a filter has a wrong type or value.
            StoreError: the store did not answer.
        """
        return await self._find(_queries.query(selection))

    async def count_jobs(self, **filters: Unpack[JobFilters]) -> int:
        """Count the jobs that match; raises like `list_jobs`."""
        query = _queries.query(filters)
        await self._ready()
        return await self.job_store.count(query)

    async def get_batch_jobs(self, batch_id: str) -> list[Job]:
        """Read the jobs of a batch, in the order of their creation; empty when there is no such batch."""
        return await self._find(_queries.query({"batch_id": check_id(batch_id, "batch_id"), "sort_order": "asc"}))

    async def get_dependencies(self, job_id: str) -> list[Job]:
        """Read the jobs that a job depends on directly, in the order given; raises like `get_job`."""
        job = await self.get_job(job_id)
        return [self._job(record) for record in await self.job_store.get(job.dependencies)]

    async def get_dependent_jobs(self, job_id: str) -> list[Job]:
        """Read the jobs that depend on a job directly, in the order of their creation; raises like `get_job`."""
        await self.get_job(job_id)
        return await self._find(_queries.dependents_of(job_id))

    async def wait_for_job(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until a job is over, whoever runs it. Inside a handler, the handler's slot is lent meanwhile.

        Args:
            job_id: the job.
            timeout: seconds to wait at most; None: as long as it takes. The job is not affected by it.

        Returns:
            The job: completed, failed or cancelled.

        Raises:
            JobNotFoundError: there is no such job, or it was deleted meanwhile.
            TimeoutError: it is not over yet.
            ManagerStoppedError: this manager was stopped meanwhile.
        """
        check_id(job_id)
        if timeout is not None:
            check_number(timeout, "timeout", low=0, high=1e9)
        runtime = await self._ready()
        context = current_context.get()
        if context is not None and context.job_id == job_id:
            raise InvalidJobError("job_id", f"job {job_id!r} cannot wait for itself")
        lent = contextlib.nullcontext() if context is None else context.lend_slot_of(self)
        async with lent:
            try:
                async with asyncio.timeout(timeout):
                    record = await runtime.watch.wait(job_id)
            except TimeoutError:
                msg = f"job {job_id!r} is not over after {timeout:g} s; it goes on"
                raise TimeoutError(msg) from None
        return self._job(record)

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

    async def _ready(self) -> Runtime:
        """Give the runtime of this event loop, started."""
        runtime = self._runtime
        loop = asyncio.get_running_loop()
        if runtime is not None and runtime.loop is loop and self._starting is None:
            return runtime
        if self._stopped:
            raise ManagerStoppedError
        predecessor = None
        if runtime is not None and runtime.loop is not loop:
            if not runtime.loop.is_closed():
                msg = "this job manager runs in another event loop; use one manager for each, they may share a database"
                raise RuntimeError(msg)
            predecessor, self._runtime, self._starting = runtime.worker_id, None, None
        if self._starting is None:
            self._runtime = Runtime(
                self._config,
                store=self.job_store,
                clock=self._clock,
                events=self.events,
                jobs=self,
                find_handler=self._find_handler,
            )
            self._starting = loop.create_task(self._start(self._runtime, predecessor), name="openagents start")
        # whoever is cancelled while waiting for it does not keep others from starting
        await asyncio.shield(self._starting)
        if self._runtime is None:
            raise ManagerStoppedError
        return self._runtime

    async def _start(self, runtime: Runtime, predecessor: str | None) -> None:
        try:
            await runtime.start(predecessor)
        except BaseException:
            self._runtime = None
            raise
        finally:
            self._starting = None

    async def _stop(self, runtime: Runtime, timeout: float) -> None:
        try:
            if self._starting is not None:
                await asyncio.wait({self._starting})
            if self._runtime is runtime:
                await runtime.stop(timeout)
        finally:
            self._runtime = self._stopping = None

    def _register(
        self, name: str | None, function: Callable[..., Any], retry_policy: RetryDelay | None, namespace: Any
    ) -> None:
        self._handlers.register(name, function, retry_delay=retry_policy, namespace=namespace)
        if self._runtime is not None:
            self._runtime.handlers_changed()

    def _find_handler(self, record: JobRecord) -> Handler | None:
        handler = self._handlers.get(record.spec.handler_name)
        if handler is None and record.spec.handler is None:
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
            takes_payload=False,
            context_parameter="context",
            payload_type=None,
            retry_delay=None,
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
        answer = await runtime.writer.submit(change)
        if not isinstance(answer, Applied):
            raise answer.error
        for position, record in enumerate(answer.jobs):
            runtime.follow(record)
            if event is EventType.CREATED and answer.changed:
                runtime.tell(EventType.CREATED, record)
            if answer.changed and (event is not EventType.CREATED or record.status.finished):
                own = EventType.QUEUED if event is None or position else event
                if event is not None or record.status.finished:
                    runtime.tell(own if event is EventType.DELETED else event_of(record, own), record)
        return answer

    async def _read(self, job_id: str) -> JobRecord | None:
        await self._ready()
        records = await self.job_store.get([job_id])
        return records[0] if records else None

    async def _find(self, query: Query) -> list[Job]:
        await self._ready()
        return [self._job(record) for record in await self.job_store.find(query)]

    def _job(self, record: JobRecord) -> Job:
        return record.to_job(self.job_store.now())


@contextlib.contextmanager
def _configuration_errors() -> Any:
    """Let a wrong constructor argument be a `ConfigurationError`."""
    try:
        yield
    except InvalidJobError as exc:
        raise ConfigurationError(str(exc)) from None


def _checked_queues(queues: object) -> tuple[str, ...]:
    checked = tuple(dict.fromkeys(check_id(queue, "queues") for queue in check_list(queues, "queues", "names")))
    if not checked:
        raise InvalidJobError("queues", "is empty; name at least one, or pass run_jobs=False")
    return checked


def _store_from_settings() -> JobStore:
    from openagents_json.job.storage import store_from_settings  # noqa: PLC0415 - with the settings, see above

    return store_from_settings()
