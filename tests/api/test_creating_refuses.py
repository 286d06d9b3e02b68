"""Wrong arguments of new jobs: each is refused, wherever a job can be created, and nothing is stored."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from openagents_json import OpenAgentsApp
from openagents_json.errors import DuplicateJobError, InvalidHandlerError, InvalidJobError, UnknownDependencyError
from openagents_json.job import JobManager, RetryPolicy
from tests.api.helpers import BAD_IDS, BAD_TEXTS, BrokenRepr, Case, call

pytestmark = pytest.mark.timeout(10)  # a job that should be refused is never over

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HUGE = 10**400  # too large for a float
UNSHOWABLE = 10**5000  # too large even for repr()


def _text_cases(option: str, longest: int, *, empty_allowed: bool = False, wrap: bool = False) -> list[Case]:
    """Say what is wrong for a text option; `wrap`: it is a list of texts."""
    field = f"{option}[0]" if wrap else option
    values: list[object] = [*BAD_TEXTS, "x" * (longest + 1)]
    if not empty_allowed:
        values.append("")
    cases = []
    for value in values:
        says = "must be a str"
        if isinstance(value, str):
            says = "NUL" if "\0" in value else "surrogate" if value.isascii() is False else "characters"
        cases.append(Case(option, [value] if wrap else value, says, field))
    return cases


def _id_cases(option: str, *, wrap: bool = False) -> list[Case]:
    field = f"{option}[0]" if wrap else option
    return [
        Case(
            option,
            [value] if wrap else value,
            ascii(value)[:30] if isinstance(value, int) else "letter or digit",
            field,
        )
        for value in BAD_IDS
    ]


def _number_cases(option: str, *, positive: bool = False) -> list[Case]:
    values: list[object] = [
        -1,
        -0.001,
        math.nan,
        math.inf,
        -math.inf,
        True,
        False,
        "5",
        b"5",
        Decimal(5),
        5j,
        [5],
        HUGE,
    ]
    return [Case(option, value, "number") for value in [*values, *([0, 0.0] if positive else [])]]


def _count_cases(option: str) -> list[Case]:
    values = (-1, 1.0, 1.5, math.nan, math.inf, True, "1", b"1", Decimal(1), [1], 1_000_001, HUGE, UNSHOWABLE)
    return [Case(option, value, "whole number") for value in values]


CASES: tuple[Case, ...] = (
    *_text_cases("name", 255),
    *_text_cases("description", 10_000, empty_allowed=True),
    *(case for case in _text_cases("handler", 255) if isinstance(case.value, str)),
    *_text_cases("tags", 100, wrap=True),
    *_id_cases("job_id"),
    *_id_cases("queue"),
    Case("queue", None, "letter or digit"),
    *_id_cases("dependencies", wrap=True),
    *_number_cases("retry_delay"),
    Case("retry_delay", 30 * 24 * 3600 + 1, "number"),
    Case("retry_delay", None, "number"),
    *_number_cases("timeout", positive=True),
    Case("timeout", 367 * 24 * 3600, "number"),
    *_number_cases("delay"),
    Case("delay", 367 * 24 * 3600, "number"),
    *_count_cases("max_retries"),
    Case("max_retries", None, "whole number"),
    *_count_cases("max_recoveries"),
    *(Case("tags", value, "list of texts") for value in ("a", b"a", {"a": 1}, 7, None, object())),
    Case("tags", [f"tag {number}" for number in range(51)], "at most 50"),
    *(Case("dependencies", value, "list") for value in ("a", b"a", {"a": 1}, 7, {"a"}, object())),
    *(Case("metadata", value, "must be a dict") for value in ([], "a", b"a", 7, None, [("a", 1)], object())),
    Case("metadata", {"recovery_history": []}, "kept by the job itself", "metadata.recovery_history"),
    *(
        Case("priority", value, "'high'")
        for value in ("", "urgent", " high", -1, 4, 1.0, True, None, [2], b"high", HUGE)
    ),
    *(
        Case("on_dependency_failure", value, "'cancel', 'wait', 'run'")
        for value in ("", "CANCEL", "ignore", None, True, 1, ["run"], b"run")
    ),
    *(Case("auto_start", value, "True or False") for value in (None, 0, 1, "yes", "", [], object())),
    *(
        Case("retry_policy", value, "RetryPolicy")
        for value in (1, 1.5, True, "fixed", {"delay": 1}, [1, 2], lambda retry, error: 1.0, RetryPolicy)
    ),
    *(Case("handler", value, "registered function or its name") for value in (7, True, b"greet", ["greet"], object())),
    Case("run_at", datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001 - naive on purpose
    Case("run_at", "2026-01-01T00:00:00", "time zone"),
    *(Case("run_at", value, "run_at") for value in ("", "tomorrow", "2026-13-01T00:00:00Z", "\0", "\ud800")),
    *(Case("run_at", value, "datetime") for value in (0, 1.5, True, date(2026, 1, 1), timedelta(1), [NOW], b"2026")),
    Case("run_at", datetime.max.replace(tzinfo=UTC), "range"),
    Case("run_at", datetime.min.replace(tzinfo=UTC), "range"),
    *(Case(option, BrokenRepr(), option) for option in ("job_id", "max_retries", "timeout", "priority", "run_at")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_wrong_option_is_refused_and_nothing_is_stored(manager: JobManager, case: Case) -> None:
    options = {"name": "work", case.option: case.value}
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job, **options)
    assert refusal.value.field == case.place
    assert case.says in str(refusal.value)
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("case", [case for case in CASES if case.value != [1]], ids=str)
async def test_a_wrong_option_in_a_batch_is_refused_with_its_position_and_nothing_is_stored(
    manager: JobManager, case: Case
) -> None:
    spec = {"name": "work", case.option: case.value}
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job_batch, [{"name": "fine"}, spec])
    assert refusal.value.field == f"specs[1].{case.place}"
    assert case.says in str(refusal.value)
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("case", [case for case in CASES[::7] if case.option != "auto_start"], ids=str)
@pytest.mark.parametrize("door", ["manager.run_job", "app.create_job", "app.run_job"])
async def test_every_door_refuses_the_same(manager: JobManager, app: OpenAgentsApp, door: str, case: Case) -> None:
    doors: dict[str, Callable[..., Any]] = {
        "manager.run_job": manager.run_job,
        "app.create_job": app.create_job,
        "app.run_job": app.run_job,
    }
    with pytest.raises(InvalidJobError) as refusal:
        await call(doors[door], **{"name": "work", case.option: case.value})
    assert refusal.value.field == case.place
    assert await manager.count_jobs() == 0
    assert await app.count_jobs() == 0


@pytest.mark.parametrize("value", ["../x", "a b", -7.5, [3]])
@pytest.mark.parametrize(
    "option", ["job_id", "queue", "timeout", "max_retries", "priority", "on_dependency_failure", "delay", "auto_start"]
)
async def test_a_refusal_names_the_value(manager: JobManager, option: str, value: object) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job, "work", **{option: value})
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize("option", ["job_id", "queue", "priority", "run_at", "on_dependency_failure", "tags"])
async def test_a_refusal_does_not_repeat_a_huge_value_in_full(manager: JobManager, option: str) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job, "work", **{option: "x" * 100_000})
    assert len(str(refusal.value)) < 500


async def test_run_at_with_delay_is_refused(manager: JobManager) -> None:
    with pytest.raises(InvalidJobError, match="delay: cannot be given together with run_at"):
        await manager.create_job("work", run_at=NOW, delay=1)
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("prioritty", "priority"),
        ("retries", "max_retries"),
        ("depends_on", None),
        ("dependancies", "dependencies"),
        ("autostart", "auto_start"),
        ("meta", "metadata"),
        ("batch_id", None),
        ("status", None),
        ("naem", None),
    ],
)
async def test_an_unknown_option_is_refused_with_a_hint(manager: JobManager, option: str, hint: str | None) -> None:
    with pytest.raises(TypeError, match=repr(option)) as refusal:
        await call(manager.create_job, "work", **{option: 1})
    if hint is not None:
        assert f"did you mean {hint!r}?" in str(refusal.value)
    with pytest.raises(InvalidJobError, match=repr(option)) as in_batch:
        await call(manager.create_job_batch, [{"name": "fine"}, {"name": "work", option: 1}])
    assert in_batch.value.field == "specs[1]"
    assert await manager.count_jobs() == 0


async def test_a_misspelt_name_in_a_batch_gets_a_hint(manager: JobManager) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job_batch, [{"nmae": "work"}])
    assert refusal.value.field == "specs[0].name"
    assert "missing" in str(refusal.value)


async def test_a_job_without_a_name_is_refused(manager: JobManager) -> None:
    with pytest.raises(TypeError, match="name"):
        await call(manager.create_job)
    with pytest.raises(InvalidJobError, match="missing"):
        await call(manager.create_job_batch, [{"payload": 1}])
    assert await manager.count_jobs() == 0


async def test_a_function_that_is_not_registered_is_refused_as_handler(manager: JobManager) -> None:
    async def nobody_knows_me() -> None: ...

    with pytest.raises(InvalidHandlerError, match=r"nobody_knows_me.*register_handler"):
        await manager.create_job("work", handler=nobody_knows_me)
    assert await manager.count_jobs() == 0


async def test_an_id_that_is_taken_is_refused_and_the_job_that_has_it_is_unchanged(manager: JobManager) -> None:
    first = await manager.create_job("work", job_id="mine", payload=1)
    with pytest.raises(DuplicateJobError, match="'mine' exists already") as refusal:
        await manager.create_job("work", job_id="mine", payload=2)
    assert refusal.value.job_id == "mine"
    with pytest.raises(DuplicateJobError):
        await manager.create_job_batch([{"name": "other"}, {"name": "work", "job_id": "mine"}])
    assert await manager.list_jobs() == [first]


@pytest.mark.parametrize("job_id", ["A", "0", "a.b", "a_b", "a:b", "a-b", "x" * 64, "CON", "a..b", "nul"])
async def test_every_id_of_the_documented_form_is_taken(manager: JobManager, job_id: str) -> None:
    assert (await manager.create_job("work", job_id=job_id)).job_id == job_id
    assert (await manager.get_job(job_id)).job_id == job_id


async def test_an_unknown_dependency_is_refused(manager: JobManager) -> None:
    with pytest.raises(UnknownDependencyError, match=r"'nobody'.*create that job first") as refusal:
        await manager.create_job("work", job_id="me", dependencies=["nobody"])
    assert (refusal.value.job_id, refusal.value.depends_on_id) == ("me", "nobody")
    assert await manager.count_jobs() == 0


async def test_a_job_that_depends_on_itself_is_refused(manager: JobManager) -> None:
    with pytest.raises(ValueError, match="me"):
        await manager.create_job("work", job_id="me", dependencies=["me"])
    assert await manager.count_jobs() == 0


async def test_the_largest_allowed_values_are_taken(manager: JobManager) -> None:
    job = await manager.create_job(
        "n" * 255,
        description="d" * 10_000,
        tags=[f"{number:0100}" for number in range(50)],
        queue="q" * 64,
        max_retries=1_000_000,
        retry_delay=30 * 24 * 3600,
        timeout=366 * 24 * 3600,
        max_recoveries=1_000_000,
        delay=366 * 24 * 3600,
        priority="critical",
    )
    assert await manager.get_job(job.job_id) == job


async def test_text_beyond_ascii_is_kept_as_it_is(manager: JobManager) -> None:
    text = "Grüße 😀 \u202e שלום \x7f\t\r\n e\u0301"
    job = await manager.create_job(text, description=text, tags=[text], payload={text: text}, metadata={text: text})
    assert (job.name, job.description, job.tags) == (text, text, (text,))
    assert (job.payload, job.metadata) == ({text: text}, {text: text})


RETRY_POLICY_CASES = [
    (field, value)
    for field, values in {
        "delay": (-1, math.nan, math.inf, True, "1", None, HUGE, 30 * 24 * 3600 + 1),
        "factor": (0, 0.99, -1, math.nan, math.inf, True, "2", None, HUGE, 1001),
        "max_delay": (-1, math.nan, math.inf, True, "1", None, HUGE),
        "jitter": (-0.1, 1.1, math.nan, math.inf, True, "0", None),
    }.items()
    for value in values
]


@pytest.mark.parametrize(("field", "value"), RETRY_POLICY_CASES)
def test_a_retry_policy_refuses_what_no_delay_can_be_made_of(field: str, value: Any) -> None:
    arguments: dict[str, Any] = {"delay": 1.0, field: value}
    with pytest.raises(InvalidJobError, match="must be a number between") as refusal:
        RetryPolicy(**arguments)
    assert refusal.value.field == f"retry_policy.{field}"
