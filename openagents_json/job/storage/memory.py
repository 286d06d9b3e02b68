"""`MemoryJobStore`: jobs in this process's memory, gone with it. The default store, and the quickest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from openagents_json.job.storage._tabled import TableStore
from openagents_json.job.storage.base import StoreTraits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openagents_json.job._changes import Change, Claim, Result
    from openagents_json.job._clock import Clock


class MemoryJobStore(TableStore):
    """Keep jobs in memory. They outlive `close()` but not this object, and not the process.

    Args:
        clock: where timestamps come from; a test may bring its own.
    """

    traits: StoreTraits = StoreTraits(durable=False, shared=False, pushes=True)

    def __init__(self, *, clock: Clock | None = None) -> None:
        super().__init__(clock)

    @override
    def __repr__(self) -> str:
        return f"MemoryJobStore({len(self._table.jobs)} jobs)"

    @override
    async def _open(self) -> None:
        pass

    @override
    async def _close(self) -> None:
        pass

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        self._require_open()
        plan = self._table.plan(changes, claim, self._clock.now())
        self._wake(self._table.install(plan))
        return plan.result
