"""`Runtime`: one start of a manager, from `start` to `stop`, in one event loop.

It owns the main task, in which the writer and the periodic duties (heartbeat, recovery, cleanup) run, and puts the
engine's parts together. A manager that starts again makes a new one: nothing of an old event loop is used again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from openagents_json.errors import StoreError
from openagents_json.job._changes import Applied, Purge, Query
from openagents_json.job._executor import Environment
from openagents_json.job._periodic import Periodic
from openagents_json.job._recovery import Recovery
from openagents_json.job._runner import BACKOFF, Runner
from openagents_json.job._scheduler import Scheduler
from openagents_json.job._slots import Slots
from openagents_json.job._threads import ThreadPool
from openagents_json.job._watch import Watch
from openagents_json.job._worker import Heartbeat
from openagents_json.job._writer import Writer
from openagents_json.job.events import EventType, event_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openagents_json.job._changes import Wakeup
    from openagents_json.job._clock import Clock
    from openagents_json.job._config import ManagerConfig
    from openagents_json.job._record import JobRecord, JobSpec
    from openagents_json.job.context import Jobs
    from openagents_json.job.events import EventBus
    from openagents_json.job.handlers import Handler
    from openagents_json.job.storage.base import JobStore

_CLEANUP_INTERVAL = 3600.0
_PURGE_AT_ONCE = 1000

#: A worker compares what it holds with what it runs every so many recovery checks.
_CHECKS_PER_AUDIT = 6

#: How long the last steps of a stop may take together, beyond the jobs' own time (seconds).
_LAST_STEPS = 5.0

logger = logging.getLogger(__name__)


class Runtime:
    """The live parts of a manager.

    Attributes:
        loop: the event loop it lives in.
        writer: through whom everything is changed.
        watch: through whom jobs are awaited.
        in_good_order: whether it has ended and left no jobs behind.
    """

    def __init__(
        self,
        config: ManagerConfig,
        *,
        store: JobStore,
        clock: Clock,
        events: EventBus,
        jobs: Jobs,
        find_handler: Callable[[JobSpec], Handler | None],
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.writer = Writer(store)
        self.watch = Watch(store, clock)
        self._config = config
        self._find_handler = find_handler
        self._store = store
        self._clock = clock
        self._events = events
        self._threads = ThreadPool("openagents-handler")
        self._heartbeat = Heartbeat(store, config.silence_limit, self._died)
        slots = Slots(config.max_concurrent_jobs, config.critical_slots)
        self._scheduler = Scheduler(
            writer=self.writer,
            slots=slots,
            heartbeat=self._heartbeat,
            clock=clock,
            queues=config.queues,
            polls=not store.traits.pushes,
            find_handler=find_handler,
        )
        self._runner = Runner(
            store=store,
            writer=self.writer,
            environment=Environment(
                clock=clock,
                slots=slots,
                threads=self._threads,
                jobs=jobs,
                cancel_grace=config.cancel_grace,
                max_result_bytes=config.max_result_bytes,
            ),
            tell=self.tell,
            is_followed=lambda job_id: self.watch.awaits(job_id) or events.has_listeners,
            wake=self._scheduler.wake,
        )
        self._recovery = Recovery(
            store,
            self.writer,
            self._heartbeat,
            clock,
            tell=lambda record: self.tell(event_of(record, EventType.RECOVERED), record),
        )
        self._checks = 0
        self._missed_beats = 0
        interval = self._heartbeat.interval
        self._beating = Periodic("heartbeat", self._beat, interval, clock)
        self._duties = [
            self._beating,
            Periodic("recovery", self._check, interval, clock),
            Periodic("cleanup", self.purge, _CLEANUP_INTERVAL, clock),
        ]
        self.in_good_order = not config.run_jobs
        self._opened = False
        self._orphaned: set[str] = set()
        self._main: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] | None = None

    @property
    def worker_id(self) -> str:
        """The worker it is now."""
        return self._heartbeat.worker.worker_id

    async def start(self, predecessor: Runtime | None = None) -> None:
        """Open the store, recover what was interrupted, and begin to run jobs.

        Args:
            predecessor: an earlier runtime of this manager that did not end in good order.

        Raises:
            StoreError: the store cannot be opened.
        """
        await self._store.open()
        self._opened = True
        try:
            await self._begin(predecessor)
        except BaseException:
            await self.stop(0)
            raise

    async def stop(self, timeout: float) -> None:
        """Stop within `timeout` seconds and a little; see `JobManager.stop`."""
        await self._scheduler.stop(_LAST_STEPS)
        await self._runner.stop(timeout)
        for duty in self._duties:
            duty.stop()
        await self.watch.stop()
        self.writer.close()
        if self._main is not None:
            await asyncio.wait({self._main}, timeout=_LAST_STEPS)
            self._main.cancel()
        self.abandon()
        await self._events.close(_LAST_STEPS)
        if self._config.run_jobs:
            await self._sign_off()
        await self._close_store()

    async def _begin(self, predecessor: Runtime | None) -> None:
        if predecessor is not None:
            self._orphaned = {predecessor.worker_id, *predecessor._orphaned}
            await predecessor._close_store()
        self._unlisten = self._store.listen(self._hear)
        self._main = self.loop.create_task(self._run(), name="openagents job manager")
        self._main.add_done_callback(self._main_ended)
        if self._config.run_jobs:
            try:
                await self._beat()
                await self._check()
            except StoreError as exc:
                logger.warning("the store did not answer at start-up, trying again while running: %s", exc)
            self._scheduler.start(self._runner)

    async def _sign_off(self) -> None:
        try:
            await self._store.unregister(self.worker_id)
            held = await self._store.count(Query(held_by=self.worker_id))
            self.in_good_order = not held and not self._orphaned
        except StoreError as exc:
            logger.warning("the worker could not sign off; others will notice its silence: %s", exc)

    async def _close_store(self) -> None:
        if self._opened:
            self._opened = False
            await self._store.close()

    def abandon(self) -> None:
        """Hear no more from the store, and want nothing more of it; needs no event loop."""
        self._scheduler.abandon()
        self._threads.close()
        if self._unlisten is not None:
            self._unlisten()
            self._unlisten = None

    def follow(self, record: JobRecord) -> None:
        """Make what runs here conform to a job that was just changed."""
        self._runner.follow(record)

    def interrupt(self) -> None:
        """Interrupt running jobs now; for a stop that should not wait for them any longer."""
        self._runner.interrupt()

    def expect(self, specs: Iterable[JobSpec]) -> None:
        """Take notice of jobs about to be stored: those that nobody here can run are not even claimed."""
        if self._config.run_jobs:
            for spec in specs:
                if spec.queue in self._config.queues and self._find_handler(spec) is None:
                    self._scheduler.pass_over(spec)

    def handlers_changed(self) -> None:
        """Take notice of a new handler."""
        self._scheduler.handlers_changed()

    def tell(self, type_: EventType, record: JobRecord) -> None:
        """Tell waiters and listeners what happened to a job."""
        self.watch.offer(record)
        self._events.publish(type_, record, record.updated_at)

    async def recover(self) -> list[JobRecord]:
        """Put back the jobs of dead workers, watching silent ones for as long as it takes to be sure."""
        return await self._recovery.check_thoroughly()

    async def purge(self) -> int:
        """Delete finished jobs that are older than the retention period; returns how many."""
        if self._config.retention_days is None:
            return 0
        purged = 0
        while True:
            answer = await self.writer.submit(Purge(self._config.retention_days * 86400, _PURGE_AT_ONCE))
            jobs = answer.jobs if isinstance(answer, Applied) else ()
            for record in jobs:
                self.tell(EventType.DELETED, record)
            purged += len(jobs)
            if len(jobs) < _PURGE_AT_ONCE:
                return purged

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.writer.run(), name="openagents writer")
            if self._config.run_jobs:
                for duty in self._duties:
                    group.create_task(duty.run(), name=f"openagents {duty.name}")

    def _main_ended(self, main: asyncio.Task[None]) -> None:
        if not main.cancelled() and main.exception() is not None:
            logger.critical("the job manager failed and does nothing any more", exc_info=main.exception())
        self.writer.abandon()

    def _hear(self, wakeup: Wakeup) -> None:
        self._scheduler.hear(wakeup)
        self._runner.look_at_changed(wakeup.changed)
        self.watch.look_at(wakeup.changed)

    async def _beat(self) -> None:
        was_healthy = self._heartbeat.healthy
        try:
            await self._heartbeat.beat()
        except Exception:
            # nothing is claimed until a beat arrives: do not wait for the next one's time
            self._missed_beats += 1
            self._clock.call_later(BACKOFF.delay_before(self._missed_beats, random.random()), self._beating.nudge)
            raise
        self._missed_beats = 0
        if self._heartbeat.healthy and not was_healthy:
            self._scheduler.wake()

    async def _check(self) -> None:
        for worker_id in tuple(self._orphaned):
            await self._recovery.take_over(worker_id, "its manager ended before it was done")
            self._orphaned.discard(worker_id)
        await self._recovery.check()
        self._checks += 1
        if self._checks % _CHECKS_PER_AUDIT == 0:
            await self._runner.audit(self.worker_id)

    def _died(self) -> None:
        self._runner.lose_everything()
        self._scheduler.forget_claims()
        self._beating.nudge()
