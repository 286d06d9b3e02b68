"""What users see of a job: immutable, readable by item, and the same after a round trip through JSON."""

import copy
import dataclasses
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openagents_json.errors import InvalidJobError
from openagents_json.job import _lifecycle
from openagents_json.job._record import JobRecord, Recovery, wait_reason
from openagents_json.job.model import (
    Attempt,
    AttemptOutcome,
    DependencyFailurePolicy,
    Job,
    JobError,
    JobPriority,
    JobStatus,
    WaitReason,
)
from openagents_json.job.retry import RetryPolicy
from openagents_json.testing import a_job

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - given UTC
texts = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
job_errors = st.builds(JobError, type=texts, message=texts, traceback=texts)
attempts = st.builds(
    Attempt,
    number=st.integers(1, 100),
    worker_id=texts,
    started_at=moments,
    ended_at=moments,
    outcome=st.sampled_from(AttemptOutcome),
    error=st.none() | job_errors,
)
jobs = st.builds(
    Job,
    job_id=texts,
    name=texts,
    description=texts,
    handler=st.none() | texts,
    queue=texts,
    payload=values,
    metadata=st.dictionaries(texts, values, max_size=3),
    tags=st.lists(texts, max_size=3).map(tuple),
    priority=st.sampled_from(JobPriority),
    status=st.sampled_from(JobStatus),
    wait_reason=st.none() | st.sampled_from(WaitReason),
    batch_id=st.none() | texts,
    dependencies=st.lists(texts, max_size=3).map(tuple),
    on_dependency_failure=st.sampled_from(DependencyFailurePolicy),
    max_retries=st.integers(0, 10),
    retry_delay=st.floats(0, 100),
    retry_policy=st.none() | st.builds(RetryPolicy, delay=st.floats(0, 10), jitter=st.floats(0, 1)),
    timeout=st.none() | st.floats(0, 100),
    max_recoveries=st.none() | st.integers(0, 10),
    run_at=st.none() | moments,
    created_at=moments,
    updated_at=moments,
    started_at=st.none() | moments,
    completed_at=st.none() | moments,
    attempt=st.integers(0, 10),
    retry_count=st.integers(0, 10),
    progress=st.floats(0, 1),
    progress_message=texts,
    result=values,
    error=st.none() | job_errors,
    attempts=st.lists(attempts, max_size=2).map(tuple),
    worker_id=st.none() | texts,
)


def a_record(**changes: Any) -> JobRecord:
    return _lifecycle.new(a_job("job"), 0, NOW)._replace(**changes)


@pytest.fixture
def job() -> Job:
    return a_record().to_job(NOW)


@given(jobs)
def test_a_job_is_the_same_after_a_round_trip_through_json(job: Job) -> None:
    data = json.loads(json.dumps(job.to_dict()))
    assert Job.from_dict(data) == job


@given(jobs)
def test_a_job_survives_pickling_and_copying(job: Job) -> None:
    assert pickle.loads(pickle.dumps(job)) == job  # noqa: S301 - made just here
    assert copy.deepcopy(job) == job


def test_a_job_cannot_be_changed(job: Job) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.status = JobStatus.RUNNING  # type: ignore[misc]
    with pytest.raises(TypeError):
        job["status"] = JobStatus.RUNNING  # type: ignore[index]
    with pytest.raises((AttributeError, TypeError)):
        job.another = 1  # type: ignore[attr-defined]
    assert job.status is JobStatus.PENDING


def test_every_field_is_an_item_too(job: Job) -> None:
    names = [field.name for field in dataclasses.fields(Job)]
    for name in names:
        assert job[name] is getattr(job, name)
    assert list(job.keys()) == names
    assert dict(job) == {name: getattr(job, name) for name in names}


@pytest.mark.parametrize("name", ["colour", "to_dict", "__class__", "", 0])
def test_what_is_no_field_is_no_item(job: Job, name: str) -> None:
    with pytest.raises(KeyError):
        job[name]


def test_a_job_is_shown_in_short() -> None:
    assert repr(a_record().to_job(NOW)) == "<Job job 'work' pending for worker, attempt=0>"
    failed = a_record(status=JobStatus.FAILED, attempt=3, error=JobError("ValueError", "x" * 500))
    shown = repr(failed.to_job(NOW))
    assert shown.startswith("<Job job 'work' failed, attempt=3, error='ValueError: xxx")
    assert len(shown) < 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"priority": "urgent"}, "job"),
        ({"status": "asleep"}, "job"),
        ({"created_at": "yesterday"}, "job"),
        ({"created_at": 7}, "job"),
        ({"attempts": [{"number": 1}]}, "job"),
        ({"attempts": 7}, "job"),
        ({"error": {"kind": "x"}}, "job"),
        ({"retry_policy": {"delay": -1}}, "job"),
        ({"wait_reason": "nothing"}, "job"),
    ],
)
def test_what_no_job_wrote_is_refused(job: Job, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidJobError) as caught:
        Job.from_dict(job.to_dict() | change)
    assert caught.value.field == field


def test_a_field_that_is_missing_is_named(job: Job) -> None:
    data = job.to_dict()
    del data["queue"]
    with pytest.raises(InvalidJobError) as caught:
        Job.from_dict(data)
    assert caught.value.field == "queue"


@pytest.mark.parametrize("member", JobPriority)
def test_a_priority_is_read_from_its_member_name_or_number(member: JobPriority) -> None:
    for given_as in (member, member.name, member.name.lower(), member.name.title(), int(member)):
        assert JobPriority.parse(given_as) is member


@pytest.mark.parametrize("value", ["urgent", "", " high", "0", 4, -1, True, False, 1.0, None, b"high", ["high"]])
def test_what_names_no_priority_is_refused(value: object) -> None:
    with pytest.raises(InvalidJobError) as caught:
        JobPriority.parse(value)
    assert caught.value.field == "priority"
    assert "'low', 'medium', 'high', 'critical'" in caught.value.problem
    assert repr(value) in caught.value.problem


def test_priorities_are_ordered() -> None:
    assert JobPriority.LOW < JobPriority.MEDIUM < JobPriority.HIGH < JobPriority.CRITICAL


def test_a_status_is_its_text_and_knows_whether_the_job_is_over() -> None:
    text: str = JobStatus.COMPLETED
    assert text == "completed"
    assert f"{JobStatus.FAILED}" == "failed"
    assert {status.value for status in JobStatus if status.finished} == {"completed", "failed", "cancelled"}


def test_an_error_reads_as_its_type_and_message() -> None:
    assert str(JobError("ValueError", "boom", "Traceback ...")) == "ValueError: boom"
    assert str(JobError("Timeout", "")) == "Timeout"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, WaitReason.WORKER),
        ({"queued": False}, WaitReason.START),
        ({"queued": False, "unmet": 1}, WaitReason.START),
        ({"unmet": 1}, WaitReason.DEPENDENCIES),
        ({"unmet": 1, "run_at": NOW + timedelta(1)}, WaitReason.DEPENDENCIES),
        ({"run_at": NOW + timedelta(1)}, WaitReason.TIME),
        ({"run_at": NOW}, WaitReason.WORKER),
        *(({"status": status}, None) for status in JobStatus if status is not JobStatus.PENDING),
    ],
)
def test_a_pending_job_says_what_it_waits_for(changes: dict[str, Any], reason: WaitReason | None) -> None:
    record = a_record(**changes)
    assert wait_reason(record, NOW) == reason
    assert record.to_job(NOW).wait_reason == reason


def test_a_job_shows_its_recoveries_in_its_metadata() -> None:
    spec = a_job("job", metadata=b'{"owner":"me"}').spec
    record = a_record(spec=spec, recovery_history=(Recovery(NOW, "it died", "worker-1", 2),))
    assert record.to_job(NOW).metadata == {
        "owner": "me",
        "recovery_history": [
            {"at": NOW.isoformat(), "why": "it died", "worker_id": "worker-1", "attempt": 2},
        ],
    }
    assert a_record(spec=spec).to_job(NOW).metadata == {"owner": "me"}


def test_two_jobs_made_from_one_record_share_no_values() -> None:
    record = a_record(spec=a_job("job", payload=b'{"a":[]}').spec, result=b"[1]")
    first, second = record.to_job(NOW), record.to_job(NOW)
    first.payload["a"].append(1)
    first.result.append(2)
    assert (second.payload, second.result) == ({"a": []}, [1])
    assert record.to_job(NOW) == second
