"""Retries: how often, after how long, who decides it, and what is remembered."""

import asyncio

import pytest

from openagents_json.errors import InvalidTransitionError
from openagents_json.job import (
    AttemptOutcome,
    JobManager,
    JobStatus,
    NonRetryableError,
    Retry,
    RetryPolicy,
    WaitReason,
)
from openagents_json.testing import ManualClock
from tests.engine._time import in_time, settled, soon


class Failing:
    """A handler that fails so many times, and notes when it was tried.

    Attributes:
        tried_at: seconds at which it was tried.
    """

    def __init__(self, clock: ManualClock, *, times: int = 1_000_000, error: Exception | None = None) -> None:
        self.tried_at: list[float] = []
        self._clock = clock
        self._times = times
        self._error = error or ValueError("again")

    async def __call__(self) -> str:
        self.tried_at.append(self._clock.monotonic())
        if len(self.tried_at) <= self._times:
            raise self._error
        return "at last"

    @property
    def delays(self) -> list[float]:
        """Seconds between the tries."""
        return [round(later - earlier, 6) for earlier, later in zip(self.tried_at, self.tried_at[1:], strict=False)]


async def test_job_is_tried_once_and_then_as_often_as_it_may_be_retried(
    manager: JobManager, clock: ManualClock
) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=3, retry_delay=7)

    done = await in_time(clock, manager.wait_for_job(job.job_id))

    assert failing.delays == [7, 7, 7]
    assert (done.status, done.attempt, done.retry_count) == (JobStatus.FAILED, 4, 3)
    assert [attempt.number for attempt in done.attempts] == [1, 2, 3, 4]


async def test_job_is_not_retried_unless_asked(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True)

    assert (await soon(manager.wait_for_job(job.job_id))).attempt == 1


async def test_retry_without_delay_comes_at_once(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock, times=5)
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=5, retry_delay=0)

    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.status, done.result, done.attempt) == (JobStatus.COMPLETED, "at last", 6)
    assert clock.monotonic() == 0


async def test_fixed_policy_waits_the_same_each_time(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    policy = RetryPolicy.fixed(4)
    job = await manager.create_job("work", auto_start=True, max_retries=3, retry_policy=policy, retry_delay=99)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert failing.delays == [4, 4, 4]
    assert done.retry_policy == policy


async def test_exponential_policy_grows_to_its_cap(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    policy = RetryPolicy.exponential(2, factor=3, max_delay=30, jitter=0)
    job = await manager.create_job("work", auto_start=True, max_retries=5, retry_policy=policy)

    await in_time(clock, manager.wait_for_job(job.job_id))
    assert failing.delays == [2, 6, 18, 30, 30]


async def test_jitter_shortens_within_its_bounds_and_varies(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    policy = RetryPolicy.exponential(8, factor=2, max_delay=64, jitter=0.25)
    job = await manager.create_job("work", auto_start=True, max_retries=40, retry_policy=policy)

    await in_time(clock, manager.wait_for_job(job.job_id), at_most=40 * 64)

    longest = [8, 16, 32] + [64] * 37
    assert all(0.75 * most <= delay <= most for delay, most in zip(failing.delays, longest, strict=True))
    assert len(set(failing.delays[3:])) > 10, "all the same: no jitter at all"


async def test_handler_asks_for_a_retry_after_a_delay_of_its_own(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock, times=2, error=Retry("rate limited", delay=12.5))
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=5, retry_delay=99)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert failing.delays == [12.5, 12.5]
    assert [str(attempt.error) for attempt in done.attempts[:2]] == ["Retry: rate limited"] * 2
    assert done.retry_count == 2


async def test_handler_asks_for_a_retry_after_the_jobs_delay(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock, times=1, error=Retry())
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=1, retry_delay=33)

    await in_time(clock, manager.wait_for_job(job.job_id))
    assert failing.delays == [33]


async def test_retry_that_a_handler_asks_for_needs_a_retry_left(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock, error=Retry("please", delay=1))
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=2)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert (done.status, done.attempt, str(done.error)) == (JobStatus.FAILED, 3, "Retry: please")


async def test_error_that_is_not_retryable_fails_at_once(manager: JobManager, clock: ManualClock) -> None:
    class HopelessError(NonRetryableError):
        pass

    failing = Failing(clock, error=HopelessError("wrong key"))
    manager.register_handler("work", failing, retry_policy=lambda retry, error: 1)
    job = await manager.create_job("work", auto_start=True, max_retries=5)

    done = await soon(manager.wait_for_job(job.job_id))
    assert (done.status, done.attempt, str(done.error)) == (JobStatus.FAILED, 1, "HopelessError: wrong key")


async def test_handlers_own_policy_goes_before_the_jobs(manager: JobManager, clock: ManualClock) -> None:
    asked: list[tuple[int, str]] = []

    def policy(retry: int, error: BaseException) -> float:
        asked.append((retry, str(error)))
        return 10.0 * retry

    failing = Failing(clock)
    manager.register_handler("work", failing, retry_policy=policy)
    job = await manager.create_job("work", auto_start=True, max_retries=3, retry_policy=RetryPolicy.fixed(1))

    await in_time(clock, manager.wait_for_job(job.job_id))
    assert failing.delays == [10, 20, 30]
    assert asked == [(1, "again"), (2, "again"), (3, "again")]


async def test_handlers_own_policy_gives_up(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing, retry_policy=lambda retry, error: 5 if retry == 1 else None)
    job = await manager.create_job("work", auto_start=True, max_retries=9)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert (done.attempt, failing.delays) == (2, [5])


def broken_policy(retry: int, error: BaseException) -> float:
    msg = "the policy is broken"
    raise RuntimeError(msg)


@pytest.mark.parametrize(
    "policy",
    [
        broken_policy,
        lambda retry, error: -1,
        lambda retry, error: float("nan"),
        lambda retry, error: float("inf"),
        lambda retry, error: "soon",
    ],
    ids=["raises", "negative", "nan", "infinite", "text"],
)
async def test_jobs_policy_stands_in_for_a_handlers_policy_that_fails(
    manager: JobManager, clock: ManualClock, policy: object, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing, retry_policy=policy)  # type: ignore[arg-type] # broken on purpose
    job = await manager.create_job("work", auto_start=True, max_retries=2, retry_delay=3)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert (done.status, failing.delays) == (JobStatus.FAILED, [3, 3])
    assert "the retry policy of handler 'work' failed; the job's own is used" in caplog.text


async def test_policy_belongs_to_the_decorated_handler(manager: JobManager, clock: ManualClock) -> None:
    tries = 0

    @manager.handler("work", retry_policy=lambda retry, error: 21)
    async def work() -> None:
        nonlocal tries
        tries += 1
        raise ValueError

    job = await manager.create_job("work", auto_start=True, max_retries=1)
    await in_time(clock, manager.wait_for_job(job.job_id))

    assert (tries, clock.monotonic()) == (2, 21)


async def test_history_keeps_the_last_fifty_attempts(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=59, retry_delay=1)

    done = await in_time(clock, manager.wait_for_job(job.job_id))

    assert (done.attempt, done.retry_count) == (60, 59)
    assert [attempt.number for attempt in done.attempts] == list(range(11, 61))
    assert {attempt.outcome for attempt in done.attempts} == {AttemptOutcome.FAILED}


async def test_job_that_backs_off_leaves_its_slot_to_others(manager: JobManager, clock: ManualClock) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)

    @manager.handler
    async def other() -> str:
        return "ran"

    for _ in range(20):
        await manager.create_job("work", auto_start=True, max_retries=1, retry_delay=60)
    await settled()

    assert await soon(manager.run_job("other")) == "ran"


async def test_retried_job_gets_a_fresh_set_of_retries_and_keeps_its_history(
    manager: JobManager, clock: ManualClock
) -> None:
    failing = Failing(clock)
    manager.register_handler("work", failing)
    job = await manager.create_job("work", auto_start=True, max_retries=2, retry_delay=1)
    await in_time(clock, manager.wait_for_job(job.job_id))

    again = await manager.retry_job(job.job_id)
    assert (again.status, again.retry_count, again.attempt, len(again.attempts)) == (JobStatus.PENDING, 0, 3, 3)
    assert (again.error, again.completed_at, again.run_at) == (None, None, None)

    done = await in_time(clock, manager.wait_for_job(job.job_id))
    assert (done.status, done.retry_count, done.attempt) == (JobStatus.FAILED, 2, 6)
    assert [attempt.number for attempt in done.attempts] == [1, 2, 3, 4, 5, 6]


async def test_retried_completed_job_runs_anew_and_has_no_result_meanwhile(manager: JobManager) -> None:
    results = iter(["first", "second"])
    go = asyncio.Event()
    go.set()

    @manager.handler
    async def work() -> str:
        await go.wait()
        return next(results)

    assert await soon(manager.run_job("work", job_id="j")) == "first"
    go.clear()

    await manager.retry_job("j")
    assert await manager.get_job_results("j") is None
    go.set()

    done = await soon(manager.wait_for_job("j"))
    assert (done.result, done.attempt, len(done.attempts)) == ("second", 2, 2)


async def test_retried_cancelled_job_that_was_never_started_is_queued(manager: JobManager) -> None:
    job = await manager.create_job("nobody-can")
    await manager.cancel_job(job.job_id)

    assert (await manager.retry_job(job.job_id)).wait_reason is WaitReason.WORKER


async def test_job_cancelled_because_of_a_dependency_is_not_retried_before_it(manager: JobManager) -> None:
    await manager.create_job("nobody-can", job_id="parent")
    await manager.create_job("nobody-can", job_id="child", dependencies=["parent"], auto_start=True)
    await manager.cancel_job("parent")

    with pytest.raises(InvalidTransitionError) as caught:
        await manager.retry_job("child")

    message = (
        "cannot retry job 'child': it is cancelled; its dependency 'parent' is cancelled; retry_job('parent') first"
    )
    assert str(caught.value) == message
