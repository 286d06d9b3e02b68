"""What a running handler knows of its job: `JobContext`."""

from __future__ import annotations

import contextlib
import logging
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from contextlib import AbstractAsyncContextManager

    from typing_extensions import Unpack

    from openagents_json.job.model import Job, JobOptions

_logger = logging.getLogger("openagents_json.handler")


class AttemptView(Protocol):
    """What the context needs of the attempt it belongs to."""

    @property
    def cancelled(self) -> bool:
        """Whether the attempt shall end; asking counts as having been told."""

    def job(self) -> Job:
        """Build the job as it was last heard of."""

    def set_progress(self, fraction: float, message: str) -> None:
        """Note progress; may be called from any thread."""

    def lent_slot(self) -> AbstractAsyncContextManager[None]:
        """Lend the attempt's slot while the block runs."""


class Jobs(Protocol):
    """What the context needs of the manager."""

    async def run_job(self, name: str, **options: Unpack[JobOptions]) -> Any:
        """Create a job, start it, and wait for its result."""

    async def wait_for_job(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until a job is over."""


class JobContext:
    """One attempt of one job, as its handler sees it.

    A handler gets it through a parameter annotated ``JobContext`` or named ``context``; code deeper inside calls
    `JobContext.current()`.

    Attributes:
        job_id: the job's id.
        attempt: which claim of the job this is, from 1.
        dependency_results: the results of the jobs it depends on, by job id, in the order the dependencies were
            given. A dependency that did not complete (policy ``run``) stands there with None.
    """

    def __init__(
        self, view: AttemptView, jobs: Jobs, *, job_id: str, attempt: int, dependency_results: Mapping[str, Any]
    ) -> None:
        self._view = view
        self._jobs = jobs
        self.job_id = job_id
        self.attempt = attempt
        self.dependency_results = dependency_results

    @override
    def __repr__(self) -> str:
        return f"<JobContext of job {self.job_id}, attempt {self.attempt}>"

    @staticmethod
    def current() -> JobContext:
        """Give the context of the handler this is called from, directly or not.

        Raises:
            LookupError: no handler is running here.
        """
        context = current_context.get()
        if context is None:
            msg = "no job is running here; JobContext.current() works inside handlers"
            raise LookupError(msg)
        return context

    @cached_property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose records carry ``job_id`` and ``attempt``."""
        return _JobLogger(_logger, {"job_id": self.job_id, "attempt": self.attempt})

    @property
    def job(self) -> Job:
        """The job, as it was when this attempt began or when it was last paused or resumed."""
        return self._view.job()

    @property
    def cancelled(self) -> bool:
        """Whether the attempt shall end: it was cancelled or timed out, or the manager is stopping.

        A plain function should look now and then and return early: a thread cannot be stopped from outside. What it
        returns after it was told is not taken for the job's result.
        """
        return self._view.cancelled

    def set_progress(self, fraction: float, message: str = "") -> None:
        """Report how far the job has come; returns at once, and may be called from any thread, and often.

        Reports that follow each other quickly are merged into the latest.

        Args:
            fraction: what is done, from 0 to 1.
            message: a few words for whoever watches, at most 1,000 characters.

        Raises:
            ValueError: the fraction is not a number from 0 to 1.
        """
        if not _is_fraction(fraction):
            msg = f"fraction must be a number from 0 to 1, not {fraction!r}"
            raise ValueError(msg)
        self._view.set_progress(float(fraction), str(message))

    async def run_job(self, name: str, **options: Unpack[JobOptions]) -> Any:
        """Create a job, start it, and wait for its result; see `JobManager.run_job`.

        The slot of this job is lent meanwhile, so that a parent never keeps its own child from running.
        """
        return await self._jobs.run_job(name, **options)

    async def wait_for_job(self, job_id: str, timeout: float | None = None) -> Job:
        """Wait until another job is over; see `JobManager.wait_for_job`. The slot of this job is lent meanwhile."""
        return await self._jobs.wait_for_job(job_id, timeout)

    def lend_slot_of(self, jobs: object) -> AbstractAsyncContextManager[None]:
        """Lend this attempt's slot while the block runs, if it is one of that manager's."""
        return self._view.lent_slot() if jobs is self._jobs else contextlib.nullcontext()


current_context: ContextVar[JobContext | None] = ContextVar("openagents_json_job_context", default=None)
"""The context of the handler that is running here."""


def _is_fraction(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    def __init__(self, logger: logging.Logger, facts: Mapping[str, object]) -> None:
        super().__init__(logger, facts)
        self._facts = facts

    @override
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**self._facts, **kwargs.get("extra", {})}
        return f"job {self._facts['job_id']}: {msg}", kwargs
