"""From what a caller says about a new job to a `NewJob`: every argument is checked before anything is stored."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_type_hints

import uuid_utils

from openagents_json.errors import InvalidJobError
from openagents_json.job import _codec
from openagents_json.job._changes import NewJob
from openagents_json.job._record import RECOVERY_HISTORY, JobSpec
from openagents_json.job.model import DependencyFailurePolicy, JobOptions, JobPriority
from openagents_json.job.retry import LONGEST_DELAY, RetryPolicy

if TYPE_CHECKING:
    from openagents_json.job.handlers import HandlerRegistry

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_OPTIONS = frozenset(get_type_hints(JobOptions))
_MANY = 1_000_000
_LONGEST_TIMEOUT = 366 * 24 * 3600.0


def new_id() -> str:
    """Make an id: a UUIDv7 (RFC 9562), so that ids sort by the time they were made."""
    return str(uuid_utils.uuid7())


def check_id(value: object, field: str = "job_id") -> str:
    """Check that a value can be the id of a job.

    Raises:
        InvalidJobError: it cannot.
    """
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        problem = "must be a letter or digit, then up to 63 letters, digits, '.', '_', ':' or '-'"
        raise InvalidJobError(field, f"{problem}; not {_short(value)}")
    return value


def check_number(value: object, field: str, *, low: float, high: float, above: bool = False) -> float:
    """Check that a value is a finite number within bounds.

    Args:
        value: what was given.
        field: its name, for the error.
        low: the smallest allowed, or with `above` the largest that is too small.
        high: the largest allowed.
        above: exclude `low` itself.

    Raises:
        InvalidJobError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high or (above and value == low):  # type: ignore[arg-type, operator]
        bounds = f"{'>' if above else '>='} {low:g} and <= {high:g}"
        raise InvalidJobError(field, f"must be a number {bounds}, not {_short(value)}")
    return float(value)  # type: ignore[arg-type]


def check_count(value: object, field: str, *, low: int = 0) -> int:
    """Check that a value is a whole number from `low` to a million.

    Raises:
        InvalidJobError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _MANY:
        raise InvalidJobError(field, f"must be a whole number from {low} to {_MANY:,}, not {_short(value)}")
    return value


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a manager assumes about jobs that do not say; see `JobSettings`."""

    timeout: float | None
    max_retries: int
    retry_delay: float
    max_recoveries: int | None
    max_payload_bytes: int


class Submission:
    """Checks arguments of new jobs for one manager."""

    def __init__(self, defaults: Defaults, handlers: HandlerRegistry) -> None:
        self._defaults = defaults
        self._handlers = handlers

    def one(self, name: object, options: Mapping[str, Any], *, auto_start: bool) -> NewJob:
        """Check the arguments of one job.

        Raises:
            InvalidJobError: one is wrong.
            TypeError: there is no such argument.
        """
        _refuse_unknown(options, "create_job()")
        dependencies = self._dependencies(options.get("dependencies", ()), "dependencies", ids=None)
        return self._new_job(name, options, dependencies, request_id=new_id(), batch_id=None, auto_start=auto_start)

    def batch(self, specs: object, *, auto_start: bool) -> tuple[str, tuple[NewJob, ...]]:
        """Check the arguments of a batch; returns its id and its jobs.

        Raises:
            InvalidJobError: an argument of a job is wrong; `field` says which job, by its position.
        """
        if isinstance(specs, str | Mapping) or not isinstance(specs, Sequence):
            raise InvalidJobError("specs", f"must be a list of dicts, not {_short(specs)}")
        if not specs:
            raise InvalidJobError("specs", "is empty; a batch needs at least one job")
        batch_id, ids, jobs = new_id(), [], []
        for position, spec in enumerate(specs):
            if not isinstance(spec, Mapping):
                raise InvalidJobError(f"specs[{position}]", f"must be a dict, not {_short(spec)}")
            given = spec.get("job_id")
            ids.append(new_id() if given is None else check_id(given, f"specs[{position}].job_id"))
        if len(set(ids)) < len(ids):
            twice = next(job_id for job_id in ids if ids.count(job_id) > 1)
            raise InvalidJobError("specs", f"job_id {twice!r} is given twice; ids are unique")
        for position, spec in enumerate(specs):
            try:
                options = {**spec, "job_id": ids[position]}
                if "name" not in options:
                    raise InvalidJobError("name", "is missing; every job needs one")
                name = options.pop("name")
                _refuse_unknown(options, "a job of a batch")
                dependencies = self._dependencies(options.get("dependencies", ()), "dependencies", ids=ids)
                job = self._new_job(
                    name, options, dependencies, request_id=batch_id, batch_id=batch_id, auto_start=auto_start
                )
            except InvalidJobError as exc:
                raise InvalidJobError(f"specs[{position}].{exc.field}", exc.problem) from None
            except TypeError as exc:
                raise InvalidJobError(f"specs[{position}]", str(exc)) from None
            jobs.append(job)
        return batch_id, tuple(jobs)

    def _new_job(
        self,
        name: object,
        options: Mapping[str, Any],
        dependencies: tuple[str, ...],
        *,
        request_id: str,
        batch_id: str | None,
        auto_start: bool,
    ) -> NewJob:
        defaults = self._defaults
        job_id = options.get("job_id")
        policy = options.get("retry_policy")
        if policy is not None and not isinstance(policy, RetryPolicy):
            problem = f"must be a RetryPolicy, not {_short(policy)}; one of your own belongs to the handler"
            raise InvalidJobError("retry_policy", problem)
        timeout = options.get("timeout", defaults.timeout)
        max_recoveries = options.get("max_recoveries", defaults.max_recoveries)
        spec = JobSpec(
            job_id=new_id() if job_id is None else check_id(job_id),
            name=_codec.check_text(name, "name", shortest=1, longest=255),
            description=_codec.check_text(options.get("description", ""), "description", longest=10_000),
            handler=self._handler(options.get("handler")),
            queue=check_id(options.get("queue", "default"), "queue"),
            payload=_codec.encode(options.get("payload", {}), "payload", limit=defaults.max_payload_bytes),
            metadata=self._metadata(options.get("metadata", {})),
            tags=_tags(options.get("tags", ())),
            priority=JobPriority.parse(options.get("priority", JobPriority.MEDIUM)),
            batch_id=batch_id,
            on_dependency_failure=_failure_policy(options.get("on_dependency_failure", "cancel")),
            max_retries=check_count(options.get("max_retries", defaults.max_retries), "max_retries"),
            retry_delay=check_number(
                options.get("retry_delay", defaults.retry_delay), "retry_delay", low=0, high=LONGEST_DELAY
            ),
            retry_policy=policy,
            timeout=None if timeout is None else check_number(
                timeout, "timeout", low=0, high=_LONGEST_TIMEOUT, above=True
            ),
            max_recoveries=None if max_recoveries is None else check_count(max_recoveries, "max_recoveries"),
            request_id=request_id,
        )  # fmt: skip
        run_at, delay = _start_time(options.get("run_at"), options.get("delay"))
        queued = options.get("auto_start", auto_start)
        if not isinstance(queued, bool):
            raise InvalidJobError("auto_start", f"must be True or False, not {_short(queued)}")
        return NewJob(spec, dependencies, queued, run_at, delay)

    def _handler(self, handler: object) -> str | None:
        if handler is None:
            return None
        if isinstance(handler, str):
            return _codec.check_text(handler, "handler", shortest=1, longest=255)
        if not callable(handler):
            raise InvalidJobError("handler", f"must be a registered function or its name, not {_short(handler)}")
        return self._handlers.name_of(handler)

    def _metadata(self, metadata: object) -> bytes:
        if not isinstance(metadata, Mapping):
            raise InvalidJobError("metadata", f"must be a dict, not {_short(metadata)}")
        if RECOVERY_HISTORY in metadata:
            raise InvalidJobError(f"metadata.{RECOVERY_HISTORY}", "is kept by the job itself; leave it out")
        return _codec.encode(dict(metadata), "metadata", limit=self._defaults.max_payload_bytes)

    def _dependencies(self, given: object, field: str, *, ids: Sequence[str] | None) -> tuple[str, ...]:
        """Check dependencies and turn positions in a batch (of those ids) into ids; doubles count once."""
        if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
            raise InvalidJobError(field, f"must be a list of job ids, not {_short(given)}")
        found: dict[str, None] = {}
        for position, dependency in enumerate(given):
            where = f"{field}[{position}]"
            if ids is not None and isinstance(dependency, int) and not isinstance(dependency, bool):
                if not 0 <= dependency < len(ids):
                    problem = f"must be a position from 0 to {len(ids) - 1} or a job id, not {dependency}"
                    raise InvalidJobError(where, problem)
                found[ids[dependency]] = None
            else:
                found[check_id(dependency, where)] = None
        return tuple(found)


def _refuse_unknown(options: Mapping[str, Any], what: str) -> None:
    for name in options:
        if name not in _OPTIONS:
            close = difflib.get_close_matches(str(name), _OPTIONS, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; it takes {', '.join(sorted(_OPTIONS))}"
            msg = f"{what} has no option {name!r}{hint}"
            raise TypeError(msg)


def _tags(given: object) -> tuple[str, ...]:
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise InvalidJobError("tags", f"must be a list of texts, not {_short(given)}")
    if len(given) > 50:
        raise InvalidJobError("tags", f"must be at most 50, not {len(given)}")
    tags = (_codec.check_text(tag, f"tags[{at}]", shortest=1, longest=100) for at, tag in enumerate(given))
    return tuple(dict.fromkeys(tags))


def _failure_policy(given: object) -> DependencyFailurePolicy:
    try:
        return DependencyFailurePolicy(given)  # type: ignore[arg-type]
    except ValueError:
        names = ", ".join(repr(member.value) for member in DependencyFailurePolicy)
        raise InvalidJobError("on_dependency_failure", f"must be one of {names}, not {_short(given)}") from None


def _start_time(run_at: object, delay: object) -> tuple[datetime | None, float | None]:
    if run_at is not None and delay is not None:
        raise InvalidJobError("delay", "cannot be given together with run_at; choose one")
    if delay is not None:
        return None, check_number(delay, "delay", low=0, high=_LONGEST_TIMEOUT)
    if run_at is None:
        return None, None
    moment = check_time(run_at, "run_at")
    if moment.tzinfo is None:
        raise InvalidJobError("run_at", f"{_short(run_at)} has no time zone; add one, e.g. tzinfo=datetime.UTC")
    return moment.astimezone(UTC), None


def check_time(value: object, field: str) -> datetime:
    """Check that a value is a datetime, or ISO text of one, between the years 2 and 9998.

    Raises:
        InvalidJobError: it is not.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidJobError(field, f"{_short(value)} is not an ISO 8601 time") from None
    if not isinstance(value, datetime):
        raise InvalidJobError(field, f"must be a datetime or ISO text, not {_short(value)}")
    if not 1 < value.year < 9999:  # a year at either end is left for conversions between time zones
        raise InvalidJobError(field, f"{value} is out of range")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
