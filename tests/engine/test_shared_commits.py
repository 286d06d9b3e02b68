"""Many callers share one commit; none of them is another one's trouble."""

import asyncio
from collections.abc import Sequence

import pytest
from typing_extensions import override

from openagents_json.errors import DuplicateJobError, JobNotFoundError, StoreError, StoreUnavailableError
from openagents_json.job import EventType, JobEvent, JobManager, JobStatus
from openagents_json.job._changes import Add, Cancel, Change, Claim, Finish, Result
from openagents_json.job.model import AttemptOutcome
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._stores import ScriptedStore, changes_a
from tests.engine._time import in_time, settled, soon
from tests.engine.conftest import Managers


class PoisonError(Exception):
    """What no store should raise."""


class PoisonedStore(MemoryJobStore):
    """A store that breaks on one job, whatever else is in the same commit.

    Attributes:
        poison: that job's id.
    """

    poison = "poison"

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        for change in changes:
            match change:
                case Add(jobs) if any(job.spec.job_id == self.poison for job in jobs):
                    raise PoisonError
                case Finish(self.poison, outcome=AttemptOutcome.COMPLETED):
                    raise PoisonError
                case _:
                    pass
        return await super().apply(changes, claim=claim)


@pytest.fixture
def scripted(store: MemoryJobStore) -> ScriptedStore:
    return ScriptedStore(store)


@pytest.fixture
async def shared(managers: Managers, scripted: ScriptedStore) -> JobManager:
    """Give a manager on the scripted store, started and quiet."""
    manager = managers(scripted)
    await manager.start()
    await settled()
    scripted.applied.clear()
    return manager


async def test_hundred_callers_share_two_commits(shared: JobManager, scripted: ScriptedStore) -> None:
    jobs = await soon(asyncio.gather(*(shared.create_job("work") for _ in range(100))))

    commits = [len(changes) for changes, _ in scripted.applied if changes]
    assert (sum(commits), len(commits) <= 2) == (100, True), commits
    assert len({job.job_id for job in jobs}) == 100


async def test_callers_who_come_during_a_commit_share_the_next(shared: JobManager, scripted: ScriptedStore) -> None:
    first = scripted.hold("apply", changes_a(Add))
    tasks = [asyncio.create_task(shared.create_job("work"))]
    await first.wait_reached()
    tasks += [asyncio.create_task(shared.create_job("work")) for _ in range(50)]
    await settled()
    assert len(scripted.applied) == 1, "one commit at a time"

    first.let_go()
    await soon(asyncio.gather(*tasks))
    assert [len(changes) for changes, _ in scripted.applied if changes] == [1, 50]


async def test_caller_cancelled_during_a_shared_commit_takes_nobody_along(
    shared: JobManager, scripted: ScriptedStore
) -> None:
    first = scripted.hold("apply", changes_a(Add))
    blocker = asyncio.create_task(shared.create_job("work", job_id="blocker"))
    await first.wait_reached()
    commit = scripted.hold("apply", changes_a(Add))
    callers = [asyncio.create_task(shared.create_job("work", job_id=f"j{n}")) for n in range(5)]
    first.let_go()
    await commit.wait_reached()
    assert len(scripted.applied[-1][0]) == 5

    callers[2].cancel()
    await settled()
    assert callers[2].cancelled(), "he need not wait for the commit"
    commit.let_go()

    await soon(blocker)
    others = await soon(asyncio.gather(*(caller for caller in callers if not caller.cancelled())))
    assert [job.job_id for job in others] == ["j0", "j1", "j3", "j4"]
    assert (await shared.get_job("j2")).job_id == "j2", "what was under way took effect"


async def test_caller_cancelled_before_his_commit_began_has_changed_nothing(
    shared: JobManager, scripted: ScriptedStore
) -> None:
    first = scripted.hold("apply", changes_a(Add))
    blocker = asyncio.create_task(shared.create_job("work"))
    await first.wait_reached()
    callers = [asyncio.create_task(shared.create_job("work", job_id=f"j{n}")) for n in range(3)]
    await settled()

    callers[1].cancel()
    await settled()
    first.let_go()

    await soon(asyncio.gather(blocker, callers[0], callers[2]))
    with pytest.raises(JobNotFoundError):
        await shared.get_job("j1")


async def test_refusal_of_one_is_not_the_others(shared: JobManager) -> None:
    await shared.create_job("work", job_id="taken")

    answers = await soon(
        asyncio.gather(
            shared.create_job("work", job_id="a"),
            shared.create_job("work", job_id="taken"),
            shared.cancel_job("ghost"),
            shared.create_job("work", job_id="b"),
            return_exceptions=True,
        )
    )

    assert [type(answer).__name__ for answer in answers] == ["Job", "DuplicateJobError", "JobNotFoundError", "Job"]
    assert isinstance(answers[1], DuplicateJobError)


async def test_bad_write_in_a_shared_commit_fails_alone(managers: Managers, clock: ManualClock) -> None:
    manager = managers(PoisonedStore(clock=clock))
    await manager.start()

    answers = await soon(
        asyncio.gather(
            *(manager.create_job("work", job_id=job_id) for job_id in ("a", "poison", "b")), return_exceptions=True
        )
    )

    assert [type(answer).__name__ for answer in answers] == ["Job", "StoreError", "Job"]
    assert str(answers[1]) == "the store failed unexpectedly: PoisonError(); nothing was stored"
    assert isinstance(answers[1], StoreError)
    assert isinstance(answers[1].__cause__, PoisonError)
    assert await manager.count_jobs() == 2


async def test_outcome_the_store_never_takes_fails_its_job_alone(managers: Managers, clock: ManualClock) -> None:
    store = PoisonedStore(clock=clock)
    store.poison = "nothing"
    manager = managers(store)
    held = Held()
    manager.register_handler("work", held)
    for job_id in ("a", "poison", "b"):
        await manager.create_job("work", job_id=job_id, payload=job_id, auto_start=True)
        await held.wait_begun(job_id)
    store.poison = "poison"

    held.let_go()
    done = {job_id: await in_time(clock, manager.wait_for_job(job_id)) for job_id in ("a", "b", "poison")}

    assert (done["a"].result, done["b"].result) == ("a", "b")
    assert done["poison"].status is JobStatus.FAILED
    assert str(done["poison"].error).startswith("StoreError: its outcome could not be stored: ")


async def test_outage_is_told_to_everybody_in_the_commit(shared: JobManager, scripted: ScriptedStore) -> None:
    first = scripted.hold("apply", changes_a(Add))
    blocker = asyncio.create_task(shared.create_job("work"))
    await first.wait_reached()
    scripted.fail("apply", StoreUnavailableError("gone away"), changes_a(Add))
    callers = [asyncio.create_task(shared.create_job("work")) for _ in range(3)]
    await settled()
    first.let_go()
    await soon(blocker)

    errors = await soon(asyncio.gather(*callers, return_exceptions=True))

    assert [(type(error), str(error)) for error in errors] == [(StoreUnavailableError, "gone away")] * 3
    assert len({id(error) for error in errors}) == 3, "each has a traceback of his own"


async def test_job_is_cancelled_and_everybody_told_though_who_asked_is_gone(
    shared: JobManager, scripted: ScriptedStore
) -> None:
    held = Held()
    shared.register_handler("work", held)
    told: list[JobEvent] = []
    shared.events.subscribe(told.append, types=[EventType.CANCELLED])
    job = await shared.create_job("work", auto_start=True)
    dependent = await shared.create_job("work", dependencies=[job.job_id], auto_start=True)
    await held.wait_begun(job.job_id)
    waiting = asyncio.create_task(shared.wait_for_job(job.job_id))
    commit = scripted.hold("apply", changes_a(Cancel))
    caller = asyncio.create_task(shared.cancel_job(job.job_id))
    await commit.wait_reached()

    caller.cancel()
    await settled()
    commit.let_go()
    await settled()

    assert (await soon(waiting)).status is JobStatus.CANCELLED
    assert held.cancelled == [job.job_id]
    assert [event.job_id for event in told] == [job.job_id, dependent.job_id]


async def test_job_created_by_a_caller_who_is_gone_runs(shared: JobManager, scripted: ScriptedStore) -> None:
    held = Held()
    shared.register_handler("work", held)
    commit = scripted.hold("apply", changes_a(Add))
    caller = asyncio.create_task(shared.create_job("work", job_id="j", auto_start=True))
    await commit.wait_reached()
    caller.cancel()
    await settled()

    commit.let_go()

    await held.wait_begun("j")


async def test_outcome_and_next_claim_share_a_commit(managers: Managers, scripted: ScriptedStore) -> None:
    manager, held = managers(scripted, max_concurrent_jobs=1), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="first", auto_start=True)
    await held.wait_begun("first")
    await manager.create_job("work", job_id="second", auto_start=True)
    await settled()
    scripted.applied.clear()

    held.let_go("first")
    await held.wait_begun("second")

    changes, claim = scripted.applied[0]
    assert [type(change) for change in changes] == [Finish]
    assert claim is not None
