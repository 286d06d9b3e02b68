"""Reading jobs: each filter, each order, pages that never overlap, counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openagents_json.job._changes import SORT_KEYS, Cancel, Delete, Pause, Query
from openagents_json.job.model import JobPriority, JobStatus
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import WORKER, StoreDriver, a_job

if TYPE_CHECKING:
    from openagents_json.job._record import JobRecord

LOW, MEDIUM, HIGH, CRITICAL = JobPriority

SORT_VALUES: dict[str, Any] = {
    "created_at": lambda job: job.created_at,
    "updated_at": lambda job: job.updated_at,
    "priority": lambda job: job.spec.priority,
    "name": lambda job: job.spec.name,
}

#: Ids in the order of their code points, which no language's collation shares.
IDS_IN_ORDER = ["1", "10", "9", "A", "B", "Z", "a", "a-b", "a.b", "a1", "a:b", "aB", "a_b", "aa", "b", "z"]

NAMES_IN_ORDER = [" x", "A", "Z", "a", "a ", "a-", "aa", "z", "é", "ü", "木", "\U0001f600"]


async def _populate(driver: StoreDriver) -> None:
    """Store a dozen jobs that differ in everything a query can ask for, with many ties."""
    for batch in ("b1", "b2", "b1"):
        await driver.add(*(
            a_job(
                f"job-{batch}-{int(driver.clock.monotonic())}-{number}",
                name=("mail", "Mail", "fax")[number % 3],
                queue=("default", "slow")[number % 2],
                batch_id=batch,
                priority=JobPriority(number % 4),
                tags=(("red", "green"), ("red",), (), ("green", "red-ish"))[number % 4],
            )
            for number in range(4)
        ))  # fmt: skip
        driver.clock.advance(10)
    await driver.do(Pause("job-b1-0-0"))
    await driver.do(Cancel("job-b1-0-1", "why"))
    await driver.complete("job-b1-0-2")
    driver.clock.advance(10)
    await driver.run("job-b2-10-0")


def _expected(jobs: list[JobRecord], query: Query) -> list[str]:
    value = SORT_VALUES[query.sort_by]
    ordered = sorted(jobs, key=lambda job: (value(job), job.job_id), reverse=query.descending)
    return [job.job_id for job in ordered]


FILTERS: dict[str, tuple[Query, Any]] = {
    "everything": (Query(), lambda _: True),
    "one-status": (
        Query(statuses=frozenset({JobStatus.PAUSED})),
        lambda job: job.status is JobStatus.PAUSED,
    ),
    "several-statuses": (
        Query(statuses=frozenset({JobStatus.PAUSED, JobStatus.COMPLETED, JobStatus.RUNNING})),
        lambda job: job.status.value in {"paused", "completed", "running"},
    ),
    "no-status": (Query(statuses=frozenset()), lambda _: False),
    "a-tag": (Query(tags=("red",)), lambda job: "red" in job.spec.tags),
    "several-tags": (
        Query(tags=("green", "red")),
        lambda job: {"red", "green"} <= set(job.spec.tags),
    ),
    "a-tag-nobody-has": (Query(tags=("re",)), lambda _: False),
    "a-tag-in-other-case": (Query(tags=("Red",)), lambda _: False),
    "a-name": (Query(name="mail"), lambda job: job.spec.name == "mail"),
    "part-of-a-name": (Query(name="mai%"), lambda _: False),
    "a-queue": (Query(queue="slow"), lambda job: job.spec.queue == "slow"),
    "a-batch": (Query(batch_id="b1"), lambda job: job.spec.batch_id == "b1"),
    "a-priority": (Query(priority=LOW), lambda job: job.spec.priority is LOW),
    "a-holder": (Query(held_by=WORKER), lambda job: job.job_id == "job-b2-10-0"),
    "a-holder-of-nothing": (Query(held_by="nobody"), lambda _: False),
    "several-filters": (
        Query(name="mail", queue="slow", tags=("green",), statuses=frozenset({JobStatus.PENDING})),
        lambda job: (
            job.spec.name == "mail"
            and job.spec.queue == "slow"
            and "green" in job.spec.tags
            and job.status is JobStatus.PENDING
        ),
    ),
}


class QueryRules(StoreRules):
    """Reading jobs."""

    @pytest.mark.parametrize("name", FILTERS)
    async def test_a_filter_lets_through_what_matches(self, driver: StoreDriver, name: str) -> None:
        query, matches = FILTERS[name]
        await _populate(driver)
        everything = await driver.store.find(Query())
        assert len(everything) == 12
        wanted = [job for job in everything if matches(job)]
        assert await driver.store.find(query) == wanted
        assert await driver.store.count(query) == len(wanted)

    @pytest.mark.parametrize("edge", [-1, 0, 1])
    async def test_limits_on_the_creation_time_include_it(self, driver: StoreDriver, edge: int) -> None:
        await _populate(driver)
        middle = (await driver.job("job-b2-10-0")).created_at
        moment = middle + timedelta(microseconds=edge)
        everything = await driver.store.find(Query())
        after = [job for job in everything if job.created_at >= moment]
        before = [job for job in everything if job.created_at <= moment]
        assert await driver.store.find(Query(created_after=moment)) == after
        assert await driver.store.find(Query(created_before=moment)) == before
        both = await driver.store.find(Query(created_after=middle, created_before=middle))
        assert len(both) == 4
        assert await driver.store.count(Query(created_after=moment)) == len(after)

    async def test_a_holder_is_found_also_while_its_job_is_paused_and_not_when_it_is_over(
        self, driver: StoreDriver
    ) -> None:
        await driver.add(a_job("paused"), a_job("done"), a_job("running"))
        await driver.complete("done")
        await driver.run("paused", "running")
        await driver.do(Pause("paused"))
        assert set(await driver.find(Query(held_by=WORKER))) == {"paused", "running"}

    async def test_dependents_can_be_filtered_further(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a", name="x"), a_job("c", "a", name="y"), a_job("d", name="x"))
        assert await driver.find(Query(depends_on="a", name="x")) == ["b"]
        assert await driver.store.count(Query(depends_on="a")) == 2
        await driver.complete("a")
        await driver.run("b", "c")
        await driver.do(Cancel("c", "why"))
        assert await driver.find(Query(depends_on="a", held_by=WORKER)) == ["b"]
        assert await driver.find(Query(depends_on="a", limit=1, descending=False)) == ["b"]

    async def test_the_newest_come_first_unless_asked_otherwise(self, driver: StoreDriver) -> None:
        for name in ("old", "middle", "new"):
            await driver.add(a_job(name))
            driver.clock.advance(1)
        assert await driver.find(Query()) == ["new", "middle", "old"]
        assert await driver.find(Query(descending=False)) == ["old", "middle", "new"]

    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("sort_by", SORT_KEYS)
    async def test_jobs_are_ordered_by_the_key_and_ties_by_id(
        self, driver: StoreDriver, sort_by: str, *, descending: bool
    ) -> None:
        await _populate(driver)
        query = Query(sort_by=sort_by, descending=descending)
        assert await driver.find(query) == _expected(await driver.store.find(Query()), query)

    async def test_a_change_moves_a_job_in_the_order_of_changes(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"), a_job("c"))
        driver.clock.advance(1)
        await driver.do(Pause("a"))
        assert await driver.find(Query(sort_by="updated_at")) == ["a", "c", "b"]
        assert await driver.find(Query(sort_by="updated_at", descending=False)) == ["b", "c", "a"]

    @pytest.mark.parametrize("descending", [False, True])
    async def test_ties_are_ordered_by_the_code_points_of_the_ids(
        self, driver: StoreDriver, *, descending: bool
    ) -> None:
        await driver.add(*(a_job(job_id) for job_id in reversed(IDS_IN_ORDER)))
        expected = list(reversed(IDS_IN_ORDER)) if descending else IDS_IN_ORDER
        assert await driver.find(Query(descending=descending)) == expected
        assert await driver.find(Query(sort_by="name", descending=descending)) == expected

    async def test_names_are_ordered_by_code_points(self, driver: StoreDriver) -> None:
        await driver.add(*(a_job(f"job-{number}", name=name) for number, name in enumerate(reversed(NAMES_IN_ORDER))))
        found = await driver.store.find(Query(sort_by="name", descending=False))
        assert [job.spec.name for job in found] == NAMES_IN_ORDER

    async def test_names_are_told_apart_to_the_last_space_and_accent(self, driver: StoreDriver) -> None:
        await driver.add(
            *(a_job(f"job-{number}", name=name) for number, name in enumerate(NAMES_IN_ORDER)),
            a_job("upper", name="in-a-queue", queue="Q"),
        )
        for number, name in enumerate(NAMES_IN_ORDER):
            assert await driver.find(Query(name=name)) == [f"job-{number}"]
        assert await driver.find(Query(name="e\u0301")) == []
        assert await driver.find(Query(queue="Q")) == ["upper"]
        assert await driver.find(Query(queue="q")) == []

    @pytest.mark.parametrize("tag", ["a,b", 'quo"ted', "per%cent", "under_score", "ünï", "[x]", "back\\slash", " "])
    async def test_tags_are_matched_whole_whatever_they_are_made_of(self, driver: StoreDriver, tag: str) -> None:
        others = ("a", "b", "quoted", "perXcent", "underXscore", "uni", "x", "backslash", tag + tag)
        await driver.add(a_job("with", tags=("z", tag)), a_job("without", tags=others), a_job("none"))
        assert await driver.find(Query(tags=(tag,))) == ["with"]
        assert await driver.find(Query(tags=(tag, "z"))) == ["with"]
        assert await driver.find(Query(tags=(tag, "y"))) == []

    async def test_limit_and_offset_cut_a_piece_out(self, driver: StoreDriver) -> None:
        await _populate(driver)
        everything = await driver.find(Query())
        assert await driver.find(Query(limit=5)) == everything[:5]
        assert await driver.find(Query(limit=5, offset=5)) == everything[5:10]
        assert await driver.find(Query(limit=5, offset=10)) == everything[10:]
        assert await driver.find(Query(offset=9)) == everything[9:]
        assert await driver.find(Query(limit=100)) == everything
        assert await driver.find(Query(offset=12)) == []

    async def test_counts_ignore_order_and_pages(self, driver: StoreDriver) -> None:
        await _populate(driver)
        last = await driver.job("job-b2-10-0")
        query = Query(batch_id="b1", sort_by="name", limit=2, offset=1, after=(last.spec.name, last.job_id))
        assert await driver.store.count(query) == 8
        assert await driver.store.count(Query(name="nobody's")) == 0

    @pytest.mark.parametrize("size", [1, 3, 5])
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("sort_by", SORT_KEYS)
    async def test_pages_overlap_nowhere_and_leave_nothing_out(
        self, driver: StoreDriver, sort_by: str, size: int, *, descending: bool
    ) -> None:
        await _populate(driver)
        query = Query(sort_by=sort_by, descending=descending, tags=("red",))
        expected = await driver.find(query)
        assert len(expected) == 6
        pages: list[str] = []
        page = await driver.store.find(replace(query, limit=size))
        while page:
            pages += [job.job_id for job in page]
            last = page[-1]
            after = (SORT_VALUES[sort_by](last), last.job_id)
            page = await driver.store.find(replace(query, limit=size, after=after))
        assert pages == expected

    async def test_a_page_goes_on_after_a_job_that_is_gone_and_past_jobs_that_came(self, driver: StoreDriver) -> None:
        for number in range(6):
            await driver.add(a_job(f"job-{number}"))
            driver.clock.advance(1)
        first = await driver.store.find(Query(limit=3))
        last = first[-1]
        await driver.do(Delete(last.job_id))
        await driver.add(a_job("newest"))
        rest = await driver.find(Query(limit=3, after=(last.created_at, last.job_id)))
        assert rest == ["job-2", "job-1", "job-0"]

    async def test_jobs_found_are_the_jobs_read(self, driver: StoreDriver) -> None:
        await _populate(driver)
        found = await driver.store.find(Query())
        assert found == await driver.store.get([job.job_id for job in found])

    async def test_an_empty_store_finds_and_counts_nothing(self, driver: StoreDriver) -> None:
        assert await driver.store.find(Query()) == []
        assert await driver.store.count(Query()) == 0
