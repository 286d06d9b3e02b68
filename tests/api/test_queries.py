"""Reading jobs: filters, orders, pages, batches and dependencies."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from openagents_json.job import Job, JobManager, JobPriority, JobStatus
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.api.helpers import call, shown

pytestmark = pytest.mark.timeout(10)


@pytest.fixture
async def viewer(clock: ManualClock) -> AsyncIterator[JobManager]:
    """A manager that runs nothing, in time that stands still."""
    async with JobManager(MemoryJobStore(clock=clock), clock=clock, run_jobs=False) as manager:
        yield manager


def ids(jobs: list[Job]) -> list[str]:
    return [job.job_id for job in jobs]


async def found(manager: JobManager, **selection: Any) -> set[str]:
    """Find jobs by some filters; counting them must agree."""
    jobs = await call(manager.list_jobs, **selection)
    assert await call(manager.count_jobs, **selection) == len(jobs)
    return set(ids(jobs))


@pytest.fixture
async def zoo(viewer: JobManager, clock: ManualClock) -> JobManager:
    """Jobs of many kinds, made a minute apart."""
    jobs: dict[str, dict[str, Any]] = {
        "a": {"name": "read", "tags": ["x", "y"], "priority": "low"},
        "b": {"name": "read", "tags": ["y"], "queue": "slow"},
        "c": {"name": "write", "tags": ["x"], "priority": "high"},
        "d": {"name": "Read", "priority": "critical"},
        "e": {"name": "read", "tags": ["x", "y", "z"], "queue": "slow", "priority": "high"},
    }
    for job_id, options in jobs.items():
        await call(viewer.create_job, job_id=job_id, **options)
        clock.advance(60)
    await viewer.pause_job("b")
    await viewer.cancel_job("c")
    return viewer


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({}, "abcde"),
        ({"status": "pending"}, "ade"),
        ({"status": JobStatus.PAUSED}, "b"),
        ({"status": ["paused", JobStatus.CANCELLED]}, "bc"),
        ({"status": {"paused"}}, "b"),
        ({"status": ["running"]}, ""),
        ({"status": []}, ""),
        ({"status": None}, "abcde"),
        ({"tags": ["x"]}, "ace"),
        ({"tags": ["x", "y"]}, "ae"),
        ({"tags": ("y", "x", "y")}, "ae"),
        ({"tags": ["x", "nothing has it"]}, ""),
        ({"tags": []}, "abcde"),
        ({"tags": None}, "abcde"),
        ({"name": "read"}, "abe"),
        ({"name": "Read"}, "d"),
        ({"name": "rea"}, ""),
        ({"name": ""}, ""),
        ({"queue": "slow"}, "be"),
        ({"queue": "default"}, "acd"),
        ({"priority": "high"}, "ce"),
        ({"priority": "HIGH"}, "ce"),
        ({"priority": 2}, "ce"),
        ({"priority": JobPriority.LOW}, "a"),
        ({"priority": 0}, "a"),
        ({"batch_id": "nobody"}, ""),
        ({"name": "read", "tags": ["y"], "queue": "slow", "priority": "high", "status": "pending"}, "e"),
        ({"name": "read", "priority": "critical"}, ""),
    ],
    ids=shown,
)
async def test_every_filter_that_is_given_must_match(zoo: JobManager, selection: Any, expected: str) -> None:
    assert await found(zoo, **selection) == set(expected)


async def test_bounds_of_the_creation_time_are_inclusive_and_understand_every_form(
    zoo: JobManager, clock: ManualClock
) -> None:
    times = {job.job_id: job.created_at for job in await zoo.list_jobs()}
    at = times["c"]
    elsewhere = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    forms: list[datetime | str] = [
        at,
        elsewhere,
        at.replace(tzinfo=None),
        at.isoformat(),
        elsewhere.isoformat(),
        at.replace(tzinfo=None).isoformat(),
        at.isoformat().replace("+00:00", "Z"),
    ]
    for form in forms:
        assert await found(zoo, created_after=form) == set("cde"), form
        assert await found(zoo, created_before=form) == set("abc"), form
        assert await found(zoo, created_after=form, created_before=form) == {"c"}, form
    tick = timedelta(microseconds=1)
    assert await found(zoo, created_after=at + tick) == set("de")
    assert await found(zoo, created_before=at - tick) == set("ab")
    assert await found(zoo, created_after=times["e"], created_before=times["a"]) == set()
    assert await found(zoo, created_after="2026-01-01") == set("abcde"), "a date is its midnight"
    assert await found(zoo, created_before="2026-01-01") == set()


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({}, "edcba"),
        ({"sort_order": "asc"}, "abcde"),
        ({"sort_by": "created_at", "sort_order": "desc"}, "edcba"),
        ({"sort_by": "priority"}, "decba"),
        ({"sort_by": "priority", "sort_order": "asc"}, "abced"),
        ({"sort_by": "name", "sort_order": "asc"}, "dabec"),
        ({"sort_by": "name"}, "cebad"),
        ({"sort_by": "updated_at"}, "cbeda"),
        ({"limit": 2}, "ed"),
        ({"limit": 0}, ""),
        ({"limit": None}, "edcba"),
        ({"limit": 10**30}, "edcba"),
        ({"offset": 3}, "ba"),
        ({"offset": 5}, ""),
        ({"offset": 10**30}, ""),
        ({"limit": 2, "offset": 1}, "dc"),
        ({"limit": 1, "sort_by": "priority", "status": "pending"}, "d"),
    ],
    ids=shown,
)
async def test_jobs_come_in_the_order_asked_for(zoo: JobManager, order: Any, expected: str) -> None:
    assert "".join(ids(await zoo.list_jobs(**order))) == expected


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("sort_order", ["asc", "desc"])
@pytest.mark.parametrize("sort_by", ["created_at", "updated_at", "priority", "name"])
async def test_pages_by_their_last_job_cover_all_jobs_and_never_overlap(
    viewer: JobManager, clock: ManualClock, sort_by: Any, sort_order: Any, size: int
) -> None:
    for number in range(20):
        name, priority = f"name {number % 3}", JobPriority(number % 4)
        await viewer.create_job(name, job_id=f"job-{number * 7 % 20:02}", priority=priority)
        clock.advance(number % 2)
    everything = await viewer.list_jobs(sort_by=sort_by, sort_order=sort_order)
    pages: list[Job] = []
    after: Job | None = None
    while page := await viewer.list_jobs(sort_by=sort_by, sort_order=sort_order, limit=size, after=after):
        pages += page
        after = page[-1]
    assert ids(pages) == ids(everything)
    assert len(set(ids(pages))) == 20
    keys = [(job[sort_by], job.job_id) for job in everything]
    assert keys == sorted(keys, reverse=sort_order == "desc")


async def test_pages_neither_repeat_nor_lose_jobs_while_new_ones_come_and_old_ones_go(
    viewer: JobManager, clock: ManualClock
) -> None:
    for number in range(9):
        await viewer.create_job("work", job_id=f"old-{number}")
        clock.advance(1)
    first = await viewer.list_jobs(limit=3)
    await viewer.create_job("work", job_id="new")
    await viewer.delete_job(first[-1].job_id)
    second = await viewer.list_jobs(limit=3, after=first[-1])
    third = await viewer.list_jobs(limit=3, after=second[-1])
    assert ids(first + second + third) == [f"old-{number}" for number in range(8, -1, -1)]
    assert await viewer.list_jobs(limit=3, after=third[-1]) == []


async def test_a_page_may_be_filtered_and_shifted(zoo: JobManager) -> None:
    last = await zoo.get_job("d")
    assert ids(await zoo.list_jobs(after=last, tags=["y"])) == ["b", "a"]
    assert ids(await zoo.list_jobs(after=last, offset=1, limit=1)) == ["b"]


async def test_counting_heeds_filters_and_agrees_with_listing(zoo: JobManager) -> None:
    for status, priority in itertools.product([None, *JobStatus], [None, *JobPriority]):
        listed = await zoo.list_jobs(status=status, priority=priority)
        assert await zoo.count_jobs(status=status, priority=priority) == len(listed)


async def test_jobs_of_a_batch_come_in_the_order_given(viewer: JobManager) -> None:
    names = [f"job {number}" for number in (5, 3, 9, 1, 7)] * 20
    batch_id, created = await viewer.create_job_batch([{"name": name} for name in names])
    await viewer.create_job("outside")
    await viewer.create_job_batch([{"name": "of another batch"}])
    jobs = await viewer.get_batch_jobs(batch_id)
    assert jobs == created
    assert [job.name for job in jobs] == names
    assert {job.batch_id for job in jobs} == {batch_id}
    assert await found(viewer, batch_id=batch_id) == set(ids(created))


async def test_jobs_of_a_batch_come_in_the_order_given_also_with_ids_of_ones_own(viewer: JobManager) -> None:
    batch_id, created = await viewer.create_job_batch([{"name": "x", "job_id": job_id} for job_id in ("c", "a", "b")])
    assert ids(created) == ["c", "a", "b"]
    assert ids(await viewer.get_batch_jobs(batch_id)) == ["c", "a", "b"]


async def test_dependencies_come_in_the_order_given_and_dependents_in_that_of_their_creation(
    viewer: JobManager, clock: ManualClock
) -> None:
    for job_id in ("c", "a", "b", "other"):
        await viewer.create_job("work", job_id=job_id)
        clock.advance(1)
    for job_id in ("z", "y", "x"):
        await viewer.create_job("work", job_id=job_id, dependencies=["c", "a", "b", "a"])
        clock.advance(1)
    assert ids(await viewer.get_dependencies("z")) == ["c", "a", "b"]
    assert ids(await viewer.get_dependent_jobs("a")) == ["z", "y", "x"]
    assert await viewer.get_dependencies("a") == []
    assert await viewer.get_dependent_jobs("z") == []
    assert await viewer.get_dependent_jobs("other") == []
    await viewer.create_job("work", job_id="grandchild", dependencies=["z"])
    assert ids(await viewer.get_dependent_jobs("a")) == ["z", "y", "x"], "only direct ones"


async def test_dependencies_added_and_removed_later_show(viewer: JobManager) -> None:
    for job_id in ("a", "b", "c"):
        await viewer.create_job("work", job_id=job_id)
    assert (await viewer.add_job_dependency("c", "b")).dependencies == ("b",)
    assert (await viewer.add_job_dependency(job_id="c", depends_on_id="a")).dependencies == ("b", "a")
    assert (await viewer.add_job_dependency("c", "a")).dependencies == ("b", "a")
    assert ids(await viewer.get_dependencies("c")) == ["b", "a"]
    assert (await viewer.remove_job_dependency("c", "b")).dependencies == ("a",)
    assert (await viewer.remove_job_dependency("c", "b")).dependencies == ("a",)
    assert ids(await viewer.get_dependent_jobs("b")) == []
    assert ids(await viewer.get_dependent_jobs("a")) == ["c"]


async def test_a_job_can_be_read_in_parts(viewer: JobManager) -> None:
    job = await viewer.create_job("work", payload=1)
    assert await viewer.get_job(job.job_id) == job
    assert await viewer.get_job_status(job.job_id) is JobStatus.PENDING
    assert await viewer.get_job_status(job.job_id) == "pending"
    assert await viewer.get_job_results(job.job_id) is None


async def test_results_are_none_until_a_job_has_completed(manager: JobManager) -> None:
    manager.register_handler("work", lambda payload: payload)
    job = await manager.create_job("work", payload=[1])
    assert await manager.get_job_results(job.job_id) is None
    await manager.start_job(job.job_id)
    await manager.wait_for_job(job.job_id)
    assert await manager.get_job_results(job.job_id) == [1]
    cancelled = await manager.create_job("work")
    await manager.cancel_job(cancelled.job_id)
    assert await manager.get_job_results(cancelled.job_id) is None


async def test_waiting_for_a_job_that_is_over_takes_no_time_at_all(manager: JobManager) -> None:
    manager.register_handler("work", lambda: 1)
    job = await manager.create_job("work", auto_start=True)
    await manager.wait_for_job(job.job_id)
    assert (await manager.wait_for_job(job.job_id, timeout=0)).result == 1


async def test_waiting_gives_up_in_time_and_leaves_the_job_alone(manager: JobManager) -> None:
    job = await manager.create_job("nobody handles it", auto_start=True)
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError, match=f"job '{job.job_id}' is not over after {timeout:g} s; it goes on"):
            await manager.wait_for_job(job.job_id, timeout)
    assert (await manager.get_job(job.job_id)).status == "pending"


def test_the_clock_of_these_tests_starts_where_they_think(clock: ManualClock) -> None:
    assert clock.now().astimezone(UTC).date().isoformat() == "2026-01-01"
