"""The conformance suite on the file store."""

from pathlib import Path

import pytest
from typing_extensions import override

from openagents_json.job._clock import Clock
from openagents_json.job.storage import FileJobStore, JobStore
from openagents_json.testing import JobStoreConformance


class TestFileJobStore(JobStoreConformance):
    """Every rule of the contract."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "jobs"

    @override
    def make_store(self, clock: Clock) -> JobStore:
        return FileJobStore(self.directory, clock=clock)
