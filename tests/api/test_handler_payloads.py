"""What handlers get: the payload, validated against its annotation, and the context."""

import dataclasses
import functools
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from openagents_json import OpenAgentsApp
from openagents_json.errors import InvalidHandlerError
from openagents_json.job import JobContext, JobManager, JobPriority
from tests.api.helpers import run_to_the_end, shown

pytestmark = pytest.mark.timeout(10)


class Order(BaseModel):
    number: int
    items: list[str] = []
    placed: datetime | None = None


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")
    class_: str = Field(alias="class")


@dataclasses.dataclass
class Address:
    street: str
    zip_code: int


@dataclasses.dataclass
class Person:
    name: str
    address: Address
    tags: frozenset[str] = frozenset()


class Options(TypedDict):
    depth: int
    fast: bool


class Coordinates(NamedTuple):
    x: float
    y: float


class Unknown:
    """A class that pydantic cannot validate."""


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SHORT = Annotated[str, Field(max_length=3)]


@pytest.mark.parametrize(
    ("annotation", "payload", "received"),
    [
        (Order, {"number": 7}, Order(number=7)),
        (Order, Order(number=7, items=["a"], placed=NOON), Order(number=7, items=["a"], placed=NOON)),
        (Order, {"number": "7", "placed": "2026-01-02T12:00:00Z"}, Order(number=7, placed=NOON)),
        (Aliased, Aliased.model_validate({"class": "a"}), Aliased.model_validate({"class": "a"})),
        (Person, Person("Ada", Address("High St", 1)), Person("Ada", Address("High St", 1))),
        (Person, {"name": "Ada", "address": {"street": "x", "zip_code": 1}}, Person("Ada", Address("x", 1))),
        (Options, {"depth": 1, "fast": True}, {"depth": 1, "fast": True}),
        (Coordinates, Coordinates(1, 2), Coordinates(1, 2)),
        (list[int], [1, 2, 3], [1, 2, 3]),
        (list[int], ["1", 2.0], [1, 2]),
        (dict[str, Any], {"a": [None]}, {"a": [None]}),
        (dict, {"a": 1}, {"a": 1}),
        (tuple[int, str], (1, "a"), (1, "a")),
        (set[int], {1, 2}, {1, 2}),
        (Optional[int], None, None),  # noqa: UP045 - the old spelling
        (Optional[int], 3, 3),  # noqa: UP045 - the old spelling
        (int | None, None, None),
        (Union[int, str], "a", "a"),  # noqa: UP007 - the old spelling
        (datetime, NOON, NOON),
        (datetime, "2026-01-02T12:00:00+00:00", NOON),
        (date, "2026-01-02", date(2026, 1, 2)),
        (timedelta, timedelta(minutes=1), timedelta(minutes=1)),
        (UUID, UUID(int=1), UUID(int=1)),
        (bytes, b"bytes", b"bytes"),
        (JobPriority, 2, JobPriority.HIGH),
        (Literal["a", "b"], "b", "b"),
        (SHORT, "abc", "abc"),
        (Annotated[list[int], Field(min_length=1)], [1], [1]),
        (Annotated[int, ["unhashable"]], 1, 1),
        (str, "text", "text"),
        (float, 1, 1.0),
        (bool, True, True),
        (None, None, None),
        (Any, {"as": ["it", "is"]}, {"as": ["it", "is"]}),
        (object, {"as": ["it", "is"]}, {"as": ["it", "is"]}),
    ],
    ids=shown,
)
async def test_a_handler_receives_what_its_annotation_says(
    manager: JobManager, annotation: Any, payload: object, received: object
) -> None:
    seen: list[object] = []

    async def handle(value: Any) -> None:
        seen.append(value)

    handle.__annotations__["value"] = annotation
    manager.register_handler("handle", handle)
    job = await run_to_the_end(manager, "handle", payload=payload)
    assert job.error is None
    assert seen == [received]
    assert type(seen[0]) is type(received)


@pytest.mark.parametrize(
    ("annotation", "payload", "says"),
    [
        (Order, {}, "number"),
        (Order, {"number": "seven"}, "number"),
        (Order, [], "Order"),
        (Order, None, "Order"),
        (Aliased, {"class": "a", "extra": 1}, "extra"),
        (Person, {"name": "Ada", "address": {"street": "x"}}, "address.zip_code"),
        (Options, {"depth": 1}, "fast"),
        (list[int], [1, "two", 3], "1"),
        (list[int], {}, "list"),
        (int, 1.5, "integer"),
        (Optional[int], "x", "integer"),  # noqa: UP045 - the old spelling
        (datetime, "yesterday", "datetime"),
        (datetime, {}, "datetime"),
        (SHORT, "long", "3"),
        (Literal["a", "b"], "c", "'a' or 'b'"),
        (None, 1, "null"),
    ],
    ids=shown,
)
async def test_a_payload_that_does_not_fit_fails_the_job_at_once_and_says_where(
    manager: JobManager, annotation: Any, payload: object, says: str
) -> None:
    async def handle(value: Any) -> None:
        raise AssertionError

    handle.__annotations__["value"] = annotation
    manager.register_handler("handle", handle)
    job = await run_to_the_end(manager, "handle", payload=payload, max_retries=5, retry_delay=0)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.type == "PayloadError"
    assert job.error.message.startswith("the payload does not fit handler 'handle': ")
    assert says in job.error.message
    assert (job.attempt, job.retry_count) == (1, 0), "another attempt would get the same"


async def test_a_handler_without_annotation_gets_plain_data(manager: JobManager) -> None:
    seen: list[object] = []
    manager.register_handler("look", seen.append)
    await manager.run_job("look", payload=Person("Ada", Address("x", 1)))
    assert seen == [{"name": "Ada", "address": {"street": "x", "zip_code": 1}, "tags": []}]


# the shapes a handler may have


async def test_a_handler_may_do_without_payload(manager: JobManager) -> None:
    @manager.handler("bare")
    async def bare() -> str:
        return "done"

    @manager.handler("context only")
    async def context_only(context: JobContext) -> str:
        return context.job_id

    assert await manager.run_job("bare", payload={"ignored": True}) == "done"
    job = await run_to_the_end(manager, "context only")
    assert job.result == job.job_id


async def by_annotation(payload: int, ctx: JobContext) -> list[object]:
    return [payload, ctx.job_id]


async def by_name(payload: int, context) -> list[object]:  # type: ignore[no-untyped-def]  # noqa: ANN001 - on purpose
    return [payload, context.job_id]


async def keyword_only(payload: int, *, ctx: JobContext) -> list[object]:
    return [payload, ctx.job_id]


async def context_first(context: JobContext, payload: int) -> list[object]:
    return [payload, context.job_id]


async def positional_payload(payload: int, /, context: JobContext) -> list[object]:
    return [payload, context.job_id]


async def with_defaults(payload: int = 7, context: JobContext | None = None) -> list[object]:
    return [payload, context and context.job_id]


async def optional_context(payload: int, ctx: JobContext | None = None) -> list[object]:
    return [payload, ctx and ctx.job_id]


async def old_optional_context(payload: int, ctx: Optional[JobContext] = None) -> list[object]:  # noqa: UP045
    return [payload, ctx and ctx.job_id]


async def annotated_context(payload: int, ctx: Annotated[JobContext, "mine"]) -> list[object]:
    return [payload, ctx.job_id]


async def further_defaults(payload: int, ctx: JobContext, *, verbose: bool = False) -> list[object]:
    return [payload, ctx.job_id, verbose][:2]


def plain(payload: int, ctx: JobContext) -> list[object]:
    return [payload, ctx.job_id]


@pytest.mark.parametrize(
    "function",
    [
        by_annotation, by_name, keyword_only, context_first, positional_payload, with_defaults, optional_context,
        old_optional_context, annotated_context, further_defaults, plain,
    ],
    ids=lambda function: function.__name__,
)  # fmt: skip
async def test_the_context_is_passed_by_annotation_or_name_wherever_it_stands(
    manager: JobManager, function: Callable[..., Any]
) -> None:
    manager.register_handler("work", function)
    job = await run_to_the_end(manager, "work", payload=5)
    assert job.error is None
    assert job.result == [5, job.job_id]


async def test_code_deep_inside_finds_the_context_also_in_threads(manager: JobManager) -> None:
    def deep() -> str:
        return JobContext.current().job_id

    manager.register_handler("thread", deep)

    @manager.handler("async")
    async def in_loop() -> str:
        return deep()

    for name in ("thread", "async"):
        job = await run_to_the_end(manager, name)
        assert job.result == job.job_id


class Greeter:
    """Methods, and an object that can be called."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    async def greet(self, payload: dict[str, str], context: JobContext) -> str:
        return f"{self.greeting}, {payload['name']} ({context.attempt})"

    def greet_plainly(self, payload: dict[str, str]) -> str:
        return f"{self.greeting}, {payload['name']}"

    @classmethod
    async def of_class(cls, payload: dict[str, str]) -> str:
        return f"{cls.__name__}, {payload['name']}"

    @staticmethod
    async def static(payload: dict[str, str]) -> str:
        return payload["name"]

    async def __call__(self, payload: dict[str, str]) -> str:
        return f"{self.greeting}! {payload['name']}"


class PlainGreeter:
    def __call__(self, payload: dict[str, str], context: JobContext) -> str:
        return f"{payload['name']} {context.attempt}"


async def greet_with(greeting: str, payload: dict[str, str], context: JobContext) -> str:
    return f"{greeting}: {payload['name']} ({context.attempt})"


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as most decorators do."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return [await function(*args, **kwargs)]

    return wrapper


async def test_everything_that_can_be_called_can_be_a_handler(manager: JobManager) -> None:
    greeter = Greeter("Hi")

    @counted
    async def decorated(payload: dict[str, str], context: JobContext) -> str:
        return f"{payload['name']} {context.attempt}"

    handlers: dict[str, tuple[Callable[..., Any], object]] = {
        "method": (greeter.greet, "Hi, Ada (1)"),
        "plain method": (greeter.greet_plainly, "Hi, Ada"),
        "class method": (Greeter.of_class, "Greeter, Ada"),
        "static method": (Greeter.static, "Ada"),
        "callable": (greeter, "Hi! Ada"),
        "plain callable": (PlainGreeter(), "Ada 1"),
        "partial": (functools.partial(greet_with, "Hello"), "Hello: Ada (1)"),
        "keyword partial": (functools.partial(greet_with, greeting="Hello"), None),
        "lambda": (lambda payload: payload["name"], "Ada"),
        "decorated": (decorated, ["Ada 1"]),
        "builtin": (len, 1),
    }
    for name, (function, expected) in handlers.items():
        if expected is None:
            with pytest.raises(InvalidHandlerError, match="payload"):
                manager.register_handler(name, function)
            continue
        assert manager.register_handler(name, function) is function
        job = await run_to_the_end(manager, name, payload={"name": "Ada"})
        assert (name, job.error, job.result) == (name, None, expected)


async def test_app_handlers_may_use_what_is_local(app: OpenAgentsApp) -> None:
    class Local(BaseModel):
        number: int

    @app.handler("local")
    async def local(payload: Local) -> int:
        return payload.number + 1

    assert await app.run_job("local", payload={"number": 1}) == 2


# registering


async def test_the_decorator_works_bare_with_a_name_and_without_one(manager: JobManager) -> None:
    @manager.handler
    async def bare() -> int:
        return 1

    @manager.handler()
    async def called() -> int:
        return 2

    @manager.handler("by name")
    async def named() -> int:
        return 3

    @manager.handler(name="by keyword")
    async def keyword() -> int:
        return 4

    assert [await manager.run_job(name) for name in ("bare", "called", "by name", "by keyword")] == [1, 2, 3, 4]
    assert [await function() for function in (bare, called, named, keyword)] == [1, 2, 3, 4], "functions stay usable"


async def test_one_function_may_serve_several_names(manager: JobManager) -> None:
    async def work() -> str:
        return JobContext.current().job.name

    for name in ("one", "two"):
        manager.register_handler(name, work)
        assert await manager.run_job(name) == name


async def test_a_function_can_be_named_when_a_job_is_created(manager: JobManager) -> None:
    @manager.handler("the handler")
    async def work() -> str:
        return JobContext.current().job.name

    job = await run_to_the_end(manager, "another name", handler=work)
    assert (job.handler, job.result) == ("the handler", "another name")
    job = await run_to_the_end(manager, "a third name", handler="the handler")
    assert (job.handler, job.result) == ("the handler", "a third name")
    _, jobs = await manager.create_job_batch([{"name": "in a batch", "handler": work}])
    assert jobs[0].handler == "the handler"


async def test_a_handler_that_comes_later_runs_what_waits_for_it(manager: JobManager) -> None:
    job = await manager.create_job("late", auto_start=True)
    assert job.wait_reason == "worker"
    manager.register_handler("late", lambda: "better late than never")
    assert (await manager.wait_for_job(job.job_id, 10)).result == "better late than never"


async def test_a_function_defined_again_in_the_same_place_replaces_the_former_one(manager: JobManager) -> None:
    for number in (1, 2):

        @manager.handler("cell")
        async def cell(number: int = number) -> int:
            return number

    assert await manager.run_job("cell", payload=5) == 5

    def define(answer: int) -> None:
        @manager.handler("notebook")
        async def notebook() -> int:
            return answer

    define(1)
    define(2)
    assert await manager.run_job("notebook") == 2


async def test_another_function_under_a_name_that_is_taken_is_refused(manager: JobManager) -> None:
    @manager.handler("work")
    async def one() -> int:
        return 1

    with pytest.raises(InvalidHandlerError, match=r"'work' is registered already.*one.*choose another name"):

        @manager.handler("work")
        async def other() -> int:
            return 2

    assert await manager.run_job("work") == 1


async def test_registering_the_same_function_again_changes_nothing(manager: JobManager) -> None:
    async def work() -> int:
        return 1

    manager.register_handler("work", work)
    manager.register_handler("work", work)
    partial = functools.partial(greet_with, "Hello")
    manager.register_handler("partial", partial)
    manager.register_handler("partial", partial)
    assert await manager.run_job("work") == 1


async def no_context_by_position(context: JobContext, /) -> None: ...
async def two_payloads(payload: int, more: int) -> None: ...
async def keyword_payload(*, payload: int) -> None: ...
async def two_contexts(payload: int, context: JobContext, ctx: JobContext) -> None: ...
async def unknown_class(payload: Unknown) -> None: ...
async def unknown_inside(payload: list[Unknown]) -> None: ...
async def missing_name(payload: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def missing_inside(payload: list["Missing"]) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def no_type(payload: 7) -> None: ...  # type: ignore[valid-type]
async def asynchronous_generator(payload: int) -> Any:
    yield payload


def generator(payload: int) -> Any:
    yield payload


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (no_context_by_position, "must be passable by name"),
        (two_payloads, "'more'"),
        (keyword_payload, "'payload'"),
        (two_contexts, "context"),
        (unknown_class, "Unknown"),
        (unknown_inside, "Unknown"),
        (missing_name, "Missing"),
        (missing_inside, "Missing"),
        (no_type, "7"),
        (asynchronous_generator, "generator"),
        (generator, "generator"),
        (7, "must be a function"),
        ("print", "must be a function"),
        (None, "must be a function"),
    ],
    ids=shown,
)
async def test_what_cannot_be_called_as_a_handler_is_refused_when_it_is_registered(
    manager: JobManager, function: Any, says: str
) -> None:
    with pytest.raises(InvalidHandlerError) as refusal:
        manager.register_handler("work", function)
    assert says in str(refusal.value)
    job = await manager.create_job("work", auto_start=True)
    assert job.wait_reason == "worker", "nothing was registered"


@pytest.mark.parametrize("name", ["", 7, True, b"work", ["work"], "x" * 256, "nul\0", "\ud800"], ids=shown)
async def test_a_name_that_no_job_could_ask_for_is_refused(manager: JobManager, name: Any) -> None:
    with pytest.raises(InvalidHandlerError):
        manager.register_handler(name, lambda: None)
    with pytest.raises(InvalidHandlerError):
        manager.handler(name)(lambda: None)


async def test_a_function_without_a_name_needs_one(manager: JobManager) -> None:
    with pytest.raises(InvalidHandlerError, match=r"no name.*pass one"):
        manager.register_handler(None, functools.partial(greet_with, "Hello"))


@pytest.mark.parametrize("policy", [1, "exponential", {"delay": 1}], ids=shown)
async def test_a_retry_policy_that_cannot_be_called_is_refused(manager: JobManager, policy: Any) -> None:
    with pytest.raises(InvalidHandlerError, match="retry_policy"):
        manager.register_handler("work", lambda: None, retry_policy=policy)
    with pytest.raises(InvalidHandlerError, match="retry_policy"):
        manager.handler("work", retry_policy=policy)(lambda: None)
