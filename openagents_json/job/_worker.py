"""This process as a worker: who it is, whether another one is gone, and the heartbeat.

On Linux a worker is known dead as soon as its process is gone, so that a restart resumes at once. Elsewhere, and
across machines, only its silence tells.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from openagents_json.errors import WorkerDeadError
from openagents_json.job._changes import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from openagents_json.job.storage.base import JobStore

#: A worker beats ten times as often as it must, and at least this often (seconds).
_LONGEST_INTERVAL = 10.0

logger = logging.getLogger(__name__)


def this_worker(silence_limit: float) -> Worker:
    """Describe this process as a new worker that promises not to be silent for longer than that (seconds)."""
    return Worker(
        worker_id=str(uuid.uuid4()),
        silence_limit=silence_limit,
        host=socket.gethostname(),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        pid_namespace=_pid_namespace(),
        pid=os.getpid(),
        pid_started=_process_start(os.getpid()) or "",
    )


def beat_interval(silence_limit: float) -> float:
    """Compute the seconds between two beats of a worker."""
    return min(_LONGEST_INTERVAL, silence_limit / 10)


def same_process(one: Worker, other: Worker) -> bool:
    """Tell whether two workers are of one process."""
    return (one.host, one.boot_id, one.pid_namespace, one.pid, one.pid_started) == (
        other.host,
        other.boot_id,
        other.pid_namespace,
        other.pid,
        other.pid_started,
    )


def is_gone(worker: Worker, me: Worker) -> bool:
    """Tell whether a worker is known to be dead: its process was on this very machine, and is no more."""
    here = (me.host, me.boot_id, me.pid_namespace)
    if not (me.boot_id and me.pid_namespace) or (worker.host, worker.boot_id, worker.pid_namespace) != here:
        return False
    started = _process_start(worker.pid)
    return started is None or worker.pid_started not in {"", started}


class Heartbeat:
    """Signs of life of the worker this process is.

    Attributes:
        worker: who it is now; another one once this one was declared dead.
        healthy: whether it is registered and the last beat arrived; a worker that cannot beat should not claim.
        breaks: how often a beat failed to arrive.
        interval: seconds between beats.
    """

    def __init__(self, store: JobStore, silence_limit: float, died: Callable[[], None]) -> None:
        self.worker = this_worker(silence_limit)
        self.healthy = False
        self.breaks = 0
        self.interval = beat_interval(silence_limit)
        self._store = store
        self._registered = False
        self._on_death = died

    async def beat(self) -> None:
        """Send a sign of life, or register first.

        Raises:
            Exception: whatever the store raised; until a beat arrives, the worker is not healthy.
        """
        worker = self.worker
        try:
            if self._registered:
                alive = await self._store.beat(worker.worker_id)
            else:
                await self._store.register(worker)
                self._registered = alive = True
        except WorkerDeadError:
            alive = False
        except Exception:
            self.healthy = False
            self.breaks += 1
            raise
        if alive:
            self.healthy = worker is self.worker
        else:
            self.died(worker.worker_id)

    def died(self, worker_id: str) -> None:
        """Take notice that the worker was declared dead: become another one, to be registered by the next beat."""
        if worker_id != self.worker.worker_id:
            return
        logger.error("worker %s was declared dead; what it ran is lost to it, and it starts anew", worker_id)
        self.worker = replace(self.worker, worker_id=str(uuid.uuid4()))
        self.healthy = self._registered = False
        self.breaks += 1
        self._on_death()


def _process_start(pid: int) -> str | None:
    """Read when a process started, in the system's own ticks; None when there is none, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    # the command's name, in parentheses, may hold spaces: what follows the last parenthesis is state, ppid, ...
    after_name = stat.rpartition(")")[2].split()
    return None if after_name[0] in {"Z", "X"} else after_name[19]


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
