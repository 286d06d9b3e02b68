"""Job stores: the contract (`JobStore`), and where jobs may be kept."""

from __future__ import annotations

from openagents_json.errors import ConfigurationError
from openagents_json.job.storage.base import JobStore, StoreTraits
from openagents_json.job.storage.memory import MemoryJobStore

__all__ = ["JobStore", "MemoryJobStore", "StoreTraits", "store_from_settings"]


def store_from_settings() -> JobStore:
    """Make the store that ``settings.job.store_type`` names.

    Raises:
        ConfigurationError: it cannot be made from these settings.
    """
    from openagents_json.settings import settings  # noqa: PLC0415 - loads pydantic-settings, which takes its time

    if settings.job.store_type == "memory":
        return MemoryJobStore()
    msg = f"settings.job.store_type is {settings.job.store_type!r}, which this version does not have; use 'memory'"
    raise ConfigurationError(msg)
