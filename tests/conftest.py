"""Strictness for every test: no asyncio task and no thread that it started may outlive it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest

THREAD_GRACE_SECONDS = 2.0


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test() -> Iterator[None]:
    """Fail the test if a non-daemon thread started during it is alive shortly after its event loop closed."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + THREAD_GRACE_SECONDS
    started = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in started:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread for thread in started if thread.is_alive()]
    assert not left, f"threads outlive their test: {left!r}"


@pytest.fixture(autouse=True)
async def no_task_outlives_its_test(no_thread_outlives_its_test: None) -> AsyncIterator[None]:
    """Fail the test if an asyncio task started during it is not done at its end, cancelled or not.

    The other fixture comes first so that it ends last: closing the loop ends the threads of its executor.
    """
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks outlive their test: {left!r}"
