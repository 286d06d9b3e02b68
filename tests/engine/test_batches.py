"""Batches: stored all or none, with dependencies by position."""

from typing import Any

import pytest

from openagents_json.errors import DuplicateJobError, InvalidJobError, UnknownDependencyError
from openagents_json.job import BatchJob, JobManager, JobPriority, WaitReason
from tests.engine._time import soon


async def test_batch_is_stored_in_order_with_one_id(manager: JobManager) -> None:
    await manager.create_job("work", job_id="outside")
    batch_id, jobs = await manager.create_job_batch(
        [
            {"name": "first", "payload": 1, "priority": "high", "tags": ["a"]},
            {"name": "second", "dependencies": [0, "outside"], "auto_start": True},
            {"name": "third", "job_id": "mine", "delay": 5},
        ]
    )

    assert [job.name for job in jobs] == ["first", "second", "third"]
    assert {job.batch_id for job in jobs} == {batch_id}
    assert jobs[0].priority is JobPriority.HIGH
    assert jobs[1].dependencies == (jobs[0].job_id, "outside")
    assert [job.wait_reason for job in jobs] == [WaitReason.START, WaitReason.DEPENDENCIES, WaitReason.START]
    assert jobs[2].job_id == "mine"
    assert await manager.get_batch_jobs(batch_id) == jobs
    assert (await manager.get_job("outside")).batch_id is None


async def test_batch_that_is_started_runs(manager: JobManager) -> None:
    @manager.handler
    async def work(payload: int) -> int:
        return payload + 1

    _, jobs = await manager.create_job_batch([{"name": "work", "payload": n} for n in range(50)], auto_start=True)

    assert [(await soon(manager.wait_for_job(job.job_id))).result for job in jobs] == list(range(1, 51))


GOOD: BatchJob = {"name": "work", "job_id": "good"}
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no name": ({"payload": 1}, InvalidJobError, r"specs\[1\].name: is missing"),
    "unknown option": ({"name": "x", "prio": 1}, InvalidJobError, r"specs\[1\]: .*'prio'; did you mean 'priority'"),
    "wrong value": ({"name": "x", "timeout": -1}, InvalidJobError, r"specs\[1\].timeout: "),
    "bad payload": ({"name": "x", "payload": [{"y": object()}]}, InvalidJobError, r"specs\[1\].payload\[0\].y: "),
    "position out of range": ({"name": "x", "dependencies": [3]}, InvalidJobError, r"specs\[1\].dependencies\[0\]: "),
    "negative position": ({"name": "x", "dependencies": [-1]}, InvalidJobError, r"specs\[1\].dependencies\[0\]: "),
    "unknown dependency": ({"name": "x", "dependencies": ["ghost"]}, UnknownDependencyError, "'ghost'"),
    "taken id": ({"name": "x", "job_id": "taken"}, DuplicateJobError, "'taken' exists already"),
    "id given twice": ({"name": "x", "job_id": "good"}, InvalidJobError, "'good' is given twice"),
    "not a dict": ("x", InvalidJobError, r"specs\[1\]: must be a dict"),
}


@pytest.mark.parametrize("wrong", BAD)
async def test_one_bad_job_keeps_the_whole_batch_out(manager: JobManager, wrong: str) -> None:
    bad, error, message = BAD[wrong]
    await manager.create_job("work", job_id="taken")

    with pytest.raises(error, match=message):
        await manager.create_job_batch([GOOD, bad, {"name": "work"}])

    assert await manager.count_jobs() == 1


@pytest.mark.parametrize("specs", [[], {}, "jobs", None, 5], ids=repr)
async def test_batch_must_be_a_list_of_jobs(manager: JobManager, specs: Any) -> None:
    with pytest.raises(InvalidJobError, match="specs: "):
        await manager.create_job_batch(specs)


async def test_batch_that_does_not_exist_is_empty(manager: JobManager) -> None:
    assert await manager.get_batch_jobs("ghost") == []
