"""The memory store keeps every rule of the store contract."""

from typing_extensions import override

from openagents_json.job._clock import Clock
from openagents_json.job.storage.memory import MemoryJobStore
from openagents_json.testing import JobStoreConformance


class TestMemoryJobStore(JobStoreConformance):
    @override
    def make_store(self, clock: Clock) -> MemoryJobStore:
        return MemoryJobStore(clock=clock)
