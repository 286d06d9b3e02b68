"""A job nobody here can run stays pending, is named in the log once, and is in nobody's way."""

import logging
from typing import Any

import pytest
from typing_extensions import override

from openagents_json.job import Job, JobContext, JobManager, JobStatus, WaitReason
from openagents_json.testing import ManualClock
from tests.engine._time import pass_time, settled, soon
from tests.engine.conftest import Managers


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """List what was warned of missing handlers."""
    return [record.getMessage() for record in caplog.records if "no handler" in record.getMessage()]


async def test_job_without_a_handler_stays_pending_as_if_it_had_not_been_touched(
    manager: JobManager, clock: ManualClock
) -> None:
    job = await manager.create_job("nobody-can", auto_start=True)
    await pass_time(clock, 3600)

    job = await manager.get_job(job.job_id)
    assert (job.status, job.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
    assert (job.attempt, job.attempts, job.started_at, job.worker_id) == (0, (), None, None)


async def test_missing_handler_is_named_once(
    manager: JobManager, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            await manager.create_job("nobody-can", auto_start=True)
        await manager.create_job("something", handler="nobody-can-that", auto_start=True)
        await pass_time(clock, 600)

    assert len(warnings(caplog)) == 2
    assert "no handler 'nobody-can' is registered; job " in warnings(caplog)[0]
    assert "no handler 'nobody-can-that' is registered; job " in warnings(caplog)[1]


async def test_missing_handler_is_not_named_again_when_another_one_is_registered(
    manager: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    @manager.handler
    async def other() -> None:
        pass

    with caplog.at_level(logging.WARNING):
        await manager.create_job("nobody-can", auto_start=True)
        await settled()
        manager.register_handler("unrelated", other)
        await settled()

    assert len(warnings(caplog)) == 1


async def test_missing_handler_is_not_named_before_anybody_wants_the_job_run(
    manager: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        job = await manager.create_job("later", job_id="j")
        await manager.create_job("elsewhere", queue="elsewhere", auto_start=True)
        await settled()

        @manager.handler
        async def later() -> str:
            return "in time"

        await manager.start_job(job.job_id)
        await soon(manager.wait_for_job("j"))

    assert warnings(caplog) == []


async def test_jobs_without_a_handler_block_nobody(managers: Managers) -> None:
    manager = managers(max_concurrent_jobs=1)

    @manager.handler
    async def work() -> str:
        return "ran"

    for number in range(20):
        await manager.create_job(f"nobody-can-{number}", auto_start=True, priority="critical")
        await manager.create_job("nobody-can", auto_start=True, priority="critical")

    assert await soon(manager.run_job("work", priority="low")) == "ran"
    assert await manager.count_jobs(status="pending") == 40


async def test_job_runs_once_its_handler_is_registered(manager: JobManager) -> None:
    jobs = [await manager.create_job("late", auto_start=True) for _ in range(3)]
    await settled()

    @manager.handler
    async def late() -> str:
        return "better than never"

    for job in jobs:
        done = await soon(manager.wait_for_job(job.job_id))
        assert (done.result, done.attempt) == ("better than never", 1)


async def test_job_is_run_by_the_manager_that_can(managers: Managers) -> None:
    without, able = managers(), managers()

    @able.handler
    async def work() -> str:
        return "ran"

    await without.start()
    job = await without.create_job("work", auto_start=True)
    await settled()
    assert (await without.get_job(job.job_id)).wait_reason is WaitReason.WORKER

    await able.start()
    assert (await soon(without.wait_for_job(job.job_id))).result == "ran"


async def test_job_names_the_handler_it_wants(manager: JobManager) -> None:
    @manager.handler
    async def work() -> str:
        return "by the function"

    @manager.handler("other")
    async def elsewhere() -> str:
        return "by the name"

    assert await soon(manager.run_job("anything", handler=work)) == "by the function"
    assert await soon(manager.run_job("work", handler="other")) == "by the name"


async def test_named_handler_that_is_missing_is_not_replaced_by_that_of_the_jobs_name(
    manager: JobManager, clock: ManualClock
) -> None:
    @manager.handler
    async def work() -> None:
        pytest.fail("it was not asked for")

    job = await manager.create_job("work", handler="missing", auto_start=True)
    await pass_time(clock, 60)

    assert await manager.get_job_status(job.job_id) is JobStatus.PENDING


class AsyncManager(JobManager):
    @override
    async def execute_job(self, job: Job, context: JobContext) -> Any:
        return [job.name, job.payload, context.attempt]


class SyncManager(JobManager):
    @override
    def execute_job(self, job: Job, context: JobContext) -> Any:
        return [job.name, job.payload, context.attempt]


@pytest.mark.parametrize("kind", [AsyncManager, SyncManager])
async def test_manager_that_overrides_execute_job_runs_what_has_no_handler(
    managers: Managers, kind: type[JobManager]
) -> None:
    manager = managers(kind=kind)

    @manager.handler
    async def work() -> str:
        return "by its handler"

    assert await soon(manager.run_job("anything", payload={"a": 1})) == ["anything", {"a": 1}, 1]
    assert await soon(manager.run_job("work")) == "by its handler"


async def test_overridden_execute_job_does_not_stand_in_for_a_handler_asked_for_by_name(
    managers: Managers, clock: ManualClock
) -> None:
    manager = managers(kind=AsyncManager)
    job = await manager.create_job("anything", handler="missing", auto_start=True)
    await pass_time(clock, 60)

    assert (await manager.get_job(job.job_id)).wait_reason is WaitReason.WORKER


async def test_name_missed_as_a_handler_does_not_hide_jobs_of_that_name(managers: Managers) -> None:
    manager = managers(kind=AsyncManager)
    await manager.create_job("anything", handler="both", auto_start=True)
    await settled()

    assert await soon(manager.run_job("both", payload=1)) == ["both", 1, 1]
