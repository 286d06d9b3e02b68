"""`Writer`: group commit. Many callers' changes, one `apply` at a time.

While one `apply` is under way further changes gather, and the next one takes them all: one caller alone waits for
nobody, a hundred share one commit. Each is answered after the commit its own change was in. The next claim rides in
the same transaction as the outcomes that make room for it.

A caller who is cancelled takes nobody with him: a change that is not yet under way is dropped, one that is takes
effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from openagents_json.errors import ManagerStoppedError, OpenAgentsError, StoreError, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from openagents_json.job._changes import Answer, Change, Claim, Claimed
    from openagents_json.job.storage.base import JobStore

#: The most changes in one transaction: bounds its length, and how long others wait for it.
MAX_CHANGES = 1000

logger = logging.getLogger(__name__)


class Claims(Protocol):
    """Who wants jobs, and takes them."""

    def plan_claim(self, changes: Sequence[Change]) -> Claim | None:
        """Decide what to claim together with these changes; None: nothing."""

    def accept(self, claim: Claim, claimed: Claimed) -> None:
        """Take the claim's answer."""

    def claim_failed(self, claim: Claim, error: Exception) -> None:
        """Learn that the claim's fate is unknown."""


class _Pending(NamedTuple):
    change: Change
    answer: asyncio.Future[Answer]
    told: Callable[[Answer], None] | None


class Writer:
    """The one through whom a manager changes its store.

    Args:
        store: where to.
    """

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._claims: Claims | None = None
        self._pending: deque[_Pending] = deque()
        self._wanted = asyncio.Event()
        self._closed = False

    def serve(self, claims: Claims) -> None:
        """Ask `claims`, before each `apply` from now on, what to claim with it."""
        self._claims = claims

    def submit(self, change: Change, told: Callable[[Answer], None] | None = None) -> asyncio.Future[Answer]:
        """Hand in a change; the future gives the store's answer.

        `told` is called with the answer, too, as soon as it is there and before any job claimed with it starts, also
        if whoever asked has stopped waiting.

        The future raises `StoreUnavailableError` when the change may or may not have taken effect, `StoreError`
        when it has not.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_exception(ManagerStoppedError())
        else:
            self._pending.append(_Pending(change, answer, told))
            self._wanted.set()
        return answer

    def kick(self) -> None:
        """Ask for an `apply` even if it carries nothing but a claim."""
        self._wanted.set()

    def close(self) -> None:
        """Take no further changes; `run` ends when those handed in are answered."""
        self._closed = True
        self._wanted.set()

    def abandon(self) -> None:
        """Answer nobody any more: tell whoever waits that the manager has stopped."""
        self._closed = True
        self._give_up(self._pending)
        self._pending.clear()

    async def run(self) -> None:
        """Write until closed. To be run by one task, which must not be cancelled while a write is under way."""
        while not (self._closed and not self._pending):
            await self._wanted.wait()
            self._wanted.clear()
            while self._pending or not self._closed:
                batch = self._take()
                claim = None
                if self._claims is not None:
                    claim = self._claims.plan_claim([pending.change for pending in batch])
                if not batch and claim is None:
                    break
                await self._write(batch, claim)

    def _give_up(self, batch: Iterable[_Pending]) -> None:
        for pending in batch:
            if not pending.answer.done():
                pending.answer.set_exception(ManagerStoppedError())

    def _take(self) -> list[_Pending]:
        batch: list[_Pending] = []
        while self._pending and len(batch) < MAX_CHANGES:
            pending = self._pending.popleft()
            if not pending.answer.done():
                batch.append(pending)
        return batch

    async def _write(self, batch: Sequence[_Pending], claim: Claim | None) -> None:
        try:
            result = await self._store.apply([pending.change for pending in batch], claim=claim)
        except asyncio.CancelledError:
            # the end of a stop that the store held up too long, or of the event loop
            self._give_up(batch)
            raise
        except Exception as exc:  # noqa: BLE001 - a store's own code; whoever waits for its answer must hear
            await self._write_failed(batch, claim, exc)
            return
        for pending, answer in zip(batch, result.answers, strict=True):
            if pending.told is not None:
                try:
                    pending.told(answer)
                except Exception:
                    # whatever is wrong with telling, what was stored is stored, and others wait for their answers
                    logger.exception("what %s came to could not be told", type(pending.change).__name__)
            if not pending.answer.done():
                pending.answer.set_result(answer)
        if claim is not None and self._claims is not None and result.claimed is not None:
            self._claims.accept(claim, result.claimed)

    async def _write_failed(self, batch: Sequence[_Pending], claim: Claim | None, error: Exception) -> None:
        """Find out whose fault it was: each change is tried alone, unless the store itself is away."""
        if claim is not None and self._claims is not None:
            self._claims.claim_failed(claim, error)
        if len(batch) > 1 and not isinstance(error, StoreUnavailableError):
            logger.warning("a commit shared by %d changes failed, trying each alone: %r", len(batch), error)
            try:
                for pending in batch:
                    await self._write([pending], None)
            except asyncio.CancelledError:
                self._give_up(batch)
                raise
            return
        for pending in batch:
            if not pending.answer.done():
                pending.answer.set_exception(_as_store_error(error))


def _as_store_error(error: Exception) -> Exception:
    """Give each waiting caller an error of his own."""
    if isinstance(error, StoreUnavailableError):
        return StoreUnavailableError(*error.args)
    if isinstance(error, OpenAgentsError):
        return error
    wrapped = StoreError(f"the store failed unexpectedly: {error!r}; nothing was stored")
    wrapped.__cause__ = error
    return wrapped
