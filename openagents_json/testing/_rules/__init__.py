"""The rules of a job store as tests, by theme; `JobStoreConformance` puts them together.

Each module holds one class of tests without the prefix that pytest looks for, so they run only where a store's own
test class inherits them.
"""

import pytest

_MODULES = (
    "base",
    "batches",
    "cascades",
    "claims",
    "concurrency",
    "dependencies",
    "lifetime",
    "listeners",
    "outcomes",
    "queries",
    "recovery",
    "removal",
    "transitions",
    "values",
    "workers",
)
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))
