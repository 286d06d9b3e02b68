"""The store that docs/stores.md builds step by step passes the conformance suite."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
from typing_extensions import override

from openagents_json.job._clock import Clock
from openagents_json.job.storage import JobStore
from openagents_json.testing import JobStoreConformance

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"


def shelf_job_store() -> Any:
    """Make the class of the page's pieces of code, in order."""
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python(?: continuation)?\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    first = next(at for at, block in enumerate(blocks) if "class ShelfJobStore" in block)
    namespace: dict[str, Any] = {}
    exec("\n".join(blocks[first:]), namespace)  # noqa: S102 - the page's own code is what is tested
    return namespace["ShelfJobStore"]


class TestShelfJobStore(JobStoreConformance):
    @pytest.fixture(autouse=True)
    def _path(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "jobs")

    @override
    def make_store(self, clock: Clock) -> JobStore:
        return cast("JobStore", shelf_job_store()(self.path, clock))
