"""`OpenAgentsApp`: a `JobManager` as an application uses it.

The app has the manager's job methods, by the same names. It differs in one thing: jobs are started when they are
created, unless they are told not to. What a method raises is what the manager's raises.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, overload

from typing_extensions import override

from openagents_json.job._config import UNSET, Unset
from openagents_json.job.manager import JobManager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from openagents_json.job._clock import Clock
    from openagents_json.job._queries import JobFilters, JobOrder
    from openagents_json.job.events import EventBus
    from openagents_json.job.handlers import RetryDelay
    from openagents_json.job.model import BatchJob, Job, JobOptions, JobStatus
    from openagents_json.job.retry import RetryPolicy
    from openagents_json.job.storage.base import JobStore

F = TypeVar("F", bound="Callable[..., Any]")


class OpenAgentsApp:
    """An application that has jobs.

    ::

        app = OpenAgentsApp()

        @app.handler("greet")
        async def greet(payload: dict[str, str]) -> str:
            return f"Hello, {payload['name']}!"

        async with app:
            print(await app.run_job("greet", payload={"name": "Ada"}))

    Args:
        job_store: where jobs are kept; the other arguments, too, are those of `JobManager`.

    Attributes:
        job_manager: the manager behind it.
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
        self.job_manager: JobManager = JobManager(
            job_store,
            retention_days=retention_days,
            max_concurrent_jobs=max_concurrent_jobs,
            critical_slots=critical_slots,
            queues=queues,
            run_jobs=run_jobs,
            shutdown_timeout=shutdown_timeout,
            job_recovery_timeout_minutes=job_recovery_timeout_minutes,
            clock=clock,
        )

    @override
    def __repr__(self) -> str:
        return f"<OpenAgentsApp with {self.job_manager!r}>"

    @property
    def events(self) -> EventBus:
        """What happens to jobs."""
        return self.job_manager.events

    async def __aenter__(self) -> Self:
        """Start the app."""
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the app."""
        await self.stop()

    async def start(self) -> None:
        """Start the app: interrupted jobs are put back, and what is ready runs; see `JobManager.start`."""
        await self.job_manager.start()

    async def stop(self, timeout: float | None = None) -> None:
        """Stop the app; see `JobManager.stop`."""
        await self.job_manager.stop(timeout)

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT; see `JobManager.serve`."""
        await self.job_manager.serve()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Start and stop with a Starlette or FastAPI application: ``FastAPI(lifespan=app.lifespan)``."""
        async with self:
            yield

    @overload
    def handler(self, name: F) -> F: ...

    @overload
    def handler(
        self, name: str | None = None, *, retry_policy: RetryDelay | RetryPolicy | None = None
    ) -> Callable[[F], F]: ...

    def handler(self, name: Any = None, *, retry_policy: RetryDelay | RetryPolicy | None = None) -> Any:
        """Register the decorated function as a handler; see `JobManager.handler`."""
        return self.job_manager.handler(name, retry_policy=retry_policy)

    def register_handler(
        self, name: str | None, function: F, *, retry_policy: RetryDelay | RetryPolicy | None = None
    ) -> F:
        """Make a function the handler of a name; see `JobManager.register_handler`."""
        return self.job_manager.register_handler(name, function, retry_policy=retry_policy)

    async def create_job(self, name: str, **options: Unpack[JobOptions]) -> Job:
        """Store a new job and start it, unless ``auto_start=False``; see `JobManager.create_job`."""
        options.setdefault("auto_start", True)
        return await self.job_manager.create_job(name, **options)

    async def create_job_batch(self, specs: Sequence[BatchJob], *, auto_start: bool = True) -> tuple[str, list[Job]]:
        """Store several jobs, all or none, and start them; see `JobManager.create_job_batch`."""
        return await self.job_manager.create_job_batch(specs, auto_start=auto_start)

    async def run_job(self, name: str, **options: Unpack[JobOptions]) -> Any:
        """Create a job, start it, and wait for its result; see `JobManager.run_job`."""
        return await self.job_manager.run_job(name, **options)

    async def start_job(self, job_id: str) -> Job:
        """Queue a job that was created without being started; see `JobManager.start_job`."""
        return await self.job_manager.start_job(job_id)

    async def pause_job(self, job_id: str) -> Job:
        """Suspend a job; see `JobManager.pause_job`."""
        return await self.job_manager.pause_job(job_id)

    async def resume_job(self, job_id: str) -> Job:
        """Let a paused job go on; see `JobManager.resume_job`."""
        return await self.job_manager.resume_job(job_id)

    async def cancel_job(self, job_id: str, reason: str = "") -> Job:
        """Cancel an unfinished job; see `JobManager.cancel_job`."""
        return await self.job_manager.cancel_job(job_id, reason)

    async def retry_job(self, job_id: str) -> Job:
        """Run a finished job again; see `JobManager.retry_job`."""
        return await self.job_manager.retry_job(job_id)

    async def delete_job(self, job_id: str) -> bool:
        """Delete a job; see `JobManager.delete_job`."""
        return await self.job_manager.delete_job(job_id)

    async def add_job_dependency(self, job_id: str, depends_on_id: str) -> Job:
        """Make a job wait for another one; see `JobManager.add_job_dependency`."""
        return await self.job_manager.add_job_dependency(job_id, depends_on_id)

    async def remove_job_dependency(self, job_id: str, depends_on_id: str) -> Job:
        """Stop a job from waiting for another one; see `JobManager.remove_job_dependency`."""
        return await self.job_manager.remove_job_dependency(job_id, depends_on_id)

    async def get_job(self, job_id: str) -> Job:
        """Read a job; see `JobManager.get_job`."""
        return await self.job_manager.get_job(job_id)

    async def get_job_status(self, job_id: str) -> JobStatus:
        """Read a job's status; see `JobManager.get_job_status`."""
        return await self.job_manager.get_job_status(job_id)

    async def get_job_results(self, job_id: str) -> Any:
        """Read a job's result, None until it has completed; see `JobManager.get_job_results`."""
        return await self.job_manager.get_job_results(job_id)

    async def list_jobs(self, **selection: Unpack[JobOrder]) -> list[Job]:
        """Read the jobs that match; see `JobManager.list_jobs`."""
        return await self.job_manager.list_jobs(**selection)

    async def count_jobs(self, **filters: Unpack[JobFilters]) -> int:
        """Count the jobs that match; see `JobManager.count_jobs`."""
        return await self.job_manager.count_jobs(**filters)

    async def get_batch_jobs(self, batch_id: str) -> list[Job]:
        """Read the jobs of a batch; see `JobManager.get_batch_jobs`."""
        return await self.job_manager.get_batch_jobs(batch_id)

    async def get_dependencies(self, job_id: str) -> list[Job]:
        """Read the jobs that a job depends on; see `JobManager.get_dependencies`."""
        return await self.job_manager.get_dependencies(job_id)

    async def get_dependent_jobs(self, job_id: str) -> list[Job]:
        """Read the jobs that depend on a job; see `JobManager.get_dependent_jobs`."""
        return await self.job_manager.get_dependent_jobs(job_id)

    async def wait_for_job(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until a job is over; see `JobManager.wait_for_job`."""
        return await self.job_manager.wait_for_job(job_id, timeout)

    async def recover_interrupted_jobs(self) -> list[Job]:
        """Put back the jobs of workers that died; see `JobManager.recover_interrupted_jobs`."""
        return await self.job_manager.recover_interrupted_jobs()

    async def cleanup_old_jobs(self) -> int:
        """Delete old finished jobs; see `JobManager.cleanup_old_jobs`."""
        return await self.job_manager.cleanup_old_jobs()
