"""`Scheduler`: when jobs start.

It has no loop of its own. It is told what happened (jobs became ready, a time came, a slot came free) and asks the
writer for a claim whenever jobs may be ready and slots are free; outcomes and the next claim share a commit.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING

from openagents_json.job._changes import Add, Claim, Rerun, Resume, Start, Unclaim
from openagents_json.job._runner import BACKOFF
from openagents_json.job._slots import CRITICAL
from openagents_json.job.model import JobPriority
from openagents_json.job.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openagents_json.job._changes import Change, Claimed, Wakeup
    from openagents_json.job._clock import Clock, Timer
    from openagents_json.job._record import JobRecord, JobSpec
    from openagents_json.job._runner import Runner
    from openagents_json.job._slots import Slots
    from openagents_json.job._worker import Heartbeat
    from openagents_json.job._writer import Writer
    from openagents_json.job.handlers import Handler

#: The most jobs one claim asks for.
_MAX_CLAIM = 500

#: How often a store that pushes no wake-ups is asked for jobs: at first, growing while there are none.
_POLL = RetryPolicy.exponential(0.05, max_delay=1.0, jitter=0.2)

#: The wall clock may be moved while a timer waits: look again at least this often (seconds).
_LONGEST_SLEEP = 60.0

logger = logging.getLogger(__name__)


class Scheduler:
    """Claims jobs for one worker, as many as it has slots for.

    Args:
        writer: carries the claims.
        slots: how many may run.
        heartbeat: whose worker claims; while it is not healthy, nothing is claimed.
        clock: for timers.
        queues: where from; they take turns in being first.
        polls: whether the store has to be asked, since it pushes no wake-ups.
        find_handler: gives the handler of a job; None: nobody here can run it.
    """

    def __init__(
        self,
        *,
        writer: Writer,
        slots: Slots,
        heartbeat: Heartbeat,
        clock: Clock,
        queues: tuple[str, ...],
        polls: bool,
        find_handler: Callable[[JobSpec], Handler | None],
    ) -> None:
        self._writer = writer
        self._runner: Runner | None = None
        self._slots = slots
        slots.made_room = self._ask
        self._heartbeat = heartbeat
        self._clock = clock
        self._queues = queues
        self._polls = polls
        self._find_handler = find_handler
        self._missing_handlers: set[str] = set()
        self._missing_names: set[str] = set()
        self._warned: set[str] = set()
        self._claiming = False
        self._appetite = _Appetite()
        self._claims = 0
        self._failed_claim: Claim | None = None
        self._claim_under_way = False
        self._claim_answered = asyncio.Event()
        self._heard: set[str] | None = set()
        self._failures = 0
        self._resting: Timer | None = None
        self._alarm = _Alarm(clock, self.wake)
        self._empty_polls = 0

    def start(self, runner: Runner) -> None:
        """Begin to claim jobs for a runner."""
        self._runner = runner
        self._writer.serve(self)
        self._claiming = True
        self.wake()

    async def stop(self, timeout: float) -> None:
        """Claim nothing more, and wait for the answer to a claim that is under way, `timeout` seconds at most."""
        self.abandon()
        if self._claim_under_way:
            await self._clock.wait(self._claim_answered, timeout)

    def abandon(self) -> None:
        """Claim nothing more."""
        self._claiming = False
        self._alarm.cancel()
        if self._resting is not None:
            self._resting.cancel()

    def wake(self) -> None:
        """Jobs may have become ready, or may be run now that could not be before."""
        self._appetite.whet()
        self._ask()

    def hear(self, wakeup: Wakeup) -> None:
        """Take in what the store tells."""
        if wakeup.due_in is not None and self._claiming:
            self._alarm.set(wakeup.due_in)
        if wakeup.ready:
            self.wake()
        if self._claim_under_way or self._failed_claim is not None:
            if wakeup.changed is None:
                self._heard = None
            elif self._heard is not None:
                self._heard.update(wakeup.changed)

    def handlers_changed(self) -> None:
        """Jobs that nobody here could run may have a handler now."""
        self._missing_handlers.clear()
        self._missing_names.clear()
        self.wake()

    def pass_over(self, spec: JobSpec) -> None:
        """Claim no jobs like this one: nobody here can run them."""
        if spec.handler is None:
            self._missing_names.add(spec.name)
        else:
            self._missing_handlers.add(spec.handler)
        if spec.handler_name not in self._warned:
            self._warned.add(spec.handler_name)
            logger.warning(
                "no handler %r is registered; job %s and others that ask for it stay pending until somebody has one",
                spec.handler_name,
                spec.job_id,
            )

    def forget_claims(self) -> None:
        """The worker is another one from now on: what the old one claimed is not followed up."""
        self._failed_claim = None

    def plan_claim(self, changes: Sequence[Change]) -> Claim | None:
        """Decide what to claim in the commit of these changes; they free the slots of the jobs they let go."""
        runner = self._runner
        if runner is None or not self._claiming or self._resting is not None or not self._heartbeat.healthy:
            return None
        for_any, for_critical = self._slots.free(*runner.freed_by(changes))
        if self._failed_claim is not None:
            # asked again even without a free slot: what it got already is ours
            room = for_any if self._failed_claim.min_priority is JobPriority.LOW else for_critical
            self._claim_under_way = True
            self._claim_answered.clear()
            return replace(self._failed_claim, limit=min(self._failed_claim.limit, room))
        min_priority = JobPriority.LOW if for_any else CRITICAL
        if any(_may_make_ready(change) for change in changes):
            self._appetite.whet()
        if not (for_any or for_critical) or not self._appetite.for_(min_priority):
            return None
        self._claims += 1
        self._claim_under_way = True
        self._claim_answered.clear()
        self._heard = set()
        self._appetite.claiming()
        turn = self._claims % len(self._queues)
        return Claim(
            worker_id=self._heartbeat.worker.worker_id,
            lease=f"{self._heartbeat.worker.worker_id}:{self._claims}",
            limit=min(_MAX_CLAIM, for_any or for_critical),
            queues=self._queues[turn:] + self._queues[:turn],
            min_priority=min_priority,
            exclude_handlers=frozenset(self._missing_handlers),
            exclude_names=frozenset(self._missing_names),
            exclude_jobs=frozenset(runner.lingering),
        )

    def accept(self, claim: Claim, claimed: Claimed) -> None:
        """Start what a claim got."""
        runner = self._runner
        if runner is None:
            return
        self._answered()
        self._failed_claim = None
        self._failures = 0
        if not self._claiming:
            for record in claimed.jobs:
                runner.send(Unclaim(record.job_id, record.lease or ""))
            return
        if claimed.error is not None:
            logger.warning("a claim was refused: %s", claimed.error)
            self._heartbeat.died(claim.worker_id)
            return
        if claimed.next_due_in is not None:
            self._alarm.set(claimed.next_due_in)
        self._empty_polls = 0 if claimed.jobs else self._empty_polls + 1
        if len(claimed.jobs) < claim.limit and not claim.repeated:
            self._appetite.sated(claim.min_priority)
            if self._polls:
                self._alarm.set(_POLL.delay_before(self._empty_polls + 1, random.random()))
        for record in claimed.jobs:
            self._start(record, runner)
        # what others did to them while the claim's answer was on its way was heard before they were known here
        runner.look_at_changed(self._heard)
        self._ask()

    def claim_failed(self, claim: Claim, error: Exception) -> None:
        """Rest a while, then ask whether the claim took effect after all."""
        self._answered()
        self._failed_claim = replace(claim, repeated=True)
        self._failures += 1
        delay = BACKOFF.delay_before(self._failures, random.random())
        logger.warning("a claim failed, trying again in %.1f s: %s", delay, error)
        self._resting = self._clock.call_later(delay, self._rested)

    def _answered(self) -> None:
        self._claim_under_way = False
        self._claim_answered.set()

    def _rested(self) -> None:
        self._resting = None
        self._ask()

    def _ask(self) -> None:
        """Ask the writer for a commit that carries a claim, if one is wanted and there is room."""
        if self._claiming and self._resting is None and self._appetite.any and any(self._slots.free()):
            self._writer.kick()

    def _start(self, record: JobRecord, runner: Runner) -> None:
        handler = self._find_handler(record.spec)
        if handler is not None:
            runner.start(record, handler)
            return
        self.pass_over(record.spec)
        runner.send(Unclaim(record.job_id, record.lease or ""))


def _may_make_ready(change: Change) -> bool:
    if isinstance(change, Add):
        return any(job.queued for job in change.jobs)
    return isinstance(change, Start | Resume | Rerun)


class _Appetite:
    """Whether a claim may find something: since the last one found everything, has anybody said otherwise?"""

    def __init__(self) -> None:
        self._ordinary = True
        self._critical = True
        self._whetted = True

    @property
    def any(self) -> bool:
        return self._ordinary or self._critical

    def whet(self) -> None:
        self._ordinary = self._critical = self._whetted = True

    def for_(self, min_priority: JobPriority) -> bool:
        return self._critical if min_priority is CRITICAL else self._ordinary

    def claiming(self) -> None:
        """Note that a claim is under way: what is whetted from now on, its answer does not satisfy."""
        self._whetted = False

    def sated(self, min_priority: JobPriority) -> None:
        """Note that a claim found less than it asked for: nothing more of that priority was ready."""
        if self._whetted:
            return
        self._critical = False
        if min_priority is not CRITICAL:
            self._ordinary = False


class _Alarm:
    """One timer, set to the earliest time asked for."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None
        self._at = 0.0

    def set(self, seconds: float) -> None:
        seconds = min(seconds, _LONGEST_SLEEP)
        at = self._clock.monotonic() + seconds
        if self._timer is None or at < self._at:
            self.cancel()
            self._at = at
            self._timer = self._clock.call_later(seconds, self._rang)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rang(self) -> None:
        self._timer = None
        self._ring()
