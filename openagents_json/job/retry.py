"""When a failed job is tried again: the delay as a pure function of the policy and the retry's number."""

from __future__ import annotations

from dataclasses import dataclass

from openagents_json.errors import InvalidJobError
from openagents_json.job._shown import shown

#: No delay is longer than this, whatever factor made it: 30 days, in seconds.
LONGEST_DELAY = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before each retry; a value, stored with its job.

    The delay before retry ``n`` (1, 2, ...) is ``min(max_delay, delay * factor ** (n - 1))`` seconds, then shortened
    at random by up to the fraction `jitter` (equal jitter is 0.5, full jitter 1.0: M. Brooker, "Exponential Backoff
    And Jitter", AWS Architecture Blog, 2015).

    Attributes:
        delay: seconds before the first retry, >= 0.
        factor: growth from one retry to the next, >= 1; 1 keeps the delay fixed.
        max_delay: cap in seconds, applied before the jitter.
        jitter: between 0 (none) and 1 (anything down to no delay at all).

    Raises:
        InvalidJobError: a value is out of its range.
    """

    delay: float
    factor: float = 1.0
    max_delay: float = LONGEST_DELAY
    jitter: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values no delay can be computed from."""
        _require("delay", self.delay, 0, LONGEST_DELAY)
        _require("factor", self.factor, 1, 1000)
        _require("max_delay", self.max_delay, 0, LONGEST_DELAY)
        _require("jitter", self.jitter, 0, 1)

    @classmethod
    def fixed(cls, delay: float) -> RetryPolicy:
        """Wait the same `delay` seconds before every retry."""
        return cls(delay)

    @classmethod
    def exponential(
        cls, delay: float = 1.0, *, factor: float = 2.0, max_delay: float = 300.0, jitter: float = 0.5
    ) -> RetryPolicy:
        """Wait longer each time: by default 1, 2, 4, ... up to 300 seconds, each shortened by up to a half."""
        return cls(delay, factor, max_delay, jitter)

    def delay_before(self, retry: int, chance: float = 0.0) -> float:
        """Compute the seconds to wait before retry number `retry` (1 for the first).

        Args:
            retry: which retry, from 1.
            chance: a random number in [0, 1) that places the delay within its jitter; 0 gives the longest.
        """
        try:
            grown = self.delay * float(self.factor) ** (retry - 1)
        except OverflowError:
            grown = self.max_delay if self.delay else 0.0
        return min(self.max_delay, grown) * (1 - self.jitter * chance)


def _require(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidJobError(
            f"retry_policy.{name}", f"must be a number between {low:g} and {high:g}, not {shown(value)}"
        )
