"""`Periodic`: a duty done now and then, until it is stopped; never cancelled in the middle."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from openagents_json.errors import OpenAgentsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openagents_json.job._clock import Clock

logger = logging.getLogger(__name__)


class Periodic:
    """Does something every `interval` seconds, and when nudged. An error is logged, and the next time comes.

    Args:
        name: what it is, for the log.
        action: what to do.
        interval: seconds between the end of one time and the next.
        clock: for the waiting.
    """

    def __init__(self, name: str, action: Callable[[], Awaitable[object]], interval: float, clock: Clock) -> None:
        self.name = name
        self._action = action
        self._interval = interval
        self._clock = clock
        self._nudged = asyncio.Event()
        self._stopped = False

    def nudge(self) -> None:
        """Do it now."""
        self._nudged.set()

    def stop(self) -> None:
        """Do it no more; `run` returns once a time that is under way has ended."""
        self._stopped = True
        self._nudged.set()

    async def run(self) -> None:
        """Do it until stopped."""
        while not self._stopped:
            await self._clock.wait(self._nudged, self._interval)
            self._nudged.clear()
            if not self._stopped:
                try:
                    await self._action()
                except OpenAgentsError as exc:
                    logger.warning("%s: %s", self.name, exc)
                except Exception:
                    # a duty must be done the next time too, whatever a store raised this time
                    logger.exception("%s failed", self.name)
