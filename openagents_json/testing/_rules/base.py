"""What the tests of a store share: the store, made anew and empty for each test, its clock and a driver."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio

from openagents_json.testing.builders import StoreDriver, check_consistency
from openagents_json.testing.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from openagents_json.job._changes import Applied
    from openagents_json.job._clock import Clock
    from openagents_json.job._record import JobRecord
    from openagents_json.job.storage.base import JobStore


def shown(answer: Applied) -> tuple[tuple[JobRecord, ...], bool]:
    """Give the jobs an answer shows, and whether its change changed anything."""
    return answer.jobs, answer.changed


class StoreRules:
    """The fixtures of every test of a store."""

    pytestmark: ClassVar[pytest.MarkDecorator] = pytest.mark.asyncio(loop_scope="function")

    @abstractmethod
    def make_store(self, clock: Clock) -> JobStore:
        """Make the store under test, not open, that reads this clock.

        The first one a test makes must be empty. Where `traits.durable` or `traits.shared` is set, each further one
        of the same test must be another object on the same jobs.
        """

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The time, which stands still until a test moves it."""
        return ManualClock()

    @pytest_asyncio.fixture(loop_scope="function")
    async def store(self, clock: ManualClock) -> AsyncIterator[JobStore]:
        """The store, open; what it derives is checked when the test is over."""
        store = self.make_store(clock)
        await store.open()
        try:
            yield store
            await check_consistency(store)
        finally:
            await store.close()

    @pytest.fixture
    def driver(self, store: JobStore, clock: ManualClock) -> StoreDriver:
        """Short ways to say what tests say often."""
        return StoreDriver(store, clock)
