"""What a manager is told, checked and completed from the settings."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

from openagents_json.errors import ConfigurationError, InvalidJobError
from openagents_json.job._checks import check_count, check_flag, check_id, check_list, check_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from openagents_json.settings import JobSettings

_LONGEST_RETENTION_DAYS = 365_000.0
_LONGEST_MINUTES = 365 * 24 * 60.0


class Unset(Enum):
    """Tells an argument that was left out from None."""

    UNSET = "unset"


UNSET: Final[Literal[Unset.UNSET]] = Unset.UNSET
"""The argument was left out: what it stands for comes from the settings."""


@dataclass(frozen=True, slots=True)
class ManagerConfig:
    """How a manager runs; the arguments of `JobManager`, complete."""

    max_concurrent_jobs: int
    critical_slots: int
    queues: tuple[str, ...]
    run_jobs: bool
    retention_days: float | None
    shutdown_timeout: float
    silence_limit: float
    """seconds"""
    cancel_grace: float
    max_result_bytes: int

    @classmethod
    def complete(
        cls,
        settings: JobSettings,
        *,
        retention_days: float | Unset | None,
        max_concurrent_jobs: int | None,
        critical_slots: int,
        queues: Sequence[str],
        run_jobs: bool,
        shutdown_timeout: float | None,
        job_recovery_timeout_minutes: float | None,
    ) -> ManagerConfig:
        """Check the arguments and take the others from the settings.

        Raises:
            ConfigurationError: an argument makes no sense.
        """
        days = settings.retention_days if isinstance(retention_days, Unset) else retention_days
        slots = settings.max_concurrent_jobs if max_concurrent_jobs is None else max_concurrent_jobs
        patience = settings.shutdown_timeout if shutdown_timeout is None else shutdown_timeout
        minutes = job_recovery_timeout_minutes
        if minutes is None:
            minutes = settings.job_recovery_timeout_minutes
        with configuration_errors():
            if days is not None:
                days = check_number(days, "retention_days", high=_LONGEST_RETENTION_DAYS)
            silence = check_number(minutes, "job_recovery_timeout_minutes", high=_LONGEST_MINUTES, above=True) * 60
            return cls(
                max_concurrent_jobs=check_count(slots, "max_concurrent_jobs", low=1),
                critical_slots=check_count(critical_slots, "critical_slots"),
                queues=_checked_queues(queues),
                run_jobs=check_flag(run_jobs, "run_jobs"),
                retention_days=days,
                shutdown_timeout=check_number(patience, "shutdown_timeout"),
                silence_limit=silence,
                cancel_grace=settings.cancel_grace,
                max_result_bytes=settings.max_result_bytes,
            )


@contextlib.contextmanager
def configuration_errors() -> Iterator[None]:
    """Let a refused argument be a `ConfigurationError`."""
    try:
        yield
    except InvalidJobError as exc:
        raise ConfigurationError(str(exc)) from None


def _checked_queues(queues: object) -> tuple[str, ...]:
    checked = tuple(dict.fromkeys(check_id(queue, "queues") for queue in check_list(queues, "queues", "names")))
    if not checked:
        raise InvalidJobError("queues", "is empty; name at least one, or pass run_jobs=False")
    return checked
