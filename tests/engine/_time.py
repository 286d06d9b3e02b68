"""Ways to let the engine go on until it can go on no further, and to let a manual clock's time pass."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from openagents_json.testing import ManualClock

T = TypeVar("T")

#: How long a test waits for something that must happen (seconds); only a failing test takes so long.
SOON = 5.0

#: How many rounds of the event loop the engine may take before it is said to spin.
MANY_ROUNDS = 200_000


async def settled() -> None:
    """Return when nothing in the event loop can go on by itself: all wait for time, for threads, or for the test."""
    loop = asyncio.get_running_loop()
    for _ in range(MANY_ROUNDS):
        await asyncio.sleep(0)
        if not loop._ready:  # type: ignore[attr-defined] # what is to be done now; asyncio has no name for it
            return
    msg = f"the event loop did not come to rest in {MANY_ROUNDS} rounds: somebody spins"
    raise AssertionError(msg)


async def pass_time(clock: ManualClock, seconds: float) -> None:
    """Let time pass from timer to timer, so that everybody who is woken sees his own moment."""
    end = clock.monotonic() + seconds
    await settled()
    while (step := clock.next_timer_in) is not None and clock.monotonic() + step <= end:
        clock.advance(max(0.0, step))
        await settled()
    clock.advance(max(0.0, end - clock.monotonic()))
    await settled()


async def in_time(clock: ManualClock, awaitable: Awaitable[T], *, at_most: float = 3600.0) -> T:
    """Await something that takes time, letting just as much of it pass as is needed, `at_most` so many seconds."""
    task = asyncio.ensure_future(awaitable)
    end = clock.monotonic() + at_most
    await settled()
    while not task.done() and (step := clock.next_timer_in) is not None and clock.monotonic() + step <= end:
        clock.advance(max(0.0, step))
        await settled()
    return await soon(task)


async def soon(awaitable: Awaitable[T]) -> T:
    """Await something that must happen without any time passing."""
    async with asyncio.timeout(SOON):
        return await awaitable


async def rounds_of_the_loop(awaitable: Awaitable[object]) -> int:
    """Count how often the event loop goes round until the awaitable is done; to be awaited in a quiet loop."""
    loop = asyncio.get_running_loop()
    rounds = 0
    going_round = loop._run_once  # type: ignore[attr-defined] # one round; asyncio has no hook for it

    def counted() -> None:
        nonlocal rounds
        rounds += 1
        going_round()

    loop._run_once = counted  # type: ignore[attr-defined]
    try:
        await awaitable
    finally:
        del loop._run_once  # type: ignore[attr-defined]
    return rounds
