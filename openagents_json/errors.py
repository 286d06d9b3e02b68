"""Every error of the package.

::

    OpenAgentsError
    ├── ConfigurationError (ValueError)       a setting or a constructor argument makes no sense
    ├── InvalidJobError (ValueError)          a job's argument has a wrong type or value
    ├── InvalidHandlerError (TypeError)       a function cannot serve as a handler
    ├── JobNotFoundError (LookupError)        no job has this id
    ├── DuplicateJobError (ValueError)        the id is taken
    ├── InvalidTransitionError                the job's state does not allow what was asked
    │   └── JobInUseError                     an unfinished job depends on it
    ├── DependencyError (ValueError)
    │   ├── UnknownDependencyError (LookupError)  a dependency names no job
    │   └── DependencyCycleError              the jobs would wait for each other
    ├── JobFailedError                        `run_job`: the awaited job did not complete
    │   └── JobCancelledError                 ... because it was cancelled
    ├── ManagerStoppedError (RuntimeError)    a manager was used after `stop()`
    ├── EventsLostError                       a subscriber was too slow and has been dropped
    ├── StoreError
    │   ├── StoreUnavailableError (ConnectionError)  no answer: the call may or may not have happened
    │   ├── StoreClosedError                  used before `open()` or after `close()`
    │   ├── StoreLockedError                  another process writes to it
    │   └── StoreReadOnlyError                it was opened for reading only
    ├── LeaseLostError                        a worker no longer holds the job it writes about
    ├── WorkerDeadError                       the worker was declared dead and must register anew
    └── raised by handlers
        ├── Retry                             try again, after a delay of the handler's choice
        └── NonRetryableError                 give up at once

An error keeps its facts as attributes, builds its message from them, and survives pickling. A message states what
is, then what would help. No message ever holds a password.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import override


class OpenAgentsError(Exception):
    """The base of every error this package raises on purpose."""


class ConfigurationError(OpenAgentsError, ValueError):
    """A setting or a constructor argument makes no sense."""


class InvalidJobError(OpenAgentsError, ValueError):
    """An argument of a job has a wrong type or value; nothing was stored.

    Attributes:
        field: the argument, with the path inside it where that helps (``payload.items[3]``).
        problem: what is wrong with it, and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    @override
    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class InvalidHandlerError(OpenAgentsError, TypeError):
    """A function cannot serve as a handler: its signature, its annotations, or its name."""


class JobNotFoundError(OpenAgentsError, LookupError):
    """No job has this id: it never existed, or was deleted.

    Attributes:
        job_id: the id asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    @override
    def __str__(self) -> str:
        return f"there is no job {self.job_id!r}; it may have been deleted"


class DuplicateJobError(OpenAgentsError, ValueError):
    """A job with this id exists already; the existing one is unchanged.

    Attributes:
        job_id: the id that is taken.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    @override
    def __str__(self) -> str:
        return f"a job {self.job_id!r} exists already; choose another job_id, or leave it out to get a new one"


class InvalidTransitionError(OpenAgentsError):
    """The job's state does not allow what was asked; nothing changed.

    Attributes:
        job_id: the job.
        status: the state it is in.
        action: what was asked for.
        remedy: what would work instead.
    """

    def __init__(self, job_id: str, status: str, action: str, remedy: str) -> None:
        super().__init__(job_id, status, action, remedy)
        self.job_id = job_id
        self.status = status
        self.action = action
        self.remedy = remedy

    @override
    def __str__(self) -> str:
        return f"cannot {self.action} job {self.job_id!r}: it is {self.status}; {self.remedy}"


class JobInUseError(InvalidTransitionError):
    """The job cannot be deleted: an unfinished job depends on it.

    Attributes:
        dependent_id: one of the unfinished jobs that need it.
    """

    def __init__(self, job_id: str, status: str, dependent_id: str) -> None:
        super().__init__(job_id, status, "delete", f"unfinished job {dependent_id!r} depends on it; delete that first")
        self.args: tuple[Any, ...] = (job_id, status, dependent_id)
        self.dependent_id = dependent_id


class DependencyError(OpenAgentsError, ValueError):
    """The dependencies asked for are impossible; nothing was stored."""


class UnknownDependencyError(DependencyError, LookupError):
    """A dependency names a job that does not exist.

    Attributes:
        job_id: the job that would depend on it.
        depends_on_id: the id nobody has.
    """

    def __init__(self, job_id: str, depends_on_id: str) -> None:
        super().__init__(job_id, depends_on_id)
        self.job_id = job_id
        self.depends_on_id = depends_on_id

    @override
    def __str__(self) -> str:
        return f"job {self.job_id!r} depends on {self.depends_on_id!r}, which does not exist; create that job first"


class DependencyCycleError(DependencyError):
    """The jobs would wait for each other for ever.

    Attributes:
        cycle: the ids along the cycle, each depending on the next; the first one is repeated at the end.
    """

    def __init__(self, cycle: tuple[str, ...]) -> None:
        super().__init__(cycle)
        self.cycle = cycle

    @override
    def __str__(self) -> str:
        shown = self.cycle if len(self.cycle) <= 12 else (*self.cycle[:6], "...", *self.cycle[-5:])
        return f"the dependencies form a cycle: {' -> '.join(shown)}; leave one of them out"


class JobFailedError(OpenAgentsError):
    """An awaited job ended without a result.

    Attributes:
        job_id: the job.
        status: ``failed`` or ``cancelled``.
        error: its `JobError` (type, message, traceback), or None.
    """

    def __init__(self, job_id: str, status: str, error: Any = None) -> None:
        super().__init__(job_id, status, error)
        self.job_id = job_id
        self.status = status
        self.error = error

    @override
    def __str__(self) -> str:
        return f"job {self.job_id!r} {self._verb()}: {self.error or 'no reason was recorded'}"

    def _verb(self) -> str:
        return "failed"


class JobCancelledError(JobFailedError):
    """An awaited job was cancelled."""

    @override
    def _verb(self) -> str:
        return "was cancelled"


class ManagerStoppedError(OpenAgentsError, RuntimeError):
    """A job manager was used after `stop()`, or stopped while it was waited for."""

    def __init__(self) -> None:
        super().__init__()

    @override
    def __str__(self) -> str:
        return "the job manager is stopped; start() it again, or make a new one"


class EventsLostError(OpenAgentsError):
    """A subscriber fell too far behind and has been dropped, so that it holds up nobody else.

    Attributes:
        buffered: how many events it had not taken.
    """

    def __init__(self, buffered: int) -> None:
        super().__init__(buffered)
        self.buffered = buffered

    @override
    def __str__(self) -> str:
        return f"the subscriber was {self.buffered} events behind and has been dropped; take events faster"


class StoreError(OpenAgentsError):
    """A job store could not do its work."""


class StoreUnavailableError(StoreError, ConnectionError):
    """The store gave no answer: the call may or may not have taken effect. Repeating a change is safe."""


class StoreClosedError(StoreError):
    """The store was used before `open()` or after `close()`."""


class StoreLockedError(StoreError):
    """A store that admits one writing process is held by another one.

    Attributes:
        location: the store's directory.
        holder: who holds it.
    """

    def __init__(self, location: str, holder: str) -> None:
        super().__init__(location, holder)
        self.location = location
        self.holder = holder

    @override
    def __str__(self) -> str:
        return (
            f"the jobs in {self.location!r} are held by {self.holder}; stop that first, open them with "
            f"read_only=True, or keep them in a database to share them"
        )


class StoreReadOnlyError(StoreError):
    """A change was asked of a store that was opened for reading only."""


class LeaseLostError(OpenAgentsError):
    """A worker wrote about a job it no longer holds; the write was refused.

    Attributes:
        job_id: the job.
        lease: the lease under which the worker had claimed it.
    """

    def __init__(self, job_id: str, lease: str) -> None:
        super().__init__(job_id, lease)
        self.job_id = job_id
        self.lease = lease

    @override
    def __str__(self) -> str:
        return f"job {self.job_id!r} is no longer held under lease {self.lease!r}; what the worker wrote was refused"


class WorkerDeadError(OpenAgentsError):
    """The worker was declared dead, or never registered; its jobs belong to others now.

    Attributes:
        worker_id: the worker.
    """

    def __init__(self, worker_id: str) -> None:
        super().__init__(worker_id)
        self.worker_id = worker_id

    @override
    def __str__(self) -> str:
        return f"worker {self.worker_id!r} is not registered or was declared dead; register a new one"


class Retry(OpenAgentsError):  # noqa: N818 - a request, not an error; the field's name for it
    """Raise it in a handler to be tried again later; it counts as one of the job's retries.

    Attributes:
        delay: seconds until the next attempt; None: as the job's retry policy says.
        reason: kept as the attempt's error message.
    """

    def __init__(self, reason: str = "the handler asked for a retry", *, delay: float | None = None) -> None:
        super().__init__(reason)
        if delay is not None and not _is_duration(delay):
            msg = f"delay must be a number of seconds >= 0, not {delay!r}"
            raise ValueError(msg)
        self.reason = reason
        self.delay = delay


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


class NonRetryableError(OpenAgentsError):
    """Raise it in a handler (or a subclass) to fail the job at once, whatever retries are left."""
