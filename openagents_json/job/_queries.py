"""From what a caller says about the jobs to read to a `Query`: every argument is checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_type_hints

from openagents_json.errors import InvalidJobError
from openagents_json.job import _codec
from openagents_json.job._changes import SORT_KEYS, Query
from openagents_json.job._checks import check_choice, check_id, check_list, check_time, refuse_unknown
from openagents_json.job._shown import shown
from openagents_json.job.model import Job, JobPriority, JobStatus

if TYPE_CHECKING:
    from openagents_json.job.model import JobStatus as _Status

_STATUSES = ", ".join(repr(status.value) for status in JobStatus)


class JobFilters(TypedDict, total=False):
    """Which jobs; every filter that is given must match.

    Attributes:
        status: one state, or several of which any will do.
        tags: tags the job must all have.
        name: its exact name.
        queue: its queue.
        batch_id: its batch.
        priority: its priority.
        created_after: a datetime or ISO text, inclusive; without a time zone it is UTC.
        created_before: likewise.
    """

    status: JobStatus | str | Sequence[JobStatus | str] | None
    tags: Sequence[str] | None
    name: str | None
    queue: str | None
    batch_id: str | None
    priority: JobPriority | str | None
    created_after: datetime | str | None
    created_before: datetime | str | None


class JobOrder(JobFilters, total=False):
    """Which jobs, in which order, and how many.

    Attributes:
        sort_by: ``created_at`` (default), ``updated_at``, ``priority`` or ``name``; ties are ordered by id.
        sort_order: ``desc`` (default) or ``asc``.
        limit: the most to return; None: all.
        offset: how many to skip; slow when large, prefer `after`.
        after: the last job of the previous page, in the same order: gives the page that follows.
    """

    sort_by: Literal["created_at", "updated_at", "priority", "name"]
    sort_order: Literal["asc", "desc"]
    limit: int | None
    offset: int
    after: Job | None


_FILTERS = frozenset(get_type_hints(JobFilters))
_KNOWN = frozenset(get_type_hints(JobOrder))


def filters(selection: Mapping[str, Any]) -> Query:
    """Check the arguments of `count_jobs`; raises like `query`."""
    refuse_unknown(selection, _FILTERS, "counting jobs")
    return query(selection)


def query(selection: Mapping[str, Any]) -> Query:
    """Check the arguments of `list_jobs`.

    Raises:
        InvalidJobError: one is wrong.
        TypeError: there is no such argument.
    """
    refuse_unknown(selection, _KNOWN, "listing jobs")
    given = {key: value for key, value in selection.items() if value is not None}
    sort_by = check_choice(given.get("sort_by", "created_at"), "sort_by", SORT_KEYS)
    after = given.get("after")
    if after is not None and not isinstance(after, Job):
        raise InvalidJobError("after", f"must be the last Job of the previous page, not {type(after).__name__}")
    return Query(
        statuses=_statuses(given["status"]) if "status" in given else None,
        tags=_tags(given.get("tags", ())),
        name=checked_text(given["name"], "name") if "name" in given else None,
        queue=check_id(given["queue"], "queue") if "queue" in given else None,
        batch_id=check_id(given["batch_id"], "batch_id") if "batch_id" in given else None,
        priority=JobPriority.parse(given["priority"]) if "priority" in given else None,
        created_after=_time(given, "created_after"),
        created_before=_time(given, "created_before"),
        sort_by=sort_by,
        descending=check_choice(given.get("sort_order", "desc"), "sort_order", ("asc", "desc")) == "desc",
        limit=_whole(given, "limit", None),
        offset=_whole(given, "offset", 0) or 0,
        after=None if after is None else (after[sort_by], after.job_id),
    )


def dependents_of(job_id: str) -> Query:
    """Make the query for the jobs that depend on one, in the order of their creation."""
    return Query(depends_on=job_id, descending=False)


def checked_text(value: object, field: str) -> str:
    """Check a text that is only compared or shown."""
    return _codec.check_text(value, field, longest=10_000)


def _statuses(value: object) -> frozenset[_Status]:
    many: Iterable[Any] = [value] if isinstance(value, str) or not isinstance(value, Iterable) else value
    try:
        return frozenset(JobStatus(status) for status in many)
    except ValueError:
        raise InvalidJobError("status", f"must be one or several of {_STATUSES}, not {shown(value)}") from None


def _tags(value: object) -> tuple[str, ...]:
    return tuple(checked_text(tag, "tags") for tag in check_list(value, "tags", "texts"))


def _time(given: Mapping[str, Any], field: str) -> datetime | None:
    if field not in given:
        return None
    moment = check_time(given[field], field)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _whole(given: Mapping[str, Any], field: str, default: int | None) -> int | None:
    value = given.get(field, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise InvalidJobError(field, f"must be a whole number >= 0, not {shown(value)}")
    return value
