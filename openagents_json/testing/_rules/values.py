"""What is stored is read as it was given: bytes, text, numbers, times. All within the limits a manager sets."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pydantic_core
import pytest

from openagents_json.job._changes import Cancel, Finish, Progress, Query, Release
from openagents_json.job.model import AttemptOutcome, DependencyFailurePolicy, JobError, JobPriority
from openagents_json.job.retry import RetryPolicy
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import StoreDriver, a_claim, a_job

if TYPE_CHECKING:
    from openagents_json.job._record import JobRecord

JSON = [
    b"null",
    b"0",
    b'""',
    b"[]",
    b'{"b":1,"a":[1.5,1e3,0.1,true,12345678901234567890123,1.7976931348623157e308]}',
    b' { "spaced" : [ 1,2 ] } ',
    '"ü 木 \U0001f600 \\u00fc \\" \\\\ \\n"'.encode(),
    b'"' + b"x" * 200_000 + b'"',
]

TEXTS = [
    "",
    "  spaced\t\n ",
    "trailing ",
    'it\'s 100% "quoted" \\ back\\slash `tick` _under_ ;--',
    "é is not e\u0301",
    "\U0001f469\u200d\U0001f680 木 ß ẞ \u0130 \u0131 \ufeff \u202e \U0010ffff",
    "\x01\x1f\x7f\x85\u2028",
    "\U0001f600" * 255,
]


def values_of(data: bytes) -> str:
    """Write JSON anew, in a form that differs only if its values do."""
    return json.dumps(json.loads(data), sort_keys=True)


def respaced(job: JobRecord) -> JobRecord:
    """Take the spaces out of a job's JSON, which a durable store may have put in."""
    spec = job.spec
    payload, metadata = (pydantic_core.to_json(pydantic_core.from_json(data)) for data in (spec.payload, spec.metadata))
    return job._replace(
        spec=spec._replace(payload=payload, metadata=metadata),
        result=None if job.result is None else pydantic_core.to_json(pydantic_core.from_json(job.result)),
    )


class ValueRules(StoreRules):
    """What is stored is read as it was given."""

    @pytest.mark.parametrize("data", JSON, ids=range(len(JSON)))
    async def test_payload_metadata_and_result_are_kept(self, driver: StoreDriver, data: bytes) -> None:
        metadata = b'{"m": ' + data + b"}"
        await driver.add(a_job("job", payload=data, metadata=metadata))
        await driver.complete("job", result=data)
        job = await driver.job("job")
        assert job.result is not None
        for kept, given in [(job.spec.payload, data), (job.spec.metadata, metadata), (job.result, data)]:
            if driver.store.traits.durable:  # it may change the spacing
                assert values_of(kept) == values_of(given)
            else:
                assert kept == given

    @pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
    async def test_text_is_kept_as_given(self, driver: StoreDriver, text: str) -> None:
        tags = (text[:100] or "none", "tag")
        new = a_job("job", name=text or "none", description=text, handler=text or None, tags=tags)
        (job,) = await driver.add(new)
        assert respaced(job).spec._replace(request_id="") == new.spec
        assert (await driver.job("job")).spec == job.spec
        lease = await driver.run("job")
        await driver.do(Progress("job", lease, 0.5, text))
        assert (await driver.job("job")).progress_message == text
        error = JobError("Error", text, text)
        await driver.do(Finish("job", lease, AttemptOutcome.FAILED, error=error, retry_in=0.0))
        assert (await driver.job("job")).error == error
        lease = await driver.run("job")
        await driver.do(Release("job", lease, text))
        await driver.do(Cancel("job", text))
        job = await driver.job("job")
        assert job.error == JobError("Cancelled", text)
        assert [attempt.error for attempt in job.attempts] == [error, JobError("Interrupted", text)]
        assert [entry.why for entry in job.recovery_history] == [text]

    async def test_every_field_of_a_job_is_read_as_it_was_given(self, driver: StoreDriver) -> None:
        run_at = driver.clock.now() + timedelta(days=400, microseconds=1)
        await driver.add(a_job("parent"))
        new = a_job(
            "Own.id:of_the-creator." + "x" * 42,
            "parent",
            run_at=run_at,
            name="name",
            description="description",
            handler="handler",
            queue="queue",
            payload=b'{"p":1}',
            metadata=b'{"m":1}',
            tags=("b", "a", "c"),
            priority=JobPriority.CRITICAL,
            batch_id="batch",
            on_dependency_failure=DependencyFailurePolicy.WAIT,
            max_retries=1_000_000,
            retry_delay=0.1,
            retry_policy=RetryPolicy.exponential(0.3, factor=1.7, max_delay=1234.5678, jitter=0.1),
            timeout=1e-3,
            max_recoveries=0,
        )
        (job,) = await driver.add(new)
        stored = await driver.job(new.spec.job_id)
        assert stored == job
        assert respaced(stored).spec._replace(request_id="") == new.spec
        assert (stored.dependencies, stored.run_at, stored.queued) == (("parent",), run_at, True)

    async def test_fields_that_were_left_out_are_none(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", max_recoveries=None))
        spec = (await driver.job("job")).spec
        assert (spec.handler, spec.batch_id, spec.retry_policy) == (None, None, None)
        assert (spec.timeout, spec.max_recoveries) == (None, None)

    async def test_every_priority_and_policy_is_read_as_it_was_given(self, driver: StoreDriver) -> None:
        await driver.add(
            *(a_job(f"priority-{priority:d}", priority=priority) for priority in JobPriority),
            *(a_job(f"policy-{policy}", on_dependency_failure=policy) for policy in DependencyFailurePolicy),
        )
        for priority in JobPriority:
            assert (await driver.job(f"priority-{priority:d}")).spec.priority is priority
        for policy in DependencyFailurePolicy:
            assert (await driver.job(f"policy-{policy}")).spec.on_dependency_failure is policy

    async def test_ids_that_differ_in_case_only_are_different_jobs(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job", name="lower"), a_job("JOB", name="upper"), a_job("Job", "job"))
        assert [job.spec.name for job in await driver.store.get(["JOB", "job"])] == ["upper", "lower"]
        assert await driver.store.get(["jOB"]) == []
        await driver.complete("JOB")
        assert await driver.statuses("job", "JOB") == {"job": "pending", "JOB": "completed"}
        assert (await driver.job("Job")).unmet == 1
        assert await driver.find(Query(depends_on="JOB")) == []

    async def test_times_keep_their_microseconds_and_are_in_utc(self, driver: StoreDriver) -> None:
        driver.clock.advance(0.000001)
        await driver.add(a_job("job", delay=0.000001))
        job = await driver.job("job")
        assert job.created_at == driver.clock.now()
        assert job.ready_at == driver.clock.now() + timedelta(microseconds=1)
        assert job.created_at.utcoffset() == timedelta(0)

    async def test_a_read_gives_jobs_in_the_order_asked_and_leaves_unknown_ones_out(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"), a_job("c"))
        assert [job.job_id for job in await driver.store.get(["c", "nobody", "a"])] == ["c", "a"]
        assert await driver.store.get([]) == []

    async def test_many_jobs_are_read_and_claimed_at_once(self, driver: StoreDriver) -> None:
        ids = [f"job-{number:04}" for number in range(2000)]
        await driver.add(*(a_job(job_id) for job_id in ids))
        assert [job.job_id for job in await driver.store.get(ids)] == ids
        await driver.register()
        assert len(await driver.claim(a_claim(1, limit=1500))) == 1500
