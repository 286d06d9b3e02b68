"""One call is one transaction: `Add` is all or nothing, refusals leave the rest standing, changes see each other."""

from __future__ import annotations

import pytest

from openagents_json.errors import (
    DependencyCycleError,
    DuplicateJobError,
    InvalidTransitionError,
    JobNotFoundError,
    LeaseLostError,
    OpenAgentsError,
    UnknownDependencyError,
    WorkerDeadError,
)
from openagents_json.job._changes import (
    AddDependency,
    Answer,
    Applied,
    Cancel,
    Delete,
    Finish,
    NewJob,
    Pause,
    Query,
    Recover,
    Refused,
    Release,
    RemoveDependency,
    Rerun,
    Resume,
    Start,
)
from openagents_json.job.model import AttemptOutcome, JobStatus
from openagents_json.testing._rules.base import StoreRules, shown
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_claim, a_job, adding

COMPLETED = AttemptOutcome.COMPLETED

IMPOSSIBLE = [
    pytest.param((a_job("new"), a_job("taken")), DuplicateJobError, id="an-id-that-is-taken"),
    pytest.param((a_job("new"), a_job("twin"), a_job("twin")), DuplicateJobError, id="an-id-twice"),
    pytest.param((a_job("new"), a_job("child", "nobody")), UnknownDependencyError, id="an-unknown-dependency"),
    pytest.param((a_job("new"), a_job("self", "self")), DependencyCycleError, id="a-self-dependency"),
    pytest.param((a_job("new"), a_job("a", "b"), a_job("b", "a")), DependencyCycleError, id="a-cycle"),
]


def _errors(answers: tuple[Answer, ...]) -> list[type[OpenAgentsError] | None]:
    return [type(answer.error) if isinstance(answer, Refused) else None for answer in answers]


class BatchRules(StoreRules):
    """One call is one transaction."""

    async def test_jobs_are_answered_in_the_order_given(self, driver: StoreDriver) -> None:
        jobs = await driver.add(a_job("c", "a"), a_job("a"), a_job("b", "c", "a"))
        assert [job.job_id for job in jobs] == ["c", "a", "b"]
        assert list(jobs) == await driver.store.get(["c", "a", "b"])

    async def test_adding_no_jobs_does_nothing(self, driver: StoreDriver) -> None:
        assert shown(await driver.do(adding())) == ((), False)

    @pytest.mark.parametrize(("jobs", "error"), IMPOSSIBLE)
    async def test_of_an_impossible_batch_nothing_is_stored(
        self, driver: StoreDriver, jobs: tuple[NewJob, ...], error: type[OpenAgentsError]
    ) -> None:
        await driver.add(a_job("taken", name="first"))
        before = await driver.store.find(Query())
        assert type(await driver.refusal(adding(*jobs))) is error
        assert await driver.store.find(Query()) == before
        assert [job.job_id for job in await driver.add(a_job("new"))] == ["new"]

    async def test_a_refused_batch_names_what_is_wrong(self, driver: StoreDriver) -> None:
        await driver.add(a_job("taken"))
        duplicate = await driver.refusal(adding(a_job("taken")))
        assert isinstance(duplicate, DuplicateJobError)
        assert duplicate.job_id == "taken"
        twins = await driver.refusal(adding(a_job("new"), a_job("twin"), a_job("twin")))
        assert isinstance(twins, DuplicateJobError)
        assert twins.job_id == "twin"
        unknown = await driver.refusal(adding(a_job("child", "taken", "nobody")))
        assert isinstance(unknown, UnknownDependencyError)
        assert (unknown.job_id, unknown.depends_on_id) == ("child", "nobody")

    async def test_the_same_call_repeated_adds_nothing_and_gives_the_jobs(self, driver: StoreDriver) -> None:
        add = adding(a_job("a"), a_job("b", "a"))
        first = await driver.do(add)
        driver.clock.advance(1)
        second = await driver.do(add)
        assert (first.changed, second.changed) == (True, False)
        assert second.jobs == first.jobs
        assert await driver.store.count(Query()) == 2

    async def test_the_same_call_repeated_gives_the_jobs_as_they_now_are(self, driver: StoreDriver) -> None:
        add = adding(a_job("a"), a_job("b", "a"))
        await driver.do(add)
        await driver.complete("a")
        answer = await driver.do(add)
        assert answer.jobs == tuple(await driver.store.get(["a", "b"]))
        assert [job.status for job in answer.jobs] == [JobStatus.COMPLETED, JobStatus.PENDING]

    async def test_another_call_with_the_same_id_is_refused_whatever_it_asks_for(self, driver: StoreDriver) -> None:
        await driver.do(adding(a_job("a"), request_id="one"))
        before = await driver.job("a")
        assert type(await driver.refusal(adding(a_job("a"), request_id="two"))) is DuplicateJobError
        assert await driver.job("a") == before

    async def test_a_refused_change_leaves_the_others_standing(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"))
        result = await driver.apply(
            Pause("a"),
            Cancel("nobody", "why"),
            adding(a_job("c", "nobody")),
            Finish("b", "no:1", COMPLETED, b"1"),
            Cancel("b", "why"),
            Resume("b"),
            adding(a_job("d")),
        )
        assert _errors(result.answers) == [
            None,
            JobNotFoundError,
            UnknownDependencyError,
            LeaseLostError,
            None,
            InvalidTransitionError,
            None,
        ]
        assert await driver.statuses("a", "b", "c", "d") == {"a": "paused", "b": "cancelled", "d": "pending"}

    async def test_a_call_with_nothing_in_it_is_answered_with_nothing(self, driver: StoreDriver) -> None:
        result = await driver.apply()
        assert (result.answers, result.claimed) == ((), None)

    async def test_changes_that_name_one_job_see_the_effects_of_those_before_them(self, driver: StoreDriver) -> None:
        result = await driver.apply(
            adding(a_job("a", queued=False)),
            Start("a"),
            Pause("a"),
            Resume("a"),
            Cancel("a", "why"),
            Delete("a"),
            Delete("a"),
            Start("a"),
        )
        assert _errors(result.answers) == [None] * 7 + [JobNotFoundError]
        changed = [answer.changed for answer in result.answers if isinstance(answer, Applied)]
        assert changed == [True] * 6 + [False]
        assert await driver.statuses("a") == {}

    async def test_jobs_of_later_calls_to_add_may_depend_on_those_of_earlier_ones(self, driver: StoreDriver) -> None:
        result = await driver.apply(adding(a_job("a")), adding(a_job("b", "a")), adding(a_job("a")))
        assert _errors(result.answers) == [None, None, DuplicateJobError]
        assert await driver.statuses("a", "b") == {"a": "pending", "b": "pending"}

    async def test_one_job_can_change_often_in_one_call_and_each_answer_shows_it_at_its_time(
        self, driver: StoreDriver
    ) -> None:
        result = await driver.apply(
            adding(a_job("a")), Pause("a"), Resume("a"), Cancel("a", "why"), Rerun("a"), Pause("a")
        )
        shown = [answer.jobs[0] for answer in result.answers if isinstance(answer, Applied)]
        assert [job.status.value for job in shown] == [
            "pending", "paused", "pending", "cancelled", "pending", "paused",
        ]  # fmt: skip
        versions = [job.version for job in shown]
        assert versions == sorted(set(versions))
        assert shown[-1] == await driver.job("a")

    async def test_an_id_can_be_deleted_and_used_again_in_one_call(self, driver: StoreDriver) -> None:
        await driver.add(a_job("parent"), a_job("a", "parent", name="old"))
        await driver.do(Cancel("a", "why"))
        await driver.apply(Delete("a"), adding(a_job("a", "parent", name="new")))
        job = await driver.job("a")
        assert (job.spec.name, job.status, job.unmet) == ("new", JobStatus.PENDING, 1)
        lease = await driver.run("parent")
        await driver.apply(
            Delete("a"), adding(a_job("a", "parent", name="newer")), Finish("parent", lease, COMPLETED, b"1")
        )
        job = await driver.job("a")
        assert (job.spec.name, job.unmet) == ("newer", 0)

    async def test_an_edge_changed_several_times_in_one_call_counts_once(self, driver: StoreDriver) -> None:
        await driver.add(a_job("parent"), a_job("old", "parent"), a_job("new"), a_job("gone", "parent"))
        lease = await driver.run("parent")
        await driver.apply(
            RemoveDependency("old", "parent"),
            AddDependency("old", "parent"),
            AddDependency("new", "parent"),
            RemoveDependency("new", "parent"),
            AddDependency("new", "parent"),
            RemoveDependency("gone", "parent"),
            Finish("parent", lease, COMPLETED, b"1"),
        )
        for job_id in ("old", "new", "gone"):
            job = await driver.job(job_id)
            assert (job_id, job.unmet, job.ready_at) == (job_id, 0, driver.clock.now())

    async def test_the_claim_sees_what_the_changes_made_ready_and_what_they_took_away(
        self, driver: StoreDriver
    ) -> None:
        await driver.add(a_job("parent"), a_job("child", "parent"), a_job("paused"), a_job("started", queued=False))
        lease = await driver.run("parent")
        result = await driver.apply(
            Finish("parent", lease, COMPLETED, b"1"),
            Pause("paused"),
            Start("started"),
            adding(a_job("added")),
            adding(a_job("deleted")),
            Delete("deleted"),
            claim=a_claim(1),
        )
        assert result.claimed is not None
        assert {job.job_id for job in result.claimed.jobs} == {"child", "started", "added"}

    async def test_a_job_given_back_can_be_claimed_by_the_same_call(self, driver: StoreDriver) -> None:
        await driver.add(a_job("released"), a_job("retried"))
        lease = await driver.run("released", "retried")
        result = await driver.apply(
            Release("released", lease, "why"),
            Finish("retried", lease, AttemptOutcome.FAILED, error=BOOM, retry_in=0.0),
            claim=a_claim(1),
        )
        assert result.claimed is not None
        assert {job.job_id for job in result.claimed.jobs} == {"released", "retried"}
        assert {job.lease for job in result.claimed.jobs} == {a_claim(1).lease}

    async def test_a_worker_declared_dead_holds_nothing_at_the_end_of_the_same_call(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"), a_job("other"))
        lease = await driver.run("job")
        result = await driver.apply(Recover(WORKER, "it died"), Finish("job", lease, COMPLETED, b"1"), claim=a_claim(1))
        assert result.claimed is not None
        assert isinstance(result.claimed.error, WorkerDeadError)
        assert await driver.status("other") is JobStatus.PENDING
        accepted = isinstance(result.answers[1], Applied)  # which of the two came first is the store's own affair
        assert await driver.status("job") is (JobStatus.COMPLETED if accepted else JobStatus.PENDING)

    async def test_changes_stand_when_the_claim_is_refused(self, driver: StoreDriver) -> None:
        result = await driver.apply(adding(a_job("job")), claim=a_claim(1, worker_id="nobody"))
        assert result.claimed is not None
        assert isinstance(result.claimed.error, WorkerDeadError)
        assert await driver.status("job") is JobStatus.PENDING

    async def test_a_large_call_is_answered_change_by_change(self, driver: StoreDriver) -> None:
        await driver.apply(*(adding(a_job(f"job-{number}")) for number in range(300)))
        result = await driver.apply(*(Cancel(f"job-{number}", "why") for number in range(0, 600, 2)))
        assert _errors(result.answers) == [None] * 150 + [JobNotFoundError] * 150
        assert await driver.store.count(Query(statuses=frozenset({JobStatus.CANCELLED}))) == 150
