"""Jobs that wait for others: readiness, edges that come and go, cycles. What failures do is in `cascades`."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from openagents_json.errors import (
    DependencyCycleError,
    JobNotFoundError,
    UnknownDependencyError,
)
from openagents_json.job._changes import (
    AddDependency,
    Delete,
    Finish,
    Pause,
    Query,
    Refused,
    RemoveDependency,
    Rerun,
    Resume,
    Start,
)
from openagents_json.job.model import AttemptOutcome, JobStatus
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import BOOM, StoreDriver, a_claim, a_job, adding

if TYPE_CHECKING:
    from openagents_json.testing.clock import ManualClock

MANY = 300


class DependencyRules(StoreRules):
    """Jobs that wait for others."""

    async def test_a_job_is_ready_when_all_it_depends_on_completed(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("a"), a_job("b"), a_job("child", "a", "b"))
        child = await driver.job("child")
        assert (child.dependencies, child.unmet, child.ready_at) == (("a", "b"), 2, None)
        await driver.complete("b")
        child = await driver.job("child")
        assert (child.unmet, child.ready_at) == (1, None)
        clock.advance(1)
        await driver.complete("a")
        child = await driver.job("child")
        assert (child.unmet, child.ready_at, child.updated_at) == (0, clock.now(), clock.now())
        await driver.complete("child")

    async def test_dependencies_may_be_named_before_they_are_given(self, driver: StoreDriver) -> None:
        await driver.add(a_job("child", "b", "a"), a_job("b", "a"), a_job("a"))
        assert (await driver.job("child")).unmet == 2
        await driver.complete("a")
        await driver.complete("b")
        await driver.complete("child")

    async def test_a_job_created_under_completed_jobs_is_ready_at_once(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"))
        await driver.complete("a")
        await driver.add(a_job("ready", "a"), a_job("waits", "a", "b"))
        assert ((await driver.job("ready")).unmet, (await driver.job("waits")).unmet) == (0, 1)
        await driver.complete("ready")

    async def test_a_met_job_still_waits_to_be_started(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("a"), a_job("child", "a", queued=False), a_job("started", "a", queued=False))
        await driver.do(Start("started"))
        assert (await driver.job("started")).ready_at is None
        await driver.complete("a")
        clock.advance(1)
        child = await driver.job("child")
        assert (child.unmet, child.ready_at) == (0, None)
        await driver.complete("started")
        await driver.do(Start("child"))
        assert (await driver.job("child")).ready_at == clock.now()

    async def test_a_met_job_still_waits_for_its_time(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("a"), a_job("child", "a", delay=10.0))
        await driver.complete("a")
        child = await driver.job("child")
        assert child.ready_at == child.run_at
        assert (await driver.claimed(a_claim(1))).next_due_in == pytest.approx(10)
        clock.advance(10)
        await driver.complete("child")

    async def test_a_paused_job_whose_dependencies_complete_stays_paused(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("child", "a"))
        await driver.do(Pause("child"))
        await driver.complete("a")
        child = await driver.job("child")
        assert (child.status, child.unmet, child.ready_at) == (JobStatus.PAUSED, 0, None)
        await driver.do(Resume("child"))
        await driver.complete("child")

    async def test_a_retry_of_a_dependency_meets_nothing(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("child", "a"))
        await driver.fail("a", retry_in=0.0)
        assert (await driver.job("child")).unmet == 1
        await driver.complete("a")
        assert (await driver.job("child")).unmet == 0

    async def test_an_outcome_repeated_meets_a_dependency_once(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"), a_job("child", "a", "b"))
        lease = await driver.run("a")
        done = Finish("a", lease, AttemptOutcome.COMPLETED, b"1")
        await driver.apply(done, done)
        await driver.do(done)
        assert (await driver.job("child")).unmet == 1

    async def test_a_diamond_joins_again(self, driver: StoreDriver) -> None:
        await driver.add(a_job("top"), a_job("left", "top"), a_job("right", "top"), a_job("join", "left", "right"))
        await driver.complete("top")
        assert (await driver.job("join")).unmet == 2
        await driver.complete("left", "right")
        await driver.complete("join")

    async def test_both_sides_of_a_diamond_may_end_in_one_call(self, driver: StoreDriver) -> None:
        await driver.add(a_job("left"), a_job("right"), a_job("join", "left", "right"))
        lease = await driver.run("left", "right")
        await driver.apply(
            Finish("left", lease, AttemptOutcome.COMPLETED, b"1"),
            Finish("right", lease, AttemptOutcome.COMPLETED, b"2"),
        )
        assert (await driver.job("join")).unmet == 0

    async def test_a_long_chain_runs_in_order(self, driver: StoreDriver) -> None:
        await driver.register()
        links = [a_job("link-0"), *(a_job(f"link-{n}", f"link-{n - 1}") for n in range(1, 50))]
        await driver.add(*reversed(links))
        for number in range(50):
            claim = a_claim(number)
            assert await driver.claim(claim) == [f"link-{number}"]
            await driver.do(Finish(f"link-{number}", claim.lease, AttemptOutcome.COMPLETED, b"1"))

    async def test_many_jobs_wait_for_one(self, driver: StoreDriver) -> None:
        await driver.add(a_job("one"), *(a_job(f"many-{number}", "one") for number in range(MANY)))
        await driver.complete("one")
        assert len(await driver.claim(a_claim(1, limit=2 * MANY))) == MANY

    async def test_one_job_waits_for_many(self, driver: StoreDriver) -> None:
        many = [f"many-{number}" for number in range(MANY)]
        await driver.add(*(a_job(job_id) for job_id in many), a_job("one", *many))
        assert (await driver.job("one")).unmet == MANY
        lease = await driver.run(*many)
        outcomes = [Finish(job_id, lease, AttemptOutcome.COMPLETED, b"1") for job_id in many]
        await driver.apply(*outcomes[:-1])
        assert (await driver.job("one")).unmet == 1
        await driver.apply(outcomes[-1])
        await driver.complete("one")

    async def test_dependents_are_found_by_what_they_depend_on(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "a", "b"), a_job("d", "c"))
        assert set(await driver.find(Query(depends_on="a"))) == {"b", "c"}
        assert await driver.find(Query(depends_on="d")) == []
        assert await driver.find(Query(depends_on="nobody")) == []

    async def test_a_job_that_was_ready_waits_for_a_dependency_it_is_given(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.register()
        await driver.add(a_job("a", queued=False), a_job("job"))
        clock.advance(1)
        await driver.do(AddDependency("job", "a"))
        job = await driver.job("job")
        assert (job.dependencies, job.unmet, job.ready_at, job.updated_at) == (("a",), 1, None, clock.now())
        assert await driver.claim(a_claim(1)) == []
        assert await driver.find(Query(depends_on="a")) == ["job"]
        await driver.do(Start("a"))
        await driver.complete("a")
        await driver.complete("job")

    async def test_a_dependency_that_completed_already_holds_nobody_up(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("a"), a_job("job"))
        await driver.complete("a")
        before = await driver.job("job")
        clock.advance(1)
        await driver.do(AddDependency("job", "a"))
        job = await driver.job("job")
        assert (job.dependencies, job.unmet, job.ready_at) == (("a",), 0, before.ready_at)

    async def test_dependencies_keep_the_order_in_which_they_came(self, driver: StoreDriver) -> None:
        await driver.add(a_job("c"), a_job("a"), a_job("b"), a_job("job", "c", "a"))
        await driver.do(AddDependency("job", "b"))
        assert (await driver.job("job")).dependencies == ("c", "a", "b")
        await driver.do(RemoveDependency("job", "a"))
        await driver.do(AddDependency("job", "a"))
        assert (await driver.job("job")).dependencies == ("c", "b", "a")

    async def test_a_dependency_taken_away_is_waited_for_no_more(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.add(a_job("a", queued=False), a_job("b"), a_job("c"), a_job("job", "a", "b", "c"))
        await driver.complete("c")
        await driver.do(RemoveDependency("job", "c"))
        assert (await driver.job("job")).unmet == 2
        await driver.do(RemoveDependency("job", "a"))
        job = await driver.job("job")
        assert (job.dependencies, job.unmet, job.ready_at) == (("b",), 1, None)
        assert await driver.find(Query(depends_on="a")) == []
        clock.advance(1)
        await driver.do(RemoveDependency("job", "b"))
        job = await driver.job("job")
        assert (job.dependencies, job.unmet, job.ready_at) == ((), 0, clock.now())

    async def test_taking_away_a_dependency_that_is_not_there_changes_nothing(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("job"))
        before = await driver.job("job")
        for name in ("a", "nobody"):
            answer = await driver.do(RemoveDependency("job", name))
            assert (answer.changed, answer.jobs) == (False, (before,))
        assert await driver.job("job") == before

    async def test_a_dependency_must_exist(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        before = await driver.job("job")
        unknown = await driver.refusal(AddDependency("job", "nobody"))
        assert isinstance(unknown, UnknownDependencyError)
        assert (unknown.job_id, unknown.depends_on_id) == ("job", "nobody")
        assert isinstance(await driver.refusal(AddDependency("nobody", "job")), JobNotFoundError)
        assert await driver.job("job") == before

    async def test_a_paused_job_nobody_holds_can_change_what_it_depends_on(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("job"))
        await driver.do(Pause("job"))
        await driver.do(AddDependency("job", "a"))
        job = await driver.job("job")
        assert (job.status, job.unmet) == (JobStatus.PAUSED, 1)
        await driver.do(Resume("job"))
        assert (await driver.job("job")).ready_at is None
        await driver.complete("a")
        await driver.complete("job")

    @pytest.mark.parametrize("length", [1, 2, 3, 7])
    async def test_a_batch_that_waits_for_itself_is_refused_and_the_cycle_named(
        self, driver: StoreDriver, length: int
    ) -> None:
        ring = [f"ring-{number}" for number in range(length)]
        jobs = [a_job(ring[number], "free", ring[(number + 1) % length]) for number in range(length)]
        error = await driver.refusal(adding(a_job("free"), a_job("outside", ring[0]), *jobs))
        assert isinstance(error, DependencyCycleError)
        assert set(error.cycle) == set(ring)
        assert len(error.cycle) == length + 1
        for job_id, depends_on in pairwise(error.cycle):
            assert depends_on == ring[(ring.index(job_id) + 1) % length]
        assert error.cycle[0] == error.cycle[-1]

    @pytest.mark.parametrize("length", [1, 2, 3, 7])
    async def test_an_edge_that_closes_a_cycle_is_refused_and_the_cycle_named(
        self, driver: StoreDriver, length: int
    ) -> None:
        ring = [f"ring-{number}" for number in range(length)]
        edges = {ring[number]: ring[number + 1] for number in range(length - 1)}
        jobs = [a_job(name, *(["free"] if name not in edges else ["free", edges[name]])) for name in ring]
        await driver.add(a_job("free"), *reversed(jobs))
        before = await driver.store.get(ring)
        error = await driver.refusal(AddDependency(ring[-1], ring[0]))
        assert isinstance(error, DependencyCycleError)
        assert error.cycle == (ring[-1], *ring)
        assert await driver.store.get(ring) == before
        await driver.do(AddDependency(ring[0], "free"))

    async def test_an_id_used_again_closes_no_cycle_through_jobs_that_depended_on_it(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"))
        for job_id in ("a", "b", "c"):
            await driver.complete(job_id)
        await driver.do(Delete("a"))
        error = await driver.refusal(adding(a_job("free"), a_job("new", "c"), a_job("a", "free", "new")))
        assert isinstance(error, DependencyCycleError)
        assert error.cycle == ("a", "new", "c", "b", "a")
        await driver.add(a_job("free"), a_job("a", "free"))

    async def test_a_path_that_leads_to_a_deleted_job_ends_there(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c"))
        await driver.complete("a")
        await driver.complete("b")
        await driver.do(Delete("a"))
        await driver.do(AddDependency("c", "b"))
        await driver.complete("c")

    async def test_edges_of_one_call_close_no_cycle_either(self, driver: StoreDriver) -> None:
        ring = ["a", "b", "c", "d"]
        await driver.add(*(a_job(job_id) for job_id in ring))
        edges = [AddDependency(job_id, ring[number - 1]) for number, job_id in enumerate(ring)]
        result = await driver.apply(*edges)
        refused = [answer.error for answer in result.answers if isinstance(answer, Refused)]
        assert [type(error) for error in refused] == [DependencyCycleError]
        assert sum(job.unmet for job in await driver.store.get(ring)) == 3

    async def test_jobs_wait_again_for_a_completed_one_that_runs_again(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(
            a_job("a"),
            a_job("ready", "a"),
            a_job("paused", "a"),
            a_job("running", "a"),
            a_job("completed", "a"),
            a_job("unstarted", "a", queued=False),
        )
        await driver.complete("a")
        await driver.complete("completed")
        lease = await driver.run("running")
        await driver.do(Pause("paused"))
        completed = await driver.job("completed")
        answer = await driver.do(Rerun("a"))
        assert [job.job_id for job in answer.jobs] == ["a"]
        for job_id in ("ready", "paused", "running", "unstarted"):
            assert (job_id, (await driver.job(job_id)).unmet) == (job_id, 1)
        assert (await driver.job("ready")).ready_at is None
        assert await driver.job("completed") == completed
        await driver.do(Finish("running", lease, AttemptOutcome.COMPLETED, b"1"))
        clock.advance(1)
        await driver.complete("a")
        assert (await driver.job("ready")).ready_at == clock.now()
        assert await driver.status("paused") is JobStatus.PAUSED

    async def test_a_retried_job_waits_for_the_dependency_that_runs_again(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("child", "a"))
        await driver.complete("a")
        lease = await driver.run("child")
        await driver.do(Rerun("a"))
        await driver.do(Finish("child", lease, AttemptOutcome.FAILED, error=BOOM, retry_in=0.0))
        child = await driver.job("child")
        assert (child.status, child.unmet, child.ready_at) == (JobStatus.PENDING, 1, None)
        await driver.complete("a")
        await driver.complete("child")

    async def test_a_rerun_of_a_job_waits_for_what_it_depends_on(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("child", "a"))
        await driver.complete("a")
        await driver.complete("child")
        await driver.do(Rerun("a"))
        await driver.do(Rerun("child"))
        assert (await driver.job("child")).unmet == 1
        await driver.complete("a")
        await driver.complete("child")
