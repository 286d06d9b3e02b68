"""Job stores: the contract (`JobStore`), and where jobs may be kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openagents_json.errors import ConfigurationError
from openagents_json.job._changes import (
    Change,
    Claim,
    Query,
    Result,
    Wakeup,
    Worker,
    WorkerState,
)
from openagents_json.job._clock import Clock
from openagents_json.job._documents import read_whole as decode_record
from openagents_json.job._documents import whole as encode_record
from openagents_json.job._record import JobRecord
from openagents_json.job.storage._table import Table as JobTable
from openagents_json.job.storage.base import JobStore, StoreTraits
from openagents_json.job.storage.file import FileJobStore
from openagents_json.job.storage.memory import MemoryJobStore

if TYPE_CHECKING:
    from openagents_json.settings import Settings

__all__ = [
    "Change",
    "Claim",
    "Clock",
    "FileJobStore",
    "JobRecord",
    "JobStore",
    "JobTable",
    "MemoryJobStore",
    "Query",
    "Result",
    "StoreTraits",
    "Wakeup",
    "Worker",
    "WorkerState",
    "decode_record",
    "encode_record",
    "store_from_settings",
]


def store_from_settings(settings: Settings) -> JobStore:
    """Make the store that ``settings.job.store_type`` names.

    Raises:
        ConfigurationError: it cannot be made from these settings.
    """
    if settings.job.store_type == "memory":
        return MemoryJobStore()
    if settings.job.store_type == "file":
        return FileJobStore(settings.job.store_path)
    kind = settings.job.store_type
    msg = f"settings.job.store_type is {kind!r}, which this version does not have; use 'memory' or 'file'"
    raise ConfigurationError(msg)
