"""What a job says about a handler that failed."""

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NoReturn, cast

import pytest
from typing_extensions import override

from openagents_json.errors import JobCancelledError, JobFailedError
from openagents_json.job import JobContext, JobManager, NonRetryableError, Retry, RetryPolicy
from tests.api.helpers import run_to_the_end

pytestmark = pytest.mark.timeout(10)


class BrokenStrError(Exception):
    @override
    def __str__(self) -> str:
        raise RuntimeError


class NoStrError(Exception):
    @override
    def __str__(self) -> str:
        return cast("str", None)


class BrokenReprError(Exception):
    @override
    def __repr__(self) -> str:
        raise RuntimeError


class RefusedError(NonRetryableError):
    """A refusal of one's own."""


def _raise(exception: BaseException) -> NoReturn:
    raise exception


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize(
    ("make", "type_", "says"),
    [
        (lambda: ValueError("no luck"), "ValueError", "no luck"),
        (ValueError, "ValueError", ""),
        (lambda: KeyError("key"), "KeyError", "'key'"),
        (lambda: BrokenStrError("x"), "BrokenStrError", "cannot be shown"),
        (lambda: NoStrError("x"), "NoStrError", "cannot be shown"),
        (lambda: BrokenReprError("fine"), "BrokenReprError", "fine"),
        (lambda: ValueError("nul\0 and \ud800"), "ValueError", "nul\\x00 and \\ud800"),
        (lambda: SystemExit(3), "RuntimeError", "sys.exit(3)"),
        (lambda: TimeoutError("mine"), "TimeoutError", "mine"),
        (lambda: StopAsyncIteration("over"), "StopAsyncIteration", "over"),
        (lambda: StopIteration("over"), "RuntimeError", "StopIteration"),
        (lambda: asyncio.CancelledError("mine"), "CancelledError", "not by its manager"),
        (lambda: RefusedError("never"), "RefusedError", "never"),
        (lambda: ExceptionGroup("several", [ValueError("a"), TypeError("b")]), "ExceptionGroup", "several (2 sub"),
        (lambda: GeneratorExit("odd"), "GeneratorExit", "odd"),
    ],
)
async def test_every_exception_fails_the_job_with_its_type_and_message(
    manager: JobManager, make: Callable[[], BaseException], type_: str, says: str, kind: str
) -> None:
    if kind == "async":

        @manager.handler("fail")
        async def fail() -> None:
            _raise(make())

    else:
        manager.register_handler("fail", lambda: _raise(make()))
    job = await run_to_the_end(manager, "fail")
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.type == type_
    assert says in job.error.message
    assert str(job.error).startswith(job.error.type)
    assert job.result is None
    after = await run_to_the_end(manager, "another", handler=manager.register_handler("well", lambda: "well"))
    assert after.result == "well", "the manager goes on"


async def test_sys_exit_ends_the_job_and_nothing_else(manager: JobManager) -> None:
    @manager.handler("exit")
    async def leave() -> None:
        sys.exit("bye")

    job = await run_to_the_end(manager, "exit")
    assert job.error is not None
    assert "sys.exit('bye')" in job.error.message
    assert "SystemExit" in job.error.traceback


async def test_the_traceback_shows_the_handlers_frames_and_not_the_engines(manager: JobManager) -> None:
    def helper() -> None:
        msg = "deep"
        raise ValueError(msg)

    @manager.handler("async")
    async def handler() -> None:
        helper()

    manager.register_handler("plain", helper)
    for name in ("async", "plain"):
        job = await run_to_the_end(manager, name)
        assert job.error is not None
        trace = job.error.traceback
        assert trace.startswith("Traceback (most recent call last):")
        assert trace.rstrip().endswith("ValueError: deep")
        assert "in helper" in trace
        assert "openagents_json" not in trace, trace


async def test_chained_exceptions_and_groups_are_shown_in_full(manager: JobManager) -> None:
    @manager.handler("chain")
    async def chain() -> None:
        try:
            os.environ["OPENAGENTS_MISSING"]
        except KeyError as exc:
            msg = "while reading"
            raise ValueError(msg) from exc

    @manager.handler("context")
    async def context() -> None:
        try:
            int("one")
        except ValueError:
            next(iter(()))

    @manager.handler("group")
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.to_thread(_raise, ValueError("one")))

    @manager.handler("notes")
    async def notes() -> None:
        error = ValueError("noted")
        error.add_note("look here")
        raise error

    traces = {}
    for name in ("chain", "context", "group", "notes"):
        job = await run_to_the_end(manager, name)
        assert job.error is not None
        traces[name] = job.error.traceback
    assert "KeyError: 'OPENAGENTS_MISSING'" in traces["chain"]
    assert "direct cause" in traces["chain"]
    assert "ValueError: invalid literal" in traces["context"]
    assert "During handling of the above exception" in traces["context"]
    assert "ExceptionGroup: unhandled errors in a TaskGroup" in traces["group"]
    assert "ValueError: one" in traces["group"]
    assert "look here" in traces["notes"]


async def test_a_long_message_and_traceback_are_shortened_in_the_middle(manager: JobManager) -> None:
    @manager.handler("fail")
    async def fail() -> None:
        raise ValueError("start" + "x" * 1_000_000 + "end")

    @manager.handler("recurse")
    async def recurse() -> None:
        def again(depth: int) -> int:
            return again(depth + 1) + 1

        again(0)

    job = await run_to_the_end(manager, "fail")
    assert job.error is not None
    assert len(job.error.message) < 20_000
    assert job.error.message.startswith("start")
    assert job.error.message.endswith("end")
    job = await run_to_the_end(manager, "recurse")
    assert job.error is not None
    assert job.error.type == "RecursionError"
    assert len(job.error.traceback) < 30_000


async def test_every_attempt_keeps_its_own_error(manager: JobManager) -> None:
    @manager.handler("work")
    async def work(context: JobContext) -> str:
        if context.attempt < 3:
            raise ValueError(f"attempt {context.attempt}")
        return "at last"

    job = await run_to_the_end(manager, "work", max_retries=3, retry_delay=0)
    assert (job.status, job.result, job.error, job.retry_count) == ("completed", "at last", None, 2)
    assert [str(attempt.error) for attempt in job.attempts] == [
        "ValueError: attempt 1",
        "ValueError: attempt 2",
        "None",
    ]
    assert [attempt.outcome for attempt in job.attempts] == ["failed", "failed", "completed"]
    assert [attempt.number for attempt in job.attempts] == [1, 2, 3]


@pytest.mark.parametrize(
    ("exception", "attempts"),
    [(ValueError("x"), 3), (Retry("later", delay=0), 3), (NonRetryableError("x"), 1), (RefusedError("x"), 1)],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_tried_again_and_what_is_not(manager: JobManager, exception: Exception, attempts: int) -> None:
    @manager.handler("work")
    async def work() -> None:
        raise exception

    job = await run_to_the_end(manager, "work", max_retries=2, retry_policy=RetryPolicy.fixed(0))
    assert (job.status, job.attempt) == ("failed", attempts)


async def test_a_handlers_own_retry_policy_goes_first_and_may_give_up(manager: JobManager) -> None:
    asked: list[tuple[int, str]] = []

    def policy(retry: int, error: BaseException) -> float | None:
        asked.append((retry, str(error)))
        return 0 if retry < 3 else None

    @manager.handler("work", retry_policy=policy)
    async def work(context: JobContext) -> None:
        raise ValueError(str(context.attempt))

    job = await run_to_the_end(manager, "work", max_retries=10, retry_delay=1000)
    assert asked == [(1, "1"), (2, "2"), (3, "3")]
    assert (job.status, job.attempt) == ("failed", 3)


@pytest.mark.parametrize("answer", [-1, float("nan"), float("inf"), "soon", ValueError("policy")], ids=repr)
async def test_a_broken_retry_policy_gives_way_to_the_jobs_own(manager: JobManager, answer: Any) -> None:
    def policy(retry: int, error: BaseException) -> float | None:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    @manager.handler("work", retry_policy=policy)
    async def work() -> None:
        msg = "no luck"
        raise ValueError(msg)

    job = await run_to_the_end(manager, "work", max_retries=1, retry_delay=0)
    assert (job.status, job.attempt) == ("failed", 2)
    assert job.error is not None
    assert job.error.message == "no luck"


async def test_a_stored_retry_policy_can_belong_to_a_handler(manager: JobManager) -> None:
    policy: Any = RetryPolicy.fixed(5)

    @manager.handler("work", retry_policy=policy)
    async def work() -> None:
        msg = "no luck"
        raise ValueError(msg)

    stream = manager.events.stream()
    await manager.create_job("work", max_retries=2, retry_delay=1000, auto_start=True)
    async for event in stream:
        if event.type == "retrying":
            assert event.job.run_at is not None
            assert event.job.run_at - event.at <= timedelta(seconds=5)
            break


async def test_run_job_raises_what_went_wrong(manager: JobManager) -> None:
    @manager.handler("fail")
    async def fail() -> None:
        msg = "no luck"
        raise ValueError(msg)

    with pytest.raises(JobFailedError, match="failed: ValueError: no luck") as failure:
        await manager.run_job("fail", job_id="mine")
    assert (failure.value.job_id, failure.value.status) == ("mine", "failed")
    assert failure.value.error == (await manager.get_job("mine")).error

    @manager.handler("cancel me")
    async def cancel_me(context: JobContext) -> None:
        await manager.cancel_job(context.job_id, "changed my mind")

    with pytest.raises(JobCancelledError, match="was cancelled: Cancelled: changed my mind") as cancelled:
        await manager.run_job("cancel me")
    assert cancelled.value.status == "cancelled"


async def test_a_coroutine_that_a_plain_function_returns_is_explained(manager: JobManager) -> None:
    async def work() -> int:
        return 1

    returned = []

    def plain() -> Any:
        returned.append(work())
        return returned[-1]

    manager.register_handler("work", plain)
    job = await run_to_the_end(manager, "work")
    for coroutine in returned:
        coroutine.close()
    assert job.result == 1 or "async def" in str(job.error)
