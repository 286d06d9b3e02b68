"""Helps for tests: time that a test controls, a store that fails on purpose, and the rules every store is held to.

Names are loaded when they are first used: `ManualClock`, `FaultyStore` and the builders need nothing but this
package; `JobStoreConformance` needs pytest and pytest-asyncio, `store_machine` hypothesis (the extra ``testing``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openagents_json.testing.builders import (
        StoreDriver,
        a_claim,
        a_job,
        a_worker,
        adding,
        check_consistency,
    )
    from openagents_json.testing.clock import ManualClock
    from openagents_json.testing.conformance import JobStoreConformance
    from openagents_json.testing.faulty import Fault, FaultyStore
    from openagents_json.testing.machine import store_machine

__all__ = [
    "Fault",
    "FaultyStore",
    "JobStoreConformance",
    "ManualClock",
    "StoreDriver",
    "a_claim",
    "a_job",
    "a_worker",
    "adding",
    "check_consistency",
    "store_machine",
]

_HOMES = {
    "Fault": "faulty",
    "FaultyStore": "faulty",
    "JobStoreConformance": "conformance",
    "ManualClock": "clock",
    "StoreDriver": "builders",
    "a_claim": "builders",
    "a_job": "builders",
    "a_worker": "builders",
    "adding": "builders",
    "check_consistency": "builders",
    "store_machine": "machine",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
