"""Calls at the same time, from one store object or, where processes may share the store, from two."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from openagents_json.errors import DependencyCycleError, DuplicateJobError, LeaseLostError
from openagents_json.job._changes import (
    AddDependency,
    Answer,
    Applied,
    Cancel,
    Change,
    Delete,
    Finish,
    Query,
    Recover,
    Refused,
    Rerun,
)
from openagents_json.job.model import AttemptOutcome, JobStatus
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing._rules.listeners import Ear, about
from openagents_json.testing.builders import (
    BOOM,
    WORKER,
    StoreDriver,
    a_claim,
    a_job,
    a_worker,
    adding,
    check_consistency,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openagents_json.job.storage.base import JobStore
    from openagents_json.testing.clock import ManualClock

#: How often each race is run.
ROUNDS = 10


class ConcurrencyRules(StoreRules):
    """Calls at the same time."""

    @pytest_asyncio.fixture(loop_scope="function")
    async def other(self, store: JobStore, clock: ManualClock) -> AsyncIterator[JobStore]:
        """Another object on the same jobs where the store is shared, else the same one."""
        if not store.traits.shared:
            yield store
            return
        other = self.make_store(clock)
        await other.open()
        try:
            yield other
        finally:
            await other.close()

    async def test_what_one_writes_the_other_reads(self, driver: StoreDriver, other: JobStore) -> None:
        await driver.add(a_job("job"))
        assert await other.get(["job"]) == [await driver.job("job")]
        await other.apply([Cancel("job", "why")])
        assert await driver.status("job") is JobStatus.CANCELLED
        await other.register(a_worker())
        assert await driver.store.beat(WORKER) is True

    async def test_a_store_that_pushes_tells_the_other_of_what_happened(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        if not other.traits.pushes:
            pytest.skip("the store does not promise it")
        ear = Ear(other)
        await driver.add(a_job("job"))
        await ear.hear(lambda wakeup: wakeup.ready)
        await driver.add(a_job("later", delay=30.0))
        await ear.hear(lambda wakeup: wakeup.due_in is not None)
        await driver.run("job")
        ear.forget()
        await driver.do(Cancel("job", "why"))
        await ear.hear(about("job"))
        ear.close()

    async def test_each_job_is_handed_out_once(self, driver: StoreDriver, other: JobStore) -> None:
        await driver.add(*(a_job(f"job-{number}") for number in range(100)))
        workers = [f"worker-{number}" for number in range(10)]
        await driver.register(*workers)
        got: list[str] = []
        for number in range(ROUNDS):
            # A claim may get fewer than there are while others are at it, so this is not over in one round.
            claims = [a_claim(number, worker_id=worker_id, limit=10) for worker_id in workers]
            results = await asyncio.gather(
                *((driver.store, other)[at % 2].apply([], claim=claim) for at, claim in enumerate(claims))
            )
            got += [job.job_id for result in results if result.claimed for job in result.claimed.jobs]
            if len(got) >= 100:
                break
        assert len(got) == len(set(got)) == 100

    async def test_of_two_creators_of_an_id_one_wins(self, driver: StoreDriver, other: JobStore) -> None:
        for number in range(ROUNDS):
            job = a_job(f"job-{number}")
            answers = await _race(driver.store, adding(job), other, adding(job))
            _one_wins(answers, DuplicateJobError)

    async def test_a_creation_repeated_too_early_happens_once(self, driver: StoreDriver, other: JobStore) -> None:
        for number in range(ROUNDS):
            add = adding(a_job(f"job-{number}"), a_job(f"child-{number}", f"job-{number}"))
            answers = await _race(driver.store, add, other, add)
            assert sorted(answer.changed for answer in answers if isinstance(answer, Applied)) == [False, True]
        assert await driver.store.count(Query()) == 2 * ROUNDS

    @pytest.mark.parametrize("outcome", [AttemptOutcome.COMPLETED, AttemptOutcome.FAILED])
    async def test_an_edge_added_while_its_job_ends_leaves_nobody_waiting_for_ever(
        self, driver: StoreDriver, other: JobStore, outcome: AttemptOutcome
    ) -> None:
        for number in range(ROUNDS):
            parent, child = f"parent-{number}", f"child-{number}"
            await driver.add(a_job(parent), a_job(child, queued=False))
            lease = await driver.run(parent)
            done = Finish(parent, lease, outcome, error=BOOM if outcome is AttemptOutcome.FAILED else None)
            await _race(driver.store, done, other, AddDependency(child, parent))
        await check_consistency(driver.store)

    async def test_a_job_created_while_what_it_depends_on_ends_does_not_wait_for_ever(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        for number in range(ROUNDS):
            parent = f"parent-{number}"
            await driver.add(a_job(parent))
            lease = await driver.run(parent)
            done = Finish(parent, lease, AttemptOutcome.COMPLETED, b"1")
            await _race(driver.store, done, other, adding(a_job(f"child-{number}", parent)))
        children = await driver.store.get([f"child-{number}" for number in range(ROUNDS)])
        assert [job.unmet for job in children] == [0] * ROUNDS

    async def test_both_sides_of_a_diamond_may_end_at_the_same_time(self, driver: StoreDriver, other: JobStore) -> None:
        for number in range(ROUNDS):
            left, right = f"left-{number}", f"right-{number}"
            await driver.add(a_job(left), a_job(right), a_job(f"join-{number}", left, right))
            lease = await driver.run(left, right)
            await _race(
                driver.store,
                Finish(left, lease, AttemptOutcome.COMPLETED, b"1"),
                other,
                Finish(right, lease, AttemptOutcome.COMPLETED, b"1"),
            )
        joins = await driver.store.get([f"join-{number}" for number in range(ROUNDS)])
        assert [job.unmet for job in joins] == [0] * ROUNDS

    async def test_two_edges_added_at_the_same_time_close_no_cycle(self, driver: StoreDriver, other: JobStore) -> None:
        for number in range(ROUNDS):
            a, b = f"a-{number}", f"b-{number}"
            await driver.add(a_job(a, queued=False), a_job(b, queued=False))
            answers = await _race(driver.store, AddDependency(a, b), other, AddDependency(b, a))
            _one_wins(answers, DependencyCycleError)

    async def test_an_outcome_and_a_cancel_at_the_same_time_do_not_both_happen(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        for number in range(ROUNDS):
            job_id = f"job-{number}"
            await driver.add(a_job(job_id))
            lease = await driver.run(job_id)
            done, cancelled = await _race(
                driver.store, Finish(job_id, lease, AttemptOutcome.COMPLETED, b"1"), other, Cancel(job_id, "why")
            )
            assert isinstance(done, Applied) is not isinstance(cancelled, Applied)
            expected = JobStatus.COMPLETED if isinstance(done, Applied) else JobStatus.CANCELLED
            assert await driver.status(job_id) is expected

    async def test_an_outcome_and_the_death_of_its_worker_at_the_same_time_do_not_both_happen(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        for number in range(ROUNDS):
            job_id, worker_id = f"job-{number}", f"worker-{number}"
            await driver.add(a_job(job_id))
            lease = await driver.run(job_id, worker_id=worker_id)
            done, dead = await _race(
                driver.store,
                Finish(job_id, lease, AttemptOutcome.COMPLETED, b"1"),
                other,
                Recover(worker_id, "it died"),
            )
            assert isinstance(dead, Applied)
            if isinstance(done, Refused):
                assert isinstance(done.error, LeaseLostError)
            assert bool(dead.jobs) is isinstance(done, Refused)
            assert await driver.status(job_id) is (JobStatus.PENDING if dead.jobs else JobStatus.COMPLETED)

    async def test_two_observers_of_one_death_put_its_jobs_back_once(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        await driver.add(*(a_job(f"job-{number}") for number in range(20)))
        await driver.run(*(f"job-{number}" for number in range(20)), worker_id="doomed")
        dead = Recover("doomed", "it died")
        answers = await _race(driver.store, dead, other, dead)
        put_back = [job.job_id for answer in answers if isinstance(answer, Applied) for job in answer.jobs]
        assert len(put_back) == len(set(put_back)) == 20
        assert {job.recoveries for job in await driver.store.find(Query())} == {1}

    async def test_a_worker_that_claims_while_it_is_declared_dead_holds_nothing(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        await driver.add(*(a_job(f"job-{number}") for number in range(ROUNDS)))
        for number in range(ROUNDS):
            worker_id = f"worker-{number}"
            await driver.register(worker_id)
            await asyncio.gather(
                driver.store.apply([], claim=a_claim(1, worker_id=worker_id, limit=1)),
                other.apply([Recover(worker_id, "it died")]),
            )
            assert await driver.find(Query(held_by=worker_id)) == []
        assert await driver.store.count(Query(statuses=frozenset({JobStatus.PENDING}))) == ROUNDS

    async def test_a_job_deleted_while_another_is_made_to_depend_on_it_is_either_gone_or_kept(
        self, driver: StoreDriver, other: JobStore
    ) -> None:
        for number in range(ROUNDS):
            parent, child = f"parent-{number}", f"child-{number}"
            await driver.add(a_job(parent, queued=False))
            deleted, added = await _race(driver.store, Delete(parent), other, adding(a_job(child, parent)))
            assert isinstance(deleted, Applied) is not isinstance(added, Applied)
            assert len(await driver.store.get([parent, child])) == (0 if isinstance(deleted, Applied) else 2)

    async def test_one_of_many_reruns_at_the_same_time_takes_effect(self, driver: StoreDriver, other: JobStore) -> None:
        await driver.add(a_job("job"), a_job("child", "job"))
        await driver.fail("job")
        results = await asyncio.gather(*(store.apply([Rerun("job")]) for store in [driver.store, other] * 5))
        answers = [result.answers[0] for result in results]
        assert sorted(answer.changed for answer in answers if isinstance(answer, Applied)) == [False] * 9 + [True]


async def _race(first: JobStore, change: Change, second: JobStore, other_change: Change) -> tuple[Answer, Answer]:
    """Apply two changes at the same time, each by its own store object."""
    one, two = await asyncio.gather(first.apply([change]), second.apply([other_change]))
    return one.answers[0], two.answers[0]


def _one_wins(answers: tuple[Answer, Answer], error: type[Exception]) -> None:
    refused = [answer for answer in answers if isinstance(answer, Refused)]
    assert [type(answer.error) for answer in refused] == [error]
