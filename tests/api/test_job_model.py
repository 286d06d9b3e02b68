"""`Job` as a value, and the small types it is made of."""

import asyncio
import copy
import dataclasses
import json
import pickle
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from openagents_json.errors import InvalidJobError
from openagents_json.job import (
    Attempt,
    AttemptOutcome,
    Job,
    JobContext,
    JobError,
    JobManager,
    JobPriority,
    JobStatus,
    RetryPolicy,
    WaitReason,
)
from openagents_json.job.storage import MemoryJobStore
from tests.api.helpers import run_to_the_end, shown

pytestmark = pytest.mark.timeout(10)

FIELDS = (
    "job_id", "name", "description", "handler", "queue", "payload", "metadata", "tags", "priority", "status",
    "wait_reason", "batch_id", "dependencies", "on_dependency_failure", "max_retries", "retry_delay", "retry_policy",
    "timeout", "max_recoveries", "run_at", "created_at", "updated_at", "started_at", "completed_at", "attempt",
    "retry_count", "progress", "progress_message", "result", "error", "attempts", "worker_id",
)  # fmt: skip


@pytest.fixture
async def jobs(manager: JobManager) -> AsyncIterator[dict[str, Job]]:
    """Give a job in every state, and some that wait for different things."""

    @manager.handler("work")
    async def work(context: JobContext) -> dict[str, Any]:
        context.set_progress(0.5, "half")
        return {"answer": [42, None, "ü"]}

    @manager.handler("fail")
    async def fail() -> None:
        msg = "no luck"
        raise ValueError(msg)

    held = asyncio.Event()

    @manager.handler("hold")
    async def hold() -> None:
        held.set()
        await manager.wait_for_job("never-over")

    everything: dict[str, Any] = {
        "description": "all of it",
        "payload": {"deep": [{"er": None}]},
        "metadata": {"mine": [1]},
        "tags": ["a", "b"],
        "priority": "critical",
        "max_retries": 1,
        "retry_policy": RetryPolicy(0, 2.5, 30, 0.25),
        "timeout": 60,
        "max_recoveries": None,
        "on_dependency_failure": "run",
    }
    await manager.create_job("x", job_id="never-over")
    completed = await run_to_the_end(manager, "work", dependencies=[], **everything)
    failed = await run_to_the_end(manager, "fail", dependencies=[completed.job_id], **everything)
    await manager.create_job("x", job_id="paused")
    await manager.create_job("x", job_id="cancelled")
    running = await manager.create_job("hold", auto_start=True)
    await held.wait()
    _, batch = await manager.create_job_batch([{"name": "x"}, {"name": "x", "dependencies": [0]}], auto_start=True)
    yield {
        "completed": completed,
        "failed": failed,
        "paused": await manager.pause_job("paused"),
        "cancelled": await manager.cancel_job("cancelled", "not needed"),
        "running": await manager.get_job(running.job_id),
        "pending for start": await manager.get_job("never-over"),
        "pending for worker": batch[0],
        "pending for dependencies": batch[1],
        "pending for time": await manager.create_job("x", delay=1000, auto_start=True),
    }
    await manager.cancel_job(running.job_id)


async def test_the_fixture_has_a_job_in_every_state(jobs: dict[str, Job]) -> None:
    assert {job.status for job in jobs.values()} == set(JobStatus)
    for name, job in jobs.items():
        state, _, reason = name.partition(" for ")
        assert (job.status, job.wait_reason) == (state, reason or None)
    assert {job.wait_reason for job in jobs.values() if job.status == "pending"} == set(WaitReason)


def test_a_job_has_these_fields() -> None:
    assert tuple(field.name for field in dataclasses.fields(Job)) == FIELDS


async def test_a_job_cannot_be_changed(jobs: dict[str, Job]) -> None:
    job = jobs["completed"]
    for field in FIELDS:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(job, field, None)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(job, field)
    with pytest.raises((AttributeError, TypeError)):
        job.new = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        job["name"] = "new"  # type: ignore[index]


async def test_fields_can_be_read_like_items(jobs: dict[str, Job]) -> None:
    for job in jobs.values():
        for field in FIELDS:
            assert job[field] is getattr(job, field)


@pytest.mark.parametrize("field", ["nothing", "", "to_dict", "keys", "__class__", 0, None, slice(None)], ids=shown)
async def test_what_is_no_field_is_no_item(manager: JobManager, field: Any) -> None:
    job = await manager.create_job("x")
    with pytest.raises(KeyError) as error:
        job[field]
    assert error.value.args == (field,)


async def test_a_job_reads_like_a_mapping(jobs: dict[str, Job]) -> None:
    job = jobs["completed"]
    assert tuple(job.keys()) == FIELDS
    assert dict(job) == {field: getattr(job, field) for field in FIELDS}
    assert {**job}["status"] == "completed"
    mapping: Any = job
    assert ("status" in mapping, "nothing" in mapping) == (True, False)


async def test_equal_jobs_are_equal_and_others_are_not(manager: JobManager) -> None:
    job = await manager.create_job("x", payload={"a": 1})
    again = await manager.get_job(job.job_id)
    assert job == again
    assert job is not again
    assert job != await manager.start_job(job.job_id)
    assert job != await manager.create_job("x", payload={"a": 1})
    data: object = job.to_dict()
    assert job != data


async def test_jobs_can_be_kept_in_a_set(manager: JobManager) -> None:
    job = await manager.create_job("x", payload={"a": 1})
    assert {job, await manager.get_job(job.job_id)} == {job}


async def test_the_repr_is_short_and_tells_what_matters(jobs: dict[str, Job], manager: JobManager) -> None:
    for name, job in jobs.items():
        text = repr(job)
        assert job.job_id in text
        assert repr(job.name) in text
        assert name in text, "the state, and what it waits for"
        assert len(text) < 160
    assert "no luck" in repr(jobs["failed"])
    huge = await manager.create_job("n" * 255, description="d" * 10_000, payload="p" * 10_000, tags=["t" * 100] * 50)
    assert len(repr(huge)) < 400

    @manager.handler("fail at length")
    async def fail() -> None:
        raise ValueError("x" * 10_000)

    assert len(repr(await run_to_the_end(manager, "fail at length"))) < 250


async def test_a_job_of_any_state_survives_json(jobs: dict[str, Job]) -> None:
    for job in jobs.values():
        data = job.to_dict()
        assert tuple(data) == FIELDS
        text = json.dumps(data, allow_nan=False)
        again = Job.from_dict(json.loads(text))
        assert again == job
        assert again.to_dict() == data
        assert {type(again[field]) for field in FIELDS} == {type(job[field]) for field in FIELDS}


async def test_a_recovered_job_survives_json() -> None:
    store = MemoryJobStore()
    held = asyncio.Event()
    async with JobManager(store, shutdown_timeout=0) as manager:

        @manager.handler("hold")
        async def hold() -> None:
            held.set()
            await asyncio.Event().wait()

        await manager.create_job("hold", job_id="held", auto_start=True)
        await held.wait()
    async with JobManager(store, run_jobs=False) as manager:
        job = await manager.get_job("held")
    assert job.metadata["recovery_history"]
    (entry,) = job.metadata["recovery_history"]
    assert set(entry) == {"at", "why", "worker_id", "attempt"}
    assert datetime.fromisoformat(entry["at"]).tzinfo is not None
    assert job.attempts[0].outcome is AttemptOutcome.INTERRUPTED
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


WRONG_DATA: tuple[tuple[str, object], ...] = (
    ("status", "done"),
    ("status", None),
    ("wait_reason", "nothing"),
    ("priority", "urgent"),
    ("priority", None),
    ("on_dependency_failure", "ignore"),
    ("tags", None),
    ("tags", "text"),
    ("dependencies", 7),
    ("error", "text"),
    ("error", {"type": "x"}),
    ("error", {"type": "x", "message": "y", "more": 1}),
    ("retry_policy", {"delay": -1}),
    ("retry_policy", {"delay": 1, "more": 1}),
    ("retry_policy", "fixed"),
    ("attempts", None),
    ("attempts", [{}]),
    ("attempts", ["text"]),
    ("created_at", "yesterday"),
    ("created_at", 7),
    ("created_at", None),
    ("run_at", 7),
)


@pytest.mark.parametrize(("field", "value"), WRONG_DATA, ids=shown)
async def test_data_that_cannot_be_read_is_refused(manager: JobManager, field: str, value: object) -> None:
    job = await manager.create_job("x")
    data = job.to_dict() | {field: value}
    with pytest.raises(InvalidJobError, match=r"Job\.to_dict\(\)"):
        Job.from_dict(data)


@pytest.mark.parametrize("field", FIELDS)
async def test_a_missing_field_is_named(manager: JobManager, field: str) -> None:
    data = (await manager.create_job("x")).to_dict()
    del data[field]
    with pytest.raises(InvalidJobError, match="missing") as refusal:
        Job.from_dict(data)
    assert refusal.value.field == field


async def test_an_unknown_field_is_named(manager: JobManager) -> None:
    data = (await manager.create_job("x")).to_dict() | {"state": "pending"}
    with pytest.raises(InvalidJobError, match="unknown") as refusal:
        Job.from_dict(data)
    assert refusal.value.field == "state"


@pytest.mark.parametrize("data", [None, "text", [], 7, {}], ids=shown)
def test_what_is_no_dict_of_a_job_is_refused(data: Any) -> None:
    with pytest.raises(InvalidJobError, match=r"Job\.to_dict\(\)"):
        Job.from_dict(data)


async def test_jobs_of_any_state_can_be_pickled_and_copied(jobs: dict[str, Job]) -> None:
    for job in jobs.values():
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(job, protocol)) == job  # noqa: S301 - our own
        assert copy.copy(job) == job
        deep = copy.deepcopy(job)
        assert deep == job
        assert deep.metadata is not job.metadata
    assert dataclasses.replace(jobs["failed"], name="new").name == "new"


# ids


async def test_ids_are_uuids_of_version_7_that_sort_by_creation(manager: JobManager) -> None:
    _, first = await manager.create_job_batch([{"name": "x"} for _ in range(500)])
    single = await manager.create_job("x")
    second_id, second = await manager.create_job_batch([{"name": "x"} for _ in range(500)])
    ids = [job.job_id for job in (*first, single, *second)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    for text in (*ids, second_id):
        assert UUID(text).version == 7
        assert str(UUID(text)) == text
    stamp = UUID(single.job_id).int >> 80
    assert abs(stamp - single.created_at.timestamp() * 1000) < 60_000


# the small types


def test_priorities_are_ordered() -> None:
    assert JobPriority.LOW < JobPriority.MEDIUM < JobPriority.HIGH < JobPriority.CRITICAL
    assert max(JobPriority) is JobPriority.CRITICAL


@pytest.mark.parametrize(
    ("given", "priority"),
    [
        ("high", JobPriority.HIGH),
        ("HIGH", JobPriority.HIGH),
        ("High", JobPriority.HIGH),
        (JobPriority.HIGH, JobPriority.HIGH),
        (2, JobPriority.HIGH),
        ("low", JobPriority.LOW),
        (0, JobPriority.LOW),
        ("critical", JobPriority.CRITICAL),
        ("medium", JobPriority.MEDIUM),
    ],
    ids=shown,
)
async def test_a_priority_may_be_given_by_name_number_or_member(
    manager: JobManager, given: Any, priority: JobPriority
) -> None:
    assert (await manager.create_job("x", priority=given)).priority is priority
    _, jobs = await manager.create_job_batch([{"name": "x", "priority": given}])
    assert jobs[0].priority is priority
    assert await manager.count_jobs(priority=given) == 2
    assert JobPriority.parse(given) is priority


async def test_the_priority_is_medium_unless_given(manager: JobManager) -> None:
    assert (await manager.create_job("x")).priority is JobPriority.MEDIUM


def test_statuses_are_their_names() -> None:
    assert [str(status) for status in JobStatus] == [
        "pending", "running", "paused", "completed", "failed", "cancelled",
    ]  # fmt: skip
    assert JobStatus("completed") is JobStatus.COMPLETED
    assert f"{JobStatus.RUNNING}" == "running"
    assert json.dumps(JobStatus.RUNNING) == '"running"'
    finished = {status for status in JobStatus if status.finished}
    assert finished == {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


def test_an_error_reads_well() -> None:
    assert str(JobError("ValueError", "no luck")) == "ValueError: no luck"
    assert str(JobError("ValueError", "")) == "ValueError"
    attempt = Attempt(1, "w", datetime.now(UTC), datetime.now(UTC), AttemptOutcome.FAILED, JobError("E", "m"))
    assert pickle.loads(pickle.dumps(attempt)) == attempt  # noqa: S301 - our own


def test_a_retry_policy_grows_is_capped_and_jitters_within_its_bounds() -> None:
    policy = RetryPolicy.exponential(1, factor=2, max_delay=10, jitter=0.5)
    assert [policy.delay_before(retry) for retry in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert policy.delay_before(2, chance=0.5) == 1.5
    assert policy.delay_before(2, chance=0.999999) > 1
    assert policy.delay_before(10_000) == 10
    assert [RetryPolicy.fixed(3).delay_before(retry) for retry in (1, 2, 100)] == [3, 3, 3]
    assert RetryPolicy.exponential() == RetryPolicy(1.0, 2.0, 300.0, 0.5)
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - our own
