"""The conformance suite's rules for stores that promise more: on objects that share one table in this process."""

import weakref

import pytest
from typing_extensions import override

from openagents_json.job._changes import Wakeup
from openagents_json.job._clock import Clock
from openagents_json.job.storage._table import Table
from openagents_json.job.storage.base import StoreTraits
from openagents_json.job.storage.memory import MemoryJobStore
from openagents_json.testing import JobStoreConformance


class Place:
    """Where jobs are kept, and who is to be told of changes."""

    def __init__(self) -> None:
        self.table = Table()
        self.stores: weakref.WeakSet[SharedStore] = weakref.WeakSet()


class SharedStore(MemoryJobStore):
    """One of several stores on the same jobs."""

    traits = StoreTraits(durable=True, shared=True, pushes=True)

    def __init__(self, place: Place, clock: Clock) -> None:
        super().__init__(clock=clock)
        self._table = place.table
        self._place = place
        place.stores.add(self)

    @override
    def _wake(self, wakeup: Wakeup) -> None:
        for store in self._place.stores:
            MemoryJobStore._wake(store, wakeup)


class TestSharedStore(JobStoreConformance):
    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.place = Place()

    @override
    def make_store(self, clock: Clock) -> SharedStore:
        return SharedStore(self.place, clock)
