"""`Query` on jobs in memory: which match, and in which order. Pure."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openagents_json.job._changes import Query
    from openagents_json.job._record import JobRecord

_SORT_VALUES: dict[str, Callable[[JobRecord], Any]] = {
    "created_at": lambda job: job.created_at,
    "updated_at": lambda job: job.updated_at,
    "priority": lambda job: job.spec.priority,
    "name": lambda job: job.spec.name,
}


def matches(job: JobRecord, query: Query) -> bool:
    """Tell whether a job passes every filter of the query (`depends_on` and `held_by` included)."""
    spec = job.spec
    return (
        (query.statuses is None or job.status in query.statuses)
        and (query.name is None or spec.name == query.name)
        and (query.queue is None or spec.queue == query.queue)
        and (query.batch_id is None or spec.batch_id == query.batch_id)
        and (query.priority is None or spec.priority is query.priority)
        and (query.created_after is None or job.created_at >= query.created_after)
        and (query.created_before is None or job.created_at <= query.created_before)
        and (query.depends_on is None or query.depends_on in job.dependencies)
        and (query.held_by is None or (job.lease is not None and job.worker_id == query.held_by))
        and all(tag in spec.tags for tag in query.tags)
    )


def sort_key(sort_by: str) -> Callable[[JobRecord], tuple[Any, str]]:
    """Give the function that orders jobs by one of `SORT_KEYS`, ties by id."""
    value = _SORT_VALUES[sort_by]
    return lambda job: (value(job), job.spec.job_id)


def select(jobs: Iterable[JobRecord], query: Query) -> list[JobRecord]:
    """Filter, order and cut jobs as the query asks."""
    key = sort_key(query.sort_by)
    found = [job for job in jobs if matches(job, query)]
    if query.after is not None:
        last = query.after
        found = [job for job in found if (key(job) < last if query.descending else key(job) > last)]
    if query.limit is None:
        return sorted(found, key=key, reverse=query.descending)[query.offset :]
    pick = heapq.nlargest if query.descending else heapq.nsmallest
    return pick(query.offset + query.limit, found, key=key)[query.offset :]
