"""Who starts the processes that are killed, looks at what they leave behind, and keeps count: `Witness`."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from openagents_json.job import AttemptOutcome, JobStatus
from openagents_json.job._codec import decode
from openagents_json.job._record import JobRecord
from openagents_json.testing import check_consistency
from tests.files._tools import SOON, all_jobs, opened, store_of
from tests.files._victim import Order, as_line, jobs_of, result_of

ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL


class Victims:
    """Starts processes, one after the other, and kills them."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.files._victim"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, bufsize=0)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, order: Order, *, kill_after: float | None = None) -> int:
        """Run a process to its end, or kill it after so many seconds; gives its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.write(as_line(order))
        process = self._number(SOON)
        assert process is not None
        status = self._number(SOON if kill_after is None else kill_after)
        if status is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process, signal.SIGKILL)
            assert kill_after is not None, "it should have come to its end by itself"
            status = self._number(SOON)
        assert status is not None
        return status

    def _number(self, seconds: float) -> int | None:
        assert self._process.stdout is not None
        until = time.monotonic() + seconds
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            read = os.read(self._process.stdout.fileno(), 1000)
            assert read, "the process that starts the others has ended"
            self._read += read
        line, _, self._read = self._read.partition(b"\n")
        return int(line)


@dataclass(frozen=True)
class _Interrupted:
    """An attempt that a death interrupted."""

    job_id: str
    attempt: int
    worker_id: str


class Witness:
    """Kills processes that work on one directory until all its jobs are done, and checks that nothing went wrong.

    Attributes:
        deaths: how often a process was killed.
    """

    def __init__(self, place: Path, victims: Victims, *, families: int) -> None:
        place.mkdir()
        self.deaths = 0
        self._victims = victims
        self._order = Order(str(place), families)
        self._place = place
        self._names = [name for number in range(families) for name in jobs_of(number)]
        self._interrupted: set[_Interrupted] = set()
        self._effects_of_completed: dict[str, int] = {}

    def kill_at(self, point: str, nth: int) -> bool:
        """Run a process that dies at a point; False: it never came there, and all jobs are done."""
        return self._run(replace(self._order, point=point, nth=nth), None)

    def kill_after(self, seconds: float) -> bool:
        """Run a process and kill it after that time; False: it was done before."""
        return self._run(self._order, seconds)

    def finish(self) -> None:
        """Let a process run to its end, and check that all is as if nobody had ever died."""
        assert not self._run(self._order, None)
        jobs = asyncio.run(self._look(reader=False))
        assert sorted(jobs) == sorted(self._names)
        for job in jobs.values():
            assert job.status is JobStatus.COMPLETED
            self._check_history(job)
        effects = self._effects()
        assert max(Counter(effects).values()) == 1, "no attempt was made twice"
        for job_id, count in self._effects_of_completed.items():
            assert self._count(effects, job_id) == count, f"{job_id} was completed, and ran again"

    def _run(self, order: Order, kill_after: float | None) -> bool:
        status = self._victims.run(order, kill_after=kill_after)
        assert status in {0, KILLED}, f"{order} ended with {status}"
        if status == KILLED:
            self.deaths += 1
            if (self._place / "jobs here" / "journal").exists():
                asyncio.run(self._look(reader=True))
        return status == KILLED

    async def _look(self, *, reader: bool) -> dict[str, JobRecord]:
        """Look at what is left; a reader touches nothing."""
        async with opened(self._place / "jobs here", read_only=reader) as driver:
            await check_consistency(driver.store)
            jobs = await all_jobs(store_of(driver))
            assert store_of(driver).set_aside == ()
        for number in range(self._order.families):
            there = [name in jobs for name in jobs_of(number)]
            assert all(there) or not any(there), "a batch is stored as a whole"
        for word, job_id in self._promises():
            assert job_id in jobs
            assert word == "created" or jobs[job_id].status is JobStatus.COMPLETED
        effects = self._effects()
        for job in jobs.values():
            if job.status is JobStatus.COMPLETED:
                assert job.result is not None
                assert decode(job.result) == result_of(job.job_id)
                self._effects_of_completed.setdefault(job.job_id, self._count(effects, job.job_id))
            elif job.lease is not None:
                self._interrupted.add(_Interrupted(job.job_id, job.attempt, job.worker_id or ""))
        return jobs

    def _check_history(self, job: JobRecord) -> None:
        """Check that a job's history tells of every death it suffered, and of nothing else."""
        told = {_Interrupted(job.job_id, entry.attempt, entry.worker_id) for entry in job.recovery_history}
        assert told == {one for one in self._interrupted if one.job_id == job.job_id}
        assert all(entry.why == "its process does not hold the store any more" for entry in job.recovery_history)
        interrupted = [attempt for attempt in job.attempts if attempt.outcome is AttemptOutcome.INTERRUPTED]
        assert [attempt.number for attempt in interrupted] == [entry.attempt for entry in job.recovery_history]
        assert [attempt.number for attempt in job.attempts] == list(range(1, job.attempt + 1))

    def _effects(self) -> list[bytes]:
        return _whole_lines(self._place / "effects")

    def _promises(self) -> list[tuple[str, str]]:
        lines = [line.decode().split() for line in _whole_lines(self._place / "promises")]
        return [(word, job_id) for word, job_id in lines]

    @staticmethod
    def _count(effects: list[bytes], job_id: str) -> int:
        return sum(line.split()[0] == job_id.encode() for line in effects)


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []
