"""`Recovery`: which workers are dead, and putting their jobs back.

A worker is dead when it is known to be: its process on this machine is gone, or the store admits one process only and
it belongs to another. Or when it has been silent for longer than it promised *and* this observer, itself beating
without a break, has watched one more beat interval without a sign; so an outage of the store, which silences
everybody, kills nobody. (Quartz counts the observer's own lag likewise.)
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openagents_json.job._changes import Applied, Recover
from openagents_json.job._worker import beat_interval, is_gone, same_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from openagents_json.job._changes import Answer, Worker, WorkerState
    from openagents_json.job._clock import Clock
    from openagents_json.job._record import JobRecord
    from openagents_json.job._worker import Heartbeat
    from openagents_json.job._writer import Writer
    from openagents_json.job.storage.base import JobStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Suspicion:
    beats: int
    since: float
    own_breaks: int


class Observer:
    """Watches the other workers; decides which are dead. Pure but for its memory of what it saw before."""

    def __init__(self) -> None:
        self._suspicions: dict[str, _Suspicion] = {}

    def judge(
        self, states: Iterable[WorkerState], me: Worker, *, shared: bool, now: float, own_breaks: int
    ) -> dict[str, str]:
        """Look at the workers once.

        Args:
            states: the workers the store knows.
            me: the observer, who is never dead.
            shared: whether workers of several processes may use the store.
            now: monotonic seconds.
            own_breaks: how often the observer itself failed to beat so far.

        Returns:
            For each dead worker, why.
        """
        dead: dict[str, str] = {}
        before, self._suspicions = self._suspicions, {}
        for state in states:
            worker = state.worker
            if worker.worker_id == me.worker_id:
                continue
            if is_gone(worker, me):
                dead[worker.worker_id] = f"process {worker.pid} on {worker.host} is gone"
            elif not shared and not same_process(worker, me):
                dead[worker.worker_id] = "its process does not hold the store any more"
            elif state.silent_for > worker.silence_limit:
                suspicion = before.get(worker.worker_id)
                if suspicion is None or (suspicion.beats, suspicion.own_breaks) != (state.beats, own_breaks):
                    suspicion = _Suspicion(state.beats, now, own_breaks)
                if now - suspicion.since >= beat_interval(worker.silence_limit):
                    dead[worker.worker_id] = f"it was silent for {state.silent_for:.1f} s"
                else:
                    self._suspicions[worker.worker_id] = suspicion
        return dead

    def next_look(self, states: Iterable[WorkerState]) -> float | None:
        """Tell the seconds after which a suspicion could be confirmed; None: there is none."""
        limits = [state.worker.silence_limit for state in states if state.worker.worker_id in self._suspicions]
        return min(map(beat_interval, limits), default=None)


class Recovery:
    """Puts back the jobs of dead workers.

    Args:
        store: where the workers are.
        writer: through whom they are declared dead.
        heartbeat: of this process's own worker.
        clock: for the waiting.
        tell: told of each job that was put back, or failed.
    """

    def __init__(
        self,
        store: JobStore,
        writer: Writer,
        heartbeat: Heartbeat,
        clock: Clock,
        tell: Callable[[JobRecord], None],
    ) -> None:
        self._store = store
        self._writer = writer
        self._heartbeat = heartbeat
        self._clock = clock
        self._tell = tell
        self._observer = Observer()

    async def check(self) -> list[JobRecord]:
        """Look once; recover what can be recovered now.

        Returns:
            The jobs that were put back, or failed after too many recoveries.

        Raises:
            StoreError: the store did not answer.
        """
        return (await self._check())[0]

    async def check_thoroughly(self) -> list[JobRecord]:
        """Look, and look again after a beat interval where a worker is silent but not surely dead."""
        recovered, next_look = await self._check()
        if next_look is not None:
            await self._clock.wait(asyncio.Event(), next_look)
            recovered += (await self._check())[0]
        return recovered

    async def take_over(self, worker_id: str, why: str) -> list[JobRecord]:
        """Declare one worker dead and put its jobs back."""
        answer = await self._writer.submit(Recover(worker_id, why), self._told)
        jobs = list(answer.jobs) if isinstance(answer, Applied) else []
        if jobs:
            logger.warning("%d jobs of worker %s were put back: %s", len(jobs), worker_id, why)
        return jobs

    def _told(self, answer: Answer) -> None:
        if isinstance(answer, Applied):
            for record in answer.jobs:
                self._tell(record)

    async def _check(self) -> tuple[list[JobRecord], float | None]:
        states = await self._store.workers()
        dead = self._observer.judge(
            states,
            self._heartbeat.worker,
            shared=self._store.traits.shared,
            now=self._clock.monotonic(),
            own_breaks=self._heartbeat.breaks,
        )
        recovered = []
        for worker_id, why in dead.items():
            recovered += await self.take_over(worker_id, why)
        return recovered, self._observer.next_look(states)
