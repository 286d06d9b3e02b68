"""Handlers in a module with `from __future__ import annotations`: every annotation is a string."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from openagents_json.errors import InvalidHandlerError
from openagents_json.job import JobContext, JobManager
from tests.api.helpers import run_to_the_end

if TYPE_CHECKING:
    from openagents_json import OpenAgentsApp
    from openagents_json.job import JobContext as OnlyWhenChecking

pytestmark = pytest.mark.timeout(10)


class Order(BaseModel):
    number: int


class Desk:
    async def method(self, payload: Order, ctx: JobContext) -> list[object]:
        return [payload.number, ctx.job_id]

    async def __call__(self, payload: Order, ctx: JobContext) -> list[object]:
        return [payload.number, ctx.job_id]


async def function(payload: Order, ctx: JobContext) -> list[object]:
    return [payload.number, ctx.job_id]


def plain(payload: Order, ctx: JobContext) -> list[object]:
    return [payload.number, ctx.job_id]


async def more(extra: str, payload: Order, ctx: JobContext) -> list[object]:
    return [payload.number, ctx.job_id]


async def positional(payload: Order | None, *, ctx: JobContext | None = None) -> list[object]:
    assert payload is not None
    return [payload.number, ctx and ctx.job_id]


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(function, id="function"),
        pytest.param(plain, id="plain"),
        pytest.param(Desk().method, id="method"),
        pytest.param(Desk(), id="callable object"),
        pytest.param(functools.partial(more, "extra"), id="partial"),
        pytest.param(functools.partial(functools.partial(more), "extra"), id="partial of a partial"),
        pytest.param(positional, id="optional context"),
    ],
)
async def test_string_annotations_are_understood(manager: JobManager, handler: Any) -> None:
    manager.register_handler("work", handler)
    job = await run_to_the_end(manager, "work", payload={"number": 7})
    assert job.error is None
    assert job.result == [7, job.job_id]
    wrong = await run_to_the_end(manager, "work", payload={"number": "seven"})
    assert wrong.error is not None
    assert wrong.error.type == "PayloadError"


async def test_local_classes_are_found_by_every_way_to_register(manager: JobManager, app: OpenAgentsApp) -> None:
    class Local(BaseModel):
        number: int

    async def work(payload: Local, ctx: JobContext) -> int:
        return payload.number + 1

    for owner in (manager, app):
        owner.register_handler("registered", work)
        owner.handler("decorated")(work)
        owner.handler()(work)
        for name in ("registered", "decorated", "work"):
            assert await owner.run_job(name, payload={"number": 1}) == 2


async def test_the_bare_decorator_finds_local_classes(manager: JobManager, app: OpenAgentsApp) -> None:
    class Local(BaseModel):
        number: int

    @manager.handler
    async def one(payload: Local) -> int:
        return payload.number + 1

    @app.handler
    async def two(payload: Local) -> int:
        return payload.number + 2

    assert await manager.run_job("one", payload={"number": 1}) == 2
    assert await app.run_job("two", payload={"number": 1}) == 3


async def test_what_exists_only_while_types_are_checked_is_refused_and_named(manager: JobManager) -> None:
    async def work(payload: dict[str, int], ctx: OnlyWhenChecking) -> None: ...

    with pytest.raises(InvalidHandlerError, match=r"OnlyWhenChecking.*cannot be resolved.*TYPE_CHECKING"):
        manager.register_handler("work", work)


async def test_a_parameter_named_context_needs_no_annotation_that_exists(manager: JobManager) -> None:
    async def work(context: OnlyWhenChecking) -> str:
        return context.job_id

    manager.register_handler("work", work)
    job = await run_to_the_end(manager, "work")
    assert job.result == job.job_id


async def test_a_name_means_what_it_means_where_the_handler_is_defined(manager: JobManager) -> None:
    class Order(BaseModel):
        """Another one, where the handler is registered."""

        text: str

    assert Order.model_fields.keys() == {"text"}
    manager.register_handler("work", function)
    job = await run_to_the_end(manager, "work", payload={"number": 7})
    assert job.error is None
