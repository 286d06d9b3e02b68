"""Waiting for a job's end: whoever waits is told, whatever the end is, and harms nobody by going away."""

import asyncio

import pytest

from openagents_json.errors import InvalidJobError, JobCancelledError, JobFailedError, JobNotFoundError
from openagents_json.job import JobManager, JobStatus
from tests.engine._handlers import Held
from tests.engine._time import settled, soon
from tests.engine.conftest import Managers


@pytest.fixture
async def held(manager: JobManager) -> Held:
    held = Held()
    manager.register_handler("work", held)
    return held


async def test_all_who_wait_get_the_job(manager: JobManager, held: Held) -> None:
    await manager.create_job("work", job_id="j", payload=1, auto_start=True)
    waits = [asyncio.create_task(manager.wait_for_job("j")) for _ in range(10)]
    await held.wait_begun("j")
    held.let_go()

    jobs = await soon(asyncio.gather(*waits))
    assert {(job.status, job.result) for job in jobs} == {(JobStatus.COMPLETED, 1)}


async def test_waiting_before_the_job_is_started_is_fine(manager: JobManager, held: Held) -> None:
    held.let_go()
    await manager.create_job("work", job_id="j")
    waiting = asyncio.create_task(manager.wait_for_job("j"))
    await settled()
    await manager.start_job("j")

    assert (await soon(waiting)).status is JobStatus.COMPLETED


async def test_job_that_is_over_is_given_at_once(manager: JobManager, held: Held) -> None:
    held.let_go()
    await soon(manager.run_job("work", job_id="j"))

    assert (await soon(manager.wait_for_job("j"))).status is JobStatus.COMPLETED


async def test_end_of_a_job_is_seen_by_a_manager_that_does_not_run_it(managers: Managers) -> None:
    manager, viewer, held = managers(), managers(run_jobs=False), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    waiting = asyncio.create_task(viewer.wait_for_job("j"))
    await held.wait_begun("j")
    held.let_go()

    assert (await soon(waiting)).status is JobStatus.COMPLETED


async def test_job_that_does_not_exist_is_not_waited_for(manager: JobManager) -> None:
    with pytest.raises(JobNotFoundError, match="there is no job 'ghost'"):
        await soon(manager.wait_for_job("ghost"))


async def test_job_deleted_meanwhile_is_said_to_be_gone(managers: Managers) -> None:
    manager, other = managers(run_jobs=False), managers(run_jobs=False)
    for deleting in (manager, other):
        await manager.create_job("work", job_id="j")
        waiting = asyncio.create_task(manager.wait_for_job("j"))
        await settled()
        await deleting.delete_job("j")

        with pytest.raises(JobNotFoundError):
            await soon(waiting)


async def test_who_stops_waiting_disturbs_neither_the_job_nor_the_others(manager: JobManager, held: Held) -> None:
    await manager.create_job("work", job_id="j", auto_start=True)
    waits = [asyncio.create_task(manager.wait_for_job("j")) for _ in range(3)]
    await held.wait_begun("j")
    waits[1].cancel()
    await settled()
    held.let_go()

    done = await soon(asyncio.gather(*waits, return_exceptions=True))
    assert [type(one).__name__ for one in done] == ["Job", "CancelledError", "Job"]
    assert held.cancelled == []


async def test_caller_of_run_job_who_is_cancelled_leaves_the_job_running(manager: JobManager, held: Held) -> None:
    running = asyncio.create_task(manager.run_job("work", job_id="j"))
    await held.wait_begun("j")
    running.cancel()
    await settled()
    held.let_go()

    assert (await soon(manager.wait_for_job("j"))).status is JobStatus.COMPLETED


async def test_failure_is_raised_with_its_cause(manager: JobManager) -> None:
    @manager.handler
    async def broken() -> None:
        msg = "no such table"
        raise LookupError(msg)

    with pytest.raises(JobFailedError) as caught:
        await soon(manager.run_job("broken", job_id="j"))

    assert str(caught.value) == "job 'j' failed: LookupError: no such table"
    assert (caught.value.job_id, caught.value.status) == ("j", "failed")
    assert "raise LookupError(msg)" in caught.value.error.traceback
    assert not isinstance(caught.value, JobCancelledError)


async def test_cancellation_is_raised_as_such(manager: JobManager, held: Held) -> None:
    running = asyncio.create_task(manager.run_job("work", job_id="j"))
    await held.wait_begun("j")
    await manager.cancel_job("j", "too slow")

    with pytest.raises(JobCancelledError, match="job 'j' was cancelled: Cancelled: too slow"):
        await soon(running)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), True, "1"], ids=repr)
async def test_timeout_must_be_a_number_of_seconds(manager: JobManager, timeout: float) -> None:
    await manager.create_job("work", job_id="j")

    with pytest.raises(InvalidJobError, match="timeout: "):
        await manager.wait_for_job("j", timeout)


async def test_job_that_runs_again_can_be_waited_for_again(manager: JobManager, held: Held) -> None:
    held.let_go()
    for times in range(1, 4):
        if times == 1:
            await manager.create_job("work", job_id="j", auto_start=True)
        else:
            await manager.retry_job("j")
        assert (await soon(manager.wait_for_job("j"))).attempt == times
