"""A running manager, with jobs in memory, for tests of the public API."""

from collections.abc import AsyncIterator

import pytest

from openagents_json import OpenAgentsApp
from openagents_json.job import JobManager
from openagents_json.testing import ManualClock


@pytest.fixture
async def manager() -> AsyncIterator[JobManager]:
    """A manager that runs jobs in memory."""
    async with JobManager(shutdown_timeout=1) as manager:
        yield manager


@pytest.fixture
async def app() -> AsyncIterator[OpenAgentsApp]:
    """An app that runs jobs in memory."""
    async with OpenAgentsApp(shutdown_timeout=1) as app:
        yield app


@pytest.fixture
def clock() -> ManualClock:
    """Time that stands still."""
    return ManualClock()
