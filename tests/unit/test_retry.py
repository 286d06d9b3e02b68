"""When a failed job is tried again."""

import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openagents_json.errors import InvalidJobError
from openagents_json.job.retry import LONGEST_DELAY, RetryPolicy

policies = st.builds(
    RetryPolicy,
    delay=st.floats(0, LONGEST_DELAY) | st.integers(0, 1000),
    factor=st.floats(1, 1000) | st.integers(1, 1000),
    max_delay=st.floats(0, LONGEST_DELAY),
    jitter=st.floats(0, 1),
)


def test_a_fixed_delay_stays_the_same() -> None:
    policy = RetryPolicy.fixed(2.5)
    assert [policy.delay_before(retry, 0.9) for retry in (1, 2, 50)] == [2.5, 2.5, 2.5]


def test_an_exponential_delay_doubles_up_to_its_cap() -> None:
    policy = RetryPolicy.exponential()
    delays = [policy.delay_before(retry) for retry in range(1, 12)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_factor_cap_and_jitter_can_be_chosen() -> None:
    policy = RetryPolicy.exponential(0.5, factor=3, max_delay=10, jitter=1)
    assert [policy.delay_before(retry) for retry in (1, 2, 3, 4)] == [0.5, 1.5, 4.5, 10]
    assert policy.delay_before(4, 0.25) == 7.5
    assert policy.delay_before(1, 0.5) == 0.25


@given(policies, st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_its_longest_and_what_the_jitter_leaves_of_it(
    policy: RetryPolicy, retry: int, chance: float
) -> None:
    longest = policy.delay_before(retry)
    delay = policy.delay_before(retry, chance)
    assert longest * (1 - policy.jitter) <= delay * (1 + 1e-12)
    assert delay <= longest <= policy.max_delay
    assert delay >= 0


@given(policies, st.integers(1, 10_000))
def test_without_jitter_no_retry_waits_shorter_than_the_one_before(policy: RetryPolicy, retry: int) -> None:
    assert policy.delay_before(retry) <= policy.delay_before(retry + 1)


@given(policies, st.integers(1, 60))
def test_the_longest_delay_follows_the_formula(policy: RetryPolicy, retry: int) -> None:
    expected = min(policy.max_delay, policy.delay * policy.factor ** (retry - 1))
    assert policy.delay_before(retry) == pytest.approx(expected)


def test_no_number_of_retries_is_too_large() -> None:
    begun = time.perf_counter()
    assert RetryPolicy(1, factor=1000, max_delay=60).delay_before(10**9) == 60
    assert RetryPolicy(1.0, factor=1.5).delay_before(10**9) == LONGEST_DELAY
    assert RetryPolicy(0.0, factor=1000.0, max_delay=60).delay_before(10**9) == 0
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delay", -0.1),
        ("delay", LONGEST_DELAY + 1),
        ("delay", float("nan")),
        ("delay", float("inf")),
        ("delay", "1"),
        ("delay", None),
        ("delay", True),
        ("factor", 0.9),
        ("factor", 1001),
        ("max_delay", -1),
        ("max_delay", float("inf")),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", False),
    ],
)
def test_values_no_delay_can_be_computed_from_are_refused(field: str, value: Any) -> None:
    with pytest.raises(InvalidJobError) as caught:
        RetryPolicy(**{"delay": 1.0, field: value})
    assert caught.value.field == f"retry_policy.{field}"
    assert repr(value) in caught.value.problem


@given(policies)
def test_a_policy_is_a_value(policy: RetryPolicy) -> None:
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301 - made just here
    assert hash(policy) == hash(RetryPolicy(policy.delay, policy.factor, policy.max_delay, policy.jitter))
    with pytest.raises(AttributeError):
        policy.delay = 1.0  # type: ignore[misc]
