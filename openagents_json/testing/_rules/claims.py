"""Which jobs a claim gets, in which order, and which it leaves; delays and what is due next."""

from __future__ import annotations

from datetime import timedelta

import pytest

from openagents_json.errors import WorkerDeadError
from openagents_json.job._changes import (
    Cancel,
    Claim,
    Delete,
    Finish,
    NewJob,
    Pause,
    Release,
    Resume,
    Start,
    Unclaim,
)
from openagents_json.job.model import AttemptOutcome, JobPriority, JobStatus
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_claim, a_job, adding

LOW, MEDIUM, HIGH, CRITICAL = JobPriority


class ClaimRules(StoreRules):
    """Which jobs a claim gets."""

    async def test_only_jobs_that_can_run_now_are_claimed(self, driver: StoreDriver) -> None:
        await driver.add(
            a_job("unstarted", queued=False),
            a_job("delayed", delay=0.001),
            a_job("blocked", "unstarted"),
            a_job("paused"),
            a_job("cancelled"),
            a_job("running"),
            a_job("completed"),
            a_job("ready"),
        )
        await driver.do(Pause("paused"))
        await driver.do(Cancel("cancelled", "why"))
        await driver.run("running")
        await driver.complete("completed")
        assert await driver.claim(a_claim(1)) == ["ready"]
        assert await driver.claim(a_claim(2)) == []

    async def test_a_claim_takes_no_more_than_its_limit(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(*(a_job(f"job-{number}") for number in range(5)))
        first = await driver.claim(a_claim(1, limit=3))
        second = await driver.claim(a_claim(2, limit=3))
        assert (len(first), len(second)) == (3, 2)
        assert set(first) | set(second) == {f"job-{number}" for number in range(5)}

    async def test_each_job_goes_to_one_worker(self, driver: StoreDriver) -> None:
        await driver.register("worker-1", "worker-2")
        await driver.add(*(a_job(f"job-{number}") for number in range(4)))
        first = await driver.claim(a_claim(1, worker_id="worker-1", limit=2))
        second = await driver.claim(a_claim(1, worker_id="worker-2"))
        assert not set(first) & set(second)
        for job_id in first:
            job = await driver.job(job_id)
            assert (job.worker_id, job.lease) == ("worker-1", "worker-1:1")
        for job_id in second:
            job = await driver.job(job_id)
            assert (job.worker_id, job.lease) == ("worker-2", "worker-2:1")

    async def test_the_most_urgent_go_first_then_those_ready_longest(self, driver: StoreDriver) -> None:
        await driver.register()
        for job_id, priority in [
            ("z-low", LOW),
            ("z-medium", MEDIUM),
            ("a-critical", CRITICAL),
            ("a-medium", MEDIUM),
            ("high", HIGH),
            ("m-medium", MEDIUM),
            ("a-low", LOW),
        ]:
            await driver.add(a_job(job_id, priority=priority))
            driver.clock.advance(1)
        order = ["a-critical", "high", "z-medium", "a-medium", "m-medium", "z-low", "a-low"]
        assert [await driver.claim(a_claim(number, limit=1)) for number in range(7)] == [[name] for name in order]

    async def test_one_claim_of_many_gets_them_in_order(self, driver: StoreDriver) -> None:
        await driver.register()
        for number in range(6):
            await driver.add(a_job(f"low-{number}", priority=LOW), a_job(f"high-{number}", priority=HIGH))
            driver.clock.advance(1)
        claimed = await driver.claim(a_claim(1))
        assert claimed == [f"high-{number}" for number in range(6)] + [f"low-{number}" for number in range(6)]

    async def test_a_place_in_line_is_counted_from_being_ready_not_from_creation(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(
            a_job("started-late", queued=False), a_job("delayed", delay=3.0), a_job("resumed"), a_job("untouched")
        )
        await driver.do(Pause("resumed"))
        driver.clock.advance(1)
        await driver.do(Start("started-late"))
        driver.clock.advance(1)
        await driver.do(Resume("resumed"))
        driver.clock.advance(2)
        await driver.add(a_job("newest"))
        assert await driver.claim(a_claim(1)) == ["untouched", "started-late", "resumed", "delayed", "newest"]

    async def test_starting_or_resuming_what_needs_neither_costs_no_place(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("first"))
        driver.clock.advance(1)
        await driver.add(a_job("second"))
        await driver.apply(Start("first"), Resume("first"))
        assert await driver.claim(a_claim(1)) == ["first", "second"]

    async def test_queues_are_emptied_in_the_order_named_and_others_left(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(
            a_job("a-low", queue="a", priority=LOW),
            a_job("b-critical", queue="b", priority=CRITICAL),
            a_job("a-high", queue="a", priority=HIGH),
            a_job("c", queue="c", priority=CRITICAL),
            a_job("A", queue="A"),
        )
        assert await driver.claim(a_claim(1, queues=("a", "b"), limit=2)) == ["a-high", "a-low"]
        assert await driver.claim(a_claim(2, queues=("a", "b"))) == ["b-critical"]
        assert await driver.claim(a_claim(3, queues=("c", "a"))) == ["c"]
        assert await driver.claim(a_claim(4, queues=("a", "nobody's"))) == []
        assert await driver.claim(a_claim(5, queues=("A",))) == ["A"]

    @pytest.mark.parametrize("least", JobPriority)
    async def test_less_urgent_jobs_than_asked_for_are_left(self, driver: StoreDriver, least: JobPriority) -> None:
        await driver.register()
        await driver.add(*(a_job(f"job-{priority:d}", priority=priority) for priority in JobPriority))
        expected = [f"job-{priority:d}" for priority in reversed(JobPriority) if priority >= least]
        assert await driver.claim(a_claim(1, min_priority=least)) == expected
        rest = [f"job-{priority:d}" for priority in reversed(JobPriority) if priority < least]
        assert await driver.claim(a_claim(2)) == rest

    async def test_jobs_of_excluded_handlers_are_left_and_block_nobody(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(*(a_job(f"mail-{number}", handler="mail", priority=HIGH) for number in range(30)))
        await driver.add(
            a_job("named-so", name="mail"),
            a_job("in-other-case", handler="Mail"),
            a_job("by-another", name="mail", handler="print"),
            a_job("mail-too", name="print", handler="mail"),
        )
        claimed = await driver.claim(a_claim(1, limit=3, exclude_handlers={"mail", "fax"}))
        assert set(claimed) == {"named-so", "in-other-case", "by-another"}
        assert await driver.claim(a_claim(2, exclude_handlers={"mail"})) == []

    async def test_jobs_of_excluded_names_are_left_unless_they_ask_for_a_handler(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(*(a_job(f"mail-{number}", name="mail", priority=HIGH) for number in range(30)))
        await driver.add(
            a_job("in-other-case", name="Mail"),
            a_job("asks-for-its-own", name="mail", handler="mail"),
            a_job("asks-for-another", name="mail", handler="print"),
            a_job("another", name="print"),
        )
        claimed = await driver.claim(a_claim(1, limit=4, exclude_names={"mail", "fax"}))
        assert set(claimed) == {"in-other-case", "asks-for-its-own", "asks-for-another", "another"}
        assert await driver.claim(a_claim(2, exclude_names={"mail"})) == []

    async def test_handlers_and_names_can_be_excluded_together(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("name", name="mail"), a_job("handler", handler="mail"), a_job("free", handler="print"))
        claimed = await driver.claim(a_claim(1, exclude_handlers={"mail"}, exclude_names={"mail", "work"}))
        assert claimed == ["free"]

    @pytest.mark.parametrize("kind", ["handler", "name"])
    async def test_jobs_no_longer_excluded_are_claimed_in_their_place(self, driver: StoreDriver, kind: str) -> None:
        def job(job_id: str, what: str, priority: JobPriority = MEDIUM) -> NewJob:
            if kind == "name":
                return a_job(job_id, name=what, priority=priority)
            return a_job(job_id, handler=what, priority=priority)

        def claim(number: int, *excluded: str, worker_id: str = WORKER, limit: int = 10) -> Claim:
            handlers, names = (excluded, ()) if kind == "handler" else ((), excluded)
            return a_claim(number, worker_id=worker_id, limit=limit, exclude_handlers=handlers, exclude_names=names)

        await driver.register(WORKER, "worker-2")
        await driver.add(job("mail", "mail"), job("fax", "fax"))
        driver.clock.advance(1)
        await driver.add(job("print", "print"), job("mail-too", "mail", HIGH))
        assert await driver.claim(claim(1, "mail", "fax", limit=1)) == ["print"]
        assert await driver.claim(claim(1, "fax", worker_id="worker-2", limit=1)) == ["mail-too"]
        assert await driver.claim(claim(2, "mail")) == ["fax"]
        assert await driver.claim(claim(3)) == ["mail"]

    async def test_what_happens_to_an_excluded_job_meanwhile_counts(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("cancelled", name="mail"), a_job("paused", name="mail"), a_job("stays", name="mail"))
        assert await driver.claim(a_claim(1, exclude_names={"mail"})) == []
        await driver.apply(Cancel("cancelled", "why"), Pause("paused"))
        driver.clock.advance(1)
        await driver.do(Resume("paused"))
        assert await driver.claim(a_claim(2)) == ["stays", "paused"]

    async def test_excluded_jobs_are_left_for_others(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("a", priority=HIGH), a_job("b"), a_job("c", priority=LOW))
        assert await driver.claim(a_claim(1, exclude_jobs={"a", "c", "nobody"})) == ["b"]
        assert await driver.claim(a_claim(2)) == ["a", "c"]

    async def test_a_claim_repeated_gets_the_same_jobs_again(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(*(a_job(f"job-{number}") for number in range(4)))
        first = await driver.claim(a_claim(1, limit=2))
        before = await driver.store.get(first)
        driver.clock.advance(1)
        again = await driver.claimed(a_claim(1, limit=2, repeated=True))
        assert sorted(job.job_id for job in again.jobs) == sorted(first)
        assert sorted(again.jobs) == sorted(before)
        assert await driver.store.get(first) == before

    async def test_a_claim_repeated_gets_what_is_still_held_under_its_lease(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(*(a_job(name) for name in ("finished", "cancelled", "released", "paused", "held")))
        claim = a_claim(1)
        assert len(await driver.claim(claim)) == 5
        await driver.apply(
            Finish("finished", claim.lease, AttemptOutcome.COMPLETED, b"1"),
            Cancel("cancelled", "why"),
            Release("released", claim.lease, "why"),
            Pause("paused"),
        )
        again = await driver.claim(a_claim(1, repeated=True))
        assert sorted(again) == ["held", "paused"]
        assert await driver.status("released") is JobStatus.PENDING

    async def test_a_claim_that_never_arrived_is_served_when_repeated(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("a"), a_job("b"))
        assert await driver.claim(a_claim(1, limit=1, exclude_jobs={"b"})) == ["a"]
        assert await driver.claim(a_claim(2, repeated=True)) == ["b"]
        assert (await driver.job("b")).lease == a_claim(2).lease

    async def test_a_claim_by_nobody_known_is_refused_and_takes_nothing(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        claimed = await driver.claimed(a_claim(1))
        assert isinstance(claimed.error, WorkerDeadError)
        assert claimed.error.worker_id == WORKER
        assert claimed.jobs == ()
        assert await driver.status("job") is JobStatus.PENDING

    async def test_a_job_claimed_again_is_held_under_the_new_lease_only(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("job"))
        await driver.claim(a_claim(1))
        await driver.do(Unclaim("job", a_claim(1).lease))
        await driver.claim(a_claim(2))
        job = await driver.job("job")
        assert (job.lease, job.attempt) == (a_claim(2).lease, 1)
        await driver.refusal(Finish("job", a_claim(1).lease, AttemptOutcome.COMPLETED, b"1"))

    async def test_a_delayed_job_is_claimed_when_its_time_has_come(self, driver: StoreDriver) -> None:
        await driver.register()
        (job,) = await driver.add(a_job("job", delay=30.0))
        assert job.run_at == job.ready_at == driver.clock.now() + timedelta(seconds=30)
        driver.clock.advance(29.999)
        assert await driver.claim(a_claim(1)) == []
        driver.clock.advance(0.001)
        assert await driver.claim(a_claim(2)) == ["job"]

    async def test_a_job_for_a_given_time_is_claimed_then(self, driver: StoreDriver) -> None:
        await driver.register()
        now = driver.clock.now()
        await driver.add(
            a_job("future", run_at=now + timedelta(hours=1)), a_job("past", run_at=now - timedelta(hours=1))
        )
        assert (await driver.job("past")).ready_at == now
        assert await driver.claim(a_claim(1)) == ["past"]
        driver.clock.advance(3600)
        assert await driver.claim(a_claim(2)) == ["future"]

    async def test_a_job_that_was_delayed_keeps_its_priority_and_its_place(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("late", delay=2.0), a_job("early", delay=1.0), a_job("urgent", delay=3.0, priority=HIGH))
        await driver.add(a_job("other-queue", delay=1.0, queue="other"))
        driver.clock.advance(10)
        await driver.add(a_job("fresh"))
        assert await driver.claim(a_claim(1)) == ["urgent", "early", "late", "fresh"]

    async def test_a_retry_is_claimed_when_its_time_has_come(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        await driver.fail("job", retry_in=5.0)
        assert await driver.claim(a_claim(1)) == []
        driver.clock.advance(5)
        claimed = await driver.claimed(a_claim(2))
        assert [(job.job_id, job.attempt) for job in claimed.jobs] == [("job", 2)]

    async def test_the_claim_says_when_the_next_job_is_due(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("now"), a_job("later", delay=20.0), a_job("soon", delay=7.5, queue="elsewhere"))
        assert (await driver.claimed(a_claim(1))).next_due_in == pytest.approx(7.5)
        driver.clock.advance(5)
        assert (await driver.claimed(a_claim(2, limit=1))).next_due_in == pytest.approx(2.5)
        driver.clock.advance(5)
        assert (await driver.claimed(a_claim(3))).next_due_in == pytest.approx(10)
        driver.clock.advance(10)
        claimed = await driver.claimed(a_claim(4))
        assert [job.job_id for job in claimed.jobs] == ["later"]
        assert claimed.next_due_in is None

    async def test_nothing_is_due_that_time_alone_does_not_make_ready(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("parent", queued=False))
        await driver.add(
            a_job("unstarted", delay=1.0, queued=False),
            a_job("blocked", "parent", delay=1.0),
            a_job("paused", delay=1.0),
            a_job("cancelled", delay=1.0),
            a_job("deleted", delay=1.0),
        )
        await driver.apply(Pause("paused"), Cancel("cancelled", "why"), Delete("deleted"))
        assert (await driver.claimed(a_claim(1))).next_due_in is None
        driver.clock.advance(1)
        assert (await driver.claimed(a_claim(2))).jobs == ()
        await driver.do(Start("unstarted"))
        assert await driver.claim(a_claim(3)) == ["unstarted"]

    async def test_what_the_changes_of_the_call_delay_is_due(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        failed = Finish("job", lease, AttemptOutcome.FAILED, error=BOOM, retry_in=4.0)
        result = await driver.apply(failed, adding(a_job("new", delay=6.0)), claim=a_claim(1))
        assert result.claimed is not None
        assert result.claimed.next_due_in == pytest.approx(4)

    async def test_a_job_whose_delay_was_replaced_is_due_at_the_new_time(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("job"))
        await driver.fail("job", retry_in=5.0)
        driver.clock.advance(5)
        await driver.fail("job", retry_in=50.0)
        driver.clock.advance(5)
        claimed = await driver.claimed(a_claim(1))
        assert claimed.jobs == ()
        assert claimed.next_due_in == pytest.approx(45)
