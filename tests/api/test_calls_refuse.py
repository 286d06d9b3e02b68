"""Wrong arguments of everything but the creation of jobs."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from openagents_json import OpenAgentsApp
from openagents_json.errors import ConfigurationError, InvalidJobError, JobNotFoundError, OpenAgentsError, Retry
from openagents_json.job import Job, JobContext, JobManager
from openagents_json.job.storage import MemoryJobStore
from tests.api.helpers import BAD_IDS, call, run_to_the_end, shown

pytestmark = pytest.mark.timeout(10)

HUGE = 10**400

ONE_ID = (
    "start_job",
    "pause_job",
    "resume_job",
    "cancel_job",
    "retry_job",
    "delete_job",
    "get_job",
    "get_job_status",
    "get_job_results",
    "get_dependencies",
    "get_dependent_jobs",
    "wait_for_job",
)
TWO_IDS = ("add_job_dependency", "remove_job_dependency")


@pytest.mark.parametrize("value", [*BAD_IDS, None], ids=shown)
@pytest.mark.parametrize("method", ONE_ID)
async def test_what_cannot_be_an_id_is_refused(manager: JobManager, method: str, value: object) -> None:
    with pytest.raises(InvalidJobError, match="job_id: must be a letter or digit") as refusal:
        await call(getattr(manager, method), value)
    assert refusal.value.field == "job_id"


@pytest.mark.parametrize("value", [*BAD_IDS, None], ids=shown)
@pytest.mark.parametrize("method", TWO_IDS)
async def test_what_cannot_be_an_id_is_refused_on_either_side_of_a_dependency(
    manager: JobManager, method: str, value: object
) -> None:
    job = await manager.create_job("work")
    with pytest.raises(InvalidJobError) as refusal:
        await call(getattr(manager, method), job_id=value, depends_on_id=job.job_id)
    assert refusal.value.field == "job_id"
    with pytest.raises(InvalidJobError) as refusal:
        await call(getattr(manager, method), job_id=job.job_id, depends_on_id=value)
    assert refusal.value.field == "depends_on_id"
    assert await manager.get_job(job.job_id) == job


@pytest.mark.parametrize("value", [*BAD_IDS, None], ids=shown)
async def test_what_cannot_be_the_id_of_a_batch_is_refused(manager: JobManager, value: object) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.get_batch_jobs, value)
    assert refusal.value.field == "batch_id"


@pytest.mark.parametrize("method", ONE_ID)
async def test_a_job_where_its_id_belongs_is_refused_with_the_remedy(manager: JobManager, method: str) -> None:
    job = await manager.create_job("work")
    with pytest.raises(InvalidJobError) as refusal:
        await call(getattr(manager, method), job)
    assert job.job_id in str(refusal.value)


@pytest.mark.parametrize("door", ["manager", "app"])
@pytest.mark.parametrize("method", [*ONE_ID, *TWO_IDS])
async def test_an_id_that_nobody_has_is_not_found(
    manager: JobManager, app: OpenAgentsApp, method: str, door: str
) -> None:
    function: Callable[..., Any] = getattr(manager if door == "manager" else app, method)
    arguments = ("nobody",) if method in ONE_ID else ("nobody", "nobody-else")
    if method == "delete_job":
        assert await function(*arguments) is False
        return
    with pytest.raises(JobNotFoundError, match="there is no job 'nobody'") as refusal:
        await function(*arguments)
    assert refusal.value.job_id == "nobody"
    assert isinstance(refusal.value, LookupError)
    assert isinstance(refusal.value, OpenAgentsError)


async def test_a_batch_that_nobody_made_has_no_jobs(manager: JobManager) -> None:
    assert await manager.get_batch_jobs("nobody") == []


@pytest.mark.parametrize(
    "timeout", [-1, -0.001, math.nan, math.inf, -math.inf, True, "1", b"1", Decimal(1), [1], HUGE], ids=shown
)
async def test_a_wrong_timeout_is_refused(manager: JobManager, timeout: object) -> None:
    job = await manager.create_job("work")
    with pytest.raises(InvalidJobError, match="timeout: must be a number"):
        await call(manager.wait_for_job, job.job_id, timeout)
    with pytest.raises(ConfigurationError, match="timeout: must be a number"):
        await call(manager.stop, timeout)
    assert await manager.get_job(job.job_id) == job, "a refused stop does not stop anything"


@pytest.mark.parametrize("reason", [None, 7, b"why", "nul\0", "\ud800", "x" * 10_001, ["why"]], ids=shown)
async def test_a_wrong_reason_is_refused_and_the_job_goes_on(manager: JobManager, reason: object) -> None:
    job = await manager.create_job("work")
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.cancel_job, job.job_id, reason)
    assert refusal.value.field == "reason"
    assert await manager.get_job_status(job.job_id) == "pending"


# the constructor

WRONG_ARGUMENTS: tuple[tuple[str, Any], ...] = (
    *(("retention_days", value) for value in (-1, math.nan, math.inf, True, "30", Decimal(1), [1], HUGE)),
    *(("max_concurrent_jobs", value) for value in (0, -1, 1.0, math.nan, True, "10", [1], HUGE, 1_000_001)),
    *(("critical_slots", value) for value in (-1, 1.0, math.nan, True, "1", None, HUGE)),
    *(("queues", value) for value in ("default", b"default", 7, None, [], (), {"default": 1}, ["a/b"], [""], [None])),
    *(("run_jobs", value) for value in (None, 0, 1, "no")),
    *(("shutdown_timeout", value) for value in (-1, math.nan, math.inf, True, "30", Decimal(1), HUGE)),
    *(("job_recovery_timeout_minutes", value) for value in (0, -1, math.nan, math.inf, True, "5", Decimal(1), HUGE)),
    *(("job_store", value) for value in ("memory", 7, {}, MemoryJobStore, object())),
)


@pytest.mark.parametrize("what", [JobManager, OpenAgentsApp])
@pytest.mark.parametrize(("argument", "value"), WRONG_ARGUMENTS, ids=shown)
async def test_a_constructor_argument_that_makes_no_sense_is_refused(
    what: Callable[..., object], argument: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        what(**{argument: value})


@pytest.mark.parametrize("what", [JobManager, OpenAgentsApp])
async def test_an_unknown_constructor_argument_is_refused(what: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="max_workers"):
        what(max_workers=3)


# queries

WRONG_FILTERS: tuple[tuple[str, object], ...] = (
    *(
        ("status", value)
        for value in ("", "done", "RUNNING", 1, True, ["pending", "done"], [None], [["pending"]], object())
    ),
    *(("tags", value) for value in ("a", b"a", 7, {"a": 1}, [1], [None], ["nul\0"], ["\ud800"], object())),
    *(("name", value) for value in (7, b"a", ["a"], "nul\0", "\ud800", object())),
    *(("queue", value) for value in BAD_IDS),
    *(("batch_id", value) for value in BAD_IDS),
    *(("priority", value) for value in ("", "urgent", -1, 4, 1.0, True, [1], object())),
    *(
        (bound, value)
        for bound in ("created_after", "created_before")
        for value in (
            "",
            "yesterday",
            "2026-13-01",
            0,
            1.5,
            True,
            date(2026, 1, 1),
            b"2026",
            datetime.max.replace(tzinfo=UTC),
            datetime.min.replace(tzinfo=UTC),
        )
    ),
)
WRONG_ORDERS: tuple[tuple[str, object], ...] = (
    *(("sort_by", value) for value in ("", "status", "payload", "job_id; DROP", 1, True, ["name"], object())),
    *(("sort_order", value) for value in ("", "ASC", "up", 1, True, ["asc"], object())),
    *(("limit", value) for value in (-1, 1.0, math.nan, True, "10", [1], object())),
    *(("offset", value) for value in (-1, 1.0, math.nan, True, "10", [1], object())),
    *(("after", value) for value in ("id", 1, True, {"job_id": "x"}, Job, object())),
)


@pytest.mark.parametrize(("option", "value"), [*WRONG_FILTERS, *WRONG_ORDERS], ids=shown)
async def test_a_wrong_filter_or_order_is_refused(manager: JobManager, option: str, value: object) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.list_jobs, **{option: value})
    assert refusal.value.field.partition("[")[0] == option


@pytest.mark.parametrize(("option", "value"), WRONG_FILTERS, ids=shown)
async def test_a_wrong_filter_is_refused_when_counting_too(manager: JobManager, option: str, value: object) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.count_jobs, **{option: value})
    assert refusal.value.field.partition("[")[0] == option


@pytest.mark.parametrize(
    ("option", "hint"), [("state", None), ("tag", "tags"), ("sortby", "sort_by"), ("order_by", None), ("prio", None)]
)
async def test_an_unknown_filter_is_refused_with_a_hint(manager: JobManager, option: str, hint: str | None) -> None:
    with pytest.raises(TypeError, match=f"has no option '{option}'") as refusal:
        await call(manager.list_jobs, **{option: 1})
    if hint:
        assert f"did you mean {hint!r}?" in str(refusal.value)


@pytest.mark.parametrize("option", ["sort_by", "sort_order", "limit", "offset", "after", "statuss"])
async def test_counting_takes_filters_only(manager: JobManager, option: str) -> None:
    with pytest.raises(TypeError, match=f"has no option '{option}'"):
        await call(manager.count_jobs, **{option: 1})


# what handlers call


@pytest.mark.parametrize("fraction", [-0.1, 1.1, math.nan, math.inf, True, "0.5", None, Decimal("0.5")], ids=shown)
async def test_progress_that_is_no_fraction_is_refused(manager: JobManager, fraction: Any) -> None:
    @manager.handler("work")
    async def work(context: JobContext) -> str:
        with pytest.raises(ValueError, match="must be a number from 0 to 1"):
            context.set_progress(fraction)
        return "went on"

    assert await manager.run_job("work") == "went on"


@pytest.mark.parametrize(
    ("message", "kept"),
    [("", ""), ("half", "half"), ("nul\0", "nul\\x00"), ("\ud800", "\\ud800")],
    ids=shown,
)
async def test_progress_messages_are_made_storable(manager: JobManager, message: str, kept: str) -> None:
    @manager.handler("work")
    async def work(context: JobContext) -> None:
        context.set_progress(0.5, message)

    job = await run_to_the_end(manager, "work")
    assert job.status == "completed"
    assert job.progress == 1.0
    assert job.progress_message == kept


async def test_a_long_progress_message_is_shortened(manager: JobManager) -> None:
    @manager.handler("work")
    async def work(context: JobContext) -> None:
        context.set_progress(0.5, "x" * 100_000)

    job = await run_to_the_end(manager, "work")
    assert 900 < len(job.progress_message) <= 1000


@pytest.mark.parametrize("delay", [-1, -0.001, math.nan, math.inf, True, "1", [1]], ids=shown)
def test_a_retry_with_a_wrong_delay_is_refused(delay: Any) -> None:
    with pytest.raises(ValueError, match="delay must be a number of seconds >= 0"):
        Retry(delay=delay)


def test_there_is_no_context_outside_a_handler() -> None:
    with pytest.raises(LookupError, match="works inside handlers"):
        JobContext.current()


async def test_a_job_cannot_wait_for_itself(manager: JobManager) -> None:
    @manager.handler("work")
    async def work(context: JobContext) -> str:
        with pytest.raises(InvalidJobError, match="cannot wait for itself"):
            await context.wait_for_job(context.job_id)
        return "went on"

    assert await manager.run_job("work") == "went on"


# events


@pytest.mark.parametrize("callback", [None, 7, "print", [print]], ids=shown)
async def test_a_subscriber_that_cannot_be_called_is_refused(manager: JobManager, callback: Any) -> None:
    with pytest.raises((TypeError, OpenAgentsError), match="call"):
        manager.events.subscribe(callback)


@pytest.mark.parametrize("types", [["done"], [1], [None], ["completed", "Completed"], 7], ids=shown)
async def test_a_type_of_event_that_does_not_exist_is_refused(manager: JobManager, types: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        manager.events.subscribe(print, types)


async def test_the_refusal_of_an_event_type_names_those_there_are(manager: JobManager) -> None:
    with pytest.raises(ValueError, match=r"'done'.*completed|completed.*'done'"):
        manager.events.subscribe(print, ["done"])


@pytest.mark.parametrize("job_id", ["", "../x", "a\0", 1, ["a"], object()], ids=shown)
async def test_a_stream_of_what_cannot_be_an_id_is_refused(manager: JobManager, job_id: Any) -> None:
    with pytest.raises(InvalidJobError, match="job_id: must be a letter or digit"):
        await anext(manager.events.stream(job_id))


async def test_a_stream_of_a_job_where_its_id_belongs_is_refused(manager: JobManager) -> None:
    job: Any = await manager.create_job("work")
    with pytest.raises(InvalidJobError, match=job.job_id):
        await anext(manager.events.stream(job))


async def test_a_naive_and_an_aware_bound_mean_the_same_moment(manager: JobManager) -> None:
    job = await manager.create_job("work")
    naive = job.created_at.replace(tzinfo=None)
    assert job.created_at.tzinfo is UTC
    assert await manager.count_jobs(created_after=naive, created_before=naive) == 1
