"""`Slots`: how many jobs may run now, and who takes a slot back first. Synchronous; decides, waits for nothing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from openagents_json.job.model import JobPriority

if TYPE_CHECKING:
    from collections.abc import Callable

CRITICAL = JobPriority.CRITICAL


class Slots:
    """`limit` slots for any job, and `critical` more that only CRITICAL jobs may fill.

    CRITICAL jobs count against their own slots first. Whoever lent a slot takes one back before new jobs are
    claimed.

    Attributes:
        waiting: tickets of those who want a slot back, first come first served.
        made_room: called whenever a slot may have come free for new jobs.
    """

    def __init__(self, limit: int, critical: int) -> None:
        self._limit = limit
        self._critical = critical
        self._taken = 0
        self._taken_critical = 0
        self.waiting: deque[Ticket] = deque()
        self.made_room: Callable[[], None] = lambda: None

    def free(self, freed: int = 0, freed_critical: int = 0) -> tuple[int, int]:
        """Count the slots new jobs may fill.

        Args:
            freed: slots that come free at the moment for which this is asked.
            freed_critical: how many of those CRITICAL jobs hold.

        Returns:
            The slots for any job, and those for a CRITICAL one (which include the former).
        """
        for_any, for_critical = self._empty(freed, freed_critical)
        critical = sum(ticket.priority is CRITICAL for ticket in self.waiting)
        # whoever waits comes first, but an ordinary job that waits fills no slot that only CRITICAL ones may
        ordinary = min(len(self.waiting) - critical, max(0, for_any))
        return max(0, for_any - ordinary - critical), max(0, for_critical - ordinary - critical)

    def take(self, priority: JobPriority) -> None:
        """Fill a slot; whoever calls it has made sure that there is one."""
        self._taken += 1
        self._taken_critical += priority is CRITICAL

    def give_back(self, priority: JobPriority) -> None:
        """Empty a slot; the first who wait for one and fit get theirs at once."""
        self._taken -= 1
        self._taken_critical -= priority is CRITICAL
        self._grant()
        self.made_room()

    def ask(self, ticket: Ticket) -> None:
        """Wait for a slot; it may be granted before this returns."""
        self.waiting.append(ticket)
        self._grant()

    def withdraw(self, ticket: Ticket) -> None:
        """Stop waiting."""
        if ticket in self.waiting:
            self.waiting.remove(ticket)
            self._grant()
            self.made_room()

    def _grant(self) -> None:
        passed: deque[Ticket] = deque()
        while self.waiting:
            ticket = self.waiting.popleft()
            for_any, for_critical = self._empty()
            if (for_critical if ticket.priority is CRITICAL else for_any) > 0:
                self.take(ticket.priority)
                ticket.granted()
            else:
                passed.append(ticket)
        self.waiting.extend(passed)

    def _empty(self, freed: int = 0, freed_critical: int = 0) -> tuple[int, int]:
        """Count the empty slots, like `free`, as if nobody waited; negative when too many are taken."""
        critical = self._taken_critical - freed_critical
        ordinary = self._taken - self._taken_critical - (freed - freed_critical)
        for_any = self._limit - ordinary - max(0, critical - self._critical)
        return for_any, self._limit + self._critical - ordinary - critical


class Ticket:
    """Somebody's wish for a slot.

    Attributes:
        priority: of the job that wants it.
        granted: called once, when the slot is taken for it.
    """

    __slots__ = ("granted", "priority")

    def __init__(self, priority: JobPriority, granted: Callable[[], None]) -> None:
        self.priority = priority
        self.granted = granted
