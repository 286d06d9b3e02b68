"""From what a caller says about a new job to a `NewJob`: every argument is checked before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_type_hints

from openagents_json.errors import InvalidJobError
from openagents_json.job import _codec
from openagents_json.job._changes import NewJob
from openagents_json.job._checks import (
    check_choice,
    check_count,
    check_flag,
    check_id,
    check_list,
    check_number,
    check_time,
    new_id,
    refuse_unknown,
)
from openagents_json.job._record import RECOVERY_HISTORY, JobSpec
from openagents_json.job._shown import shown
from openagents_json.job.model import DependencyFailurePolicy, JobOptions, JobPriority
from openagents_json.job.retry import LONGEST_DELAY, RetryPolicy

if TYPE_CHECKING:
    from openagents_json.job.handlers import HandlerRegistry
    from openagents_json.settings import JobSettings

_OPTIONS = frozenset(get_type_hints(JobOptions))
_MOST_TAGS = 50


class Submission:
    """Checks arguments of new jobs for one manager."""

    def __init__(self, settings: JobSettings, handlers: HandlerRegistry) -> None:
        self._limit = settings.max_payload_bytes
        self._handlers = handlers
        self._checks: dict[str, Callable[[Any], Any]] = {
            "description": lambda value: _codec.check_text(value, "description", longest=10_000),
            "handler": self._handler,
            "queue": lambda value: check_id(value, "queue"),
            "payload": lambda value: _codec.encode(value, "payload", limit=self._limit),
            "metadata": self._metadata,
            "tags": _tags,
            "priority": JobPriority.parse,
            "on_dependency_failure": _failure_policy,
            "max_retries": lambda value: check_count(value, "max_retries"),
            "retry_delay": lambda value: check_number(value, "retry_delay", high=LONGEST_DELAY),
            "retry_policy": _retry_policy,
            "timeout": lambda value: None if value is None else check_number(value, "timeout", above=True),
            "max_recoveries": lambda value: None if value is None else check_count(value, "max_recoveries"),
        }
        self._absent: dict[str, Any] = {
            "description": "",
            "handler": None,
            "queue": "default",
            "payload": b"{}",
            "metadata": b"{}",
            "tags": (),
            "priority": JobPriority.MEDIUM,
            "on_dependency_failure": DependencyFailurePolicy.CANCEL,
            "retry_policy": None,
        }
        for name in ("max_retries", "retry_delay", "timeout", "max_recoveries"):
            try:
                self._absent[name] = self._checks[name](getattr(settings, f"default_{name}"))
            except InvalidJobError as exc:
                raise InvalidJobError(f"settings.job.default_{name}", exc.problem) from None

    def one(self, name: object, options: Mapping[str, Any], *, auto_start: bool) -> NewJob:
        """Check the arguments of one job.

        Raises:
            InvalidJobError: one is wrong.
            TypeError: there is no such argument.
        """
        given = options.get("job_id")
        job_id = new_id() if given is None else check_id(given)
        return self._new_job(job_id, name, options, request_id=new_id(), auto_start=auto_start)

    def batch(self, specs: object, *, auto_start: bool) -> tuple[str, tuple[NewJob, ...]]:
        """Check the arguments of a batch; returns its id and its jobs.

        Raises:
            InvalidJobError: an argument of a job is wrong; `field` says which job, by its position.
        """
        listed = check_list(specs, "specs", "dicts")
        if not listed:
            raise InvalidJobError("specs", "is empty; a batch needs at least one job")
        check_flag(auto_start, "auto_start")
        ids = _ids_of(listed)
        batch_id, jobs = new_id(), []
        for position, spec in enumerate(listed):
            options = dict(spec)
            try:
                if "name" not in options:
                    raise InvalidJobError("name", "is missing; every job needs one")
                name = options.pop("name")
                job = self._new_job(
                    ids[position],
                    name,
                    options,
                    request_id=batch_id,
                    auto_start=auto_start,
                    batch=(batch_id, ids, position),
                )
            except InvalidJobError as exc:
                raise InvalidJobError(f"specs[{position}].{exc.field}", exc.problem) from None
            except TypeError as exc:
                raise InvalidJobError(f"specs[{position}]", str(exc)) from None
            jobs.append(job)
        return batch_id, tuple(jobs)

    def _new_job(
        self,
        job_id: str,
        name: object,
        options: Mapping[str, Any],
        *,
        request_id: str,
        auto_start: bool,
        batch: tuple[str | None, Sequence[str], int] = (None, (), 0),
    ) -> NewJob:
        refuse_unknown(options, _OPTIONS, "a job")
        fields = dict(self._absent)
        for option, value in options.items():
            check = self._checks.get(option)
            if check is not None:
                fields[option] = check(value)
        batch_id, ids, position = batch
        checked_name = _codec.check_text(name, "name", shortest=1, longest=255)
        spec = JobSpec(
            job_id=job_id,
            name=checked_name,
            batch_id=batch_id,
            request_id=request_id,
            batch_position=position,
            **fields,
        )
        dependencies = options.get("dependencies")
        run_at, delay = _start_time(options.get("run_at"), options.get("delay"))
        return NewJob(
            spec,
            () if dependencies is None else _dependencies(dependencies, ids),
            check_flag(options.get("auto_start", auto_start), "auto_start"),
            run_at,
            delay,
        )

    def _handler(self, handler: object) -> str | None:
        if handler is None:
            return None
        if isinstance(handler, str):
            return _codec.check_text(handler, "handler", shortest=1, longest=255)
        if not callable(handler):
            raise InvalidJobError("handler", f"must be a registered function or its name, not {shown(handler)}")
        return self._handlers.name_of(handler)

    def _metadata(self, metadata: object) -> bytes:
        if not isinstance(metadata, Mapping):
            raise InvalidJobError("metadata", f"must be a dict, not {shown(metadata)}")
        if RECOVERY_HISTORY in metadata:
            raise InvalidJobError(f"metadata.{RECOVERY_HISTORY}", "is kept by the job itself; leave it out")
        return _codec.encode(dict(metadata), "metadata", limit=self._limit)


def _ids_of(specs: Sequence[object]) -> list[str]:
    """Give each job of a batch its id: its own, or a new one."""
    ids: dict[str, None] = {}
    for position, spec in enumerate(specs):
        if not isinstance(spec, Mapping):
            raise InvalidJobError(f"specs[{position}]", f"must be a dict, not {shown(spec)}")
        given = spec.get("job_id")
        job_id = new_id() if given is None else check_id(given, f"specs[{position}].job_id")
        if job_id in ids:
            raise InvalidJobError(f"specs[{position}].job_id", f"{job_id!r} is given twice; ids are unique")
        ids[job_id] = None
    return list(ids)


def _dependencies(given: object, ids: Sequence[str]) -> tuple[str, ...]:
    """Check dependencies, and turn positions in a batch (of jobs with those ids) into ids; doubles count once."""
    found: dict[str, None] = {}
    for position, dependency in enumerate(check_list(given, "dependencies", "job ids")):
        where = f"dependencies[{position}]"
        if ids and isinstance(dependency, int) and not isinstance(dependency, bool):
            if not 0 <= dependency < len(ids):
                problem = f"must be a position from 0 to {len(ids) - 1} or a job id, not {dependency}"
                raise InvalidJobError(where, problem)
            found[ids[dependency]] = None
        else:
            found[check_id(dependency, where)] = None
    return tuple(found)


def _tags(given: object) -> tuple[str, ...]:
    tags = check_list(given, "tags", "texts")
    if len(tags) > _MOST_TAGS:
        raise InvalidJobError("tags", f"must be at most {_MOST_TAGS}, not {len(tags)}")
    checked = (_codec.check_text(tag, f"tags[{at}]", shortest=1, longest=100) for at, tag in enumerate(tags))
    return tuple(dict.fromkeys(checked))


def _failure_policy(given: object) -> DependencyFailurePolicy:
    names = (policy.value for policy in DependencyFailurePolicy)
    return DependencyFailurePolicy(check_choice(given, "on_dependency_failure", names))


def _retry_policy(given: object) -> RetryPolicy | None:
    if given is not None and not isinstance(given, RetryPolicy):
        problem = f"must be a RetryPolicy, not {shown(given)}; a policy of your own belongs to the handler"
        raise InvalidJobError("retry_policy", problem)
    return given


def _start_time(run_at: object, delay: object) -> tuple[datetime | None, float | None]:
    if run_at is not None and delay is not None:
        raise InvalidJobError("delay", "cannot be given together with run_at; choose one")
    if delay is not None:
        return None, check_number(delay, "delay")
    if run_at is None:
        return None, None
    moment = check_time(run_at, "run_at")
    if moment.tzinfo is None:
        raise InvalidJobError("run_at", f"{shown(run_at)} has no time zone; add one, e.g. tzinfo=datetime.UTC")
    return moment.astimezone(UTC), None
