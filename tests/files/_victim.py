"""Processes that run jobs on a directory and are killed: started here, told when to die, and started again.

``python -m tests.files._victim`` loads everything once and then forks a process for each order that it reads, one a
line, from its standard input; so each starts in milliseconds. For each it answers with two lines: the process's id,
and, when it has ended, its exit status (-9: killed).

What a job did is one line for each attempt in the file ``effects``; what the manager promised stands in ``promises``.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openagents_json.job import EventType, JobContext, JobEvent, JobManager, JobStatus, _documents, _lifecycle
from openagents_json.job.model import BatchJob
from openagents_json.job.retry import RetryPolicy
from openagents_json.job.storage import FileJobStore, _jobfiles, _journal, file
from openagents_json.job.storage._directory import JobDirectory
from openagents_json.job.storage._jobfiles import JobFiles
from openagents_json.job.storage._journal import Journal
from openagents_json.job.storage._lock import DirectoryLock
from openagents_json.job.storage._table import Table
from openagents_json.settings import settings

KINDS = ("fetch", "count", "try", "join")
RETRIES = 2


@dataclass(frozen=True)
class Order:
    """What a process is to do.

    Attributes:
        place: where the files are.
        families: how many families of jobs there are to be.
        point: where to die; empty: nowhere.
        nth: which time it comes there, from 1.
    """

    place: str
    families: int
    point: str = ""
    nth: int = 1


def jobs_of(family: int) -> list[str]:
    """Name the jobs of a family."""
    return [f"{kind}-{family}" for kind in KINDS]


def result_of(job_id: str) -> dict[str, Any]:
    """Compute what a job must return."""
    kind, _, family = job_id.partition("-")
    result: dict[str, Any] = {"job": job_id, "text": "ü" * (int(family) * 97 % 700)}
    if kind == "join":
        result["of"] = [result_of(name) for name in jobs_of(int(family))[:-1]]
    return result


def die() -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Dies when it has been reached so many times."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def count(self, last_act: Callable[[], object] = lambda: None) -> None:
        """Count, and die when it is time, after a last act."""
        self._left -= 1
        if self._left == 0:
            last_act()
            die()

    def before(self, home: object, name: str) -> None:
        """Die before a function is called."""
        self._replace(home, name, lambda *_: self.count(), lambda *_: None)

    def after(self, home: object, name: str) -> None:
        """Die after a function was called."""
        self._replace(home, name, lambda *_: None, lambda *_: self.count())

    def halfway(self, home: object, name: str, begin: Callable[..., object]) -> None:
        """Die when only a part of what a function does is done."""
        self._replace(home, name, lambda *arguments: self.count(lambda: begin(*arguments)), lambda *_: None)

    def while_iterating(self, home: object, name: str) -> None:
        """Die when an iterator has given something."""
        function = getattr(home, name)

        def replacement(*arguments: object) -> Iterator[object]:
            for item in function(*arguments):
                self.count()
                yield item

        setattr(home, name, replacement)

    def _replace(self, home: object, name: str, before: Callable[..., object], after: Callable[..., object]) -> None:
        function = getattr(home, name)

        def replacement(*arguments: object) -> object:
            before(*arguments)
            answer = function(*arguments)
            after(*arguments)
            return answer

        setattr(home, name, replacement)


def _write_half(descriptor: int, data: bytes) -> None:
    os.write(descriptor, data[: len(data) // 2])


def _write_half_beside(path: Path, data: bytes) -> None:
    path.with_name(path.name + ".tmp").write_bytes(data[: len(data) // 2])


#: Where a process can be told to die.
POINTS: dict[str, Callable[[Countdown], None]] = {
    "in the middle of a record": lambda at: at.halfway(_journal, "write", _write_half),
    "before the flush of a record": lambda at: at.before(_journal, "flush"),
    "after the flush of a record": lambda at: at.after(_journal, "flush"),
    "after a commit was installed": lambda at: at.after(Table, "install"),
    "in the middle of a job file": lambda at: at.halfway(_jobfiles, "publish", _write_half_beside),
    "between job files": lambda at: at.after(_jobfiles, "publish"),
    "after the job files": lambda at: at.after(_jobfiles, "sync_file_system"),
    "before segments are dropped": lambda at: at.after(Journal, "set_start"),
    "while segments are dropped": lambda at: at.before(_journal, "drop"),
    "after a segment was dropped": lambda at: at.after(_journal, "drop"),
    "after a segment was begun": lambda at: at.after(Journal, "begin_segment"),
    "while starting, locked": lambda at: at.after(DirectoryLock, "acquire"),
    "while starting, reading": lambda at: at.while_iterating(JobFiles, "read"),
    "while starting, all read": lambda at: at.after(JobDirectory, "load"),
    "in a handler": lambda at: at.after(Diary, "effect"),
}


class Diary:
    """What the outside world sees of the jobs: lines in files, each written by one call."""

    def __init__(self, place: Path) -> None:
        self._effects = _appending(place / "effects")
        self._promises = _appending(place / "promises")

    def effect(self, context: JobContext) -> None:
        """Note that an attempt did its work."""
        os.write(self._effects, f"{context.job_id} {context.attempt}\n".encode())

    def promise(self, word: str, job_id: str) -> None:
        """Note what the manager has just promised."""
        os.write(self._promises, f"{word} {job_id}\n".encode())


def _appending(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def register_handlers(manager: JobManager, diary: Diary) -> None:
    """Register what runs the jobs."""

    async def fetch(context: JobContext) -> object:
        await asyncio.sleep(0.001)
        diary.effect(context)
        await asyncio.sleep(0.001)
        return result_of(context.job_id)

    def count(context: JobContext) -> object:
        diary.effect(context)
        return result_of(context.job_id)

    async def try_(context: JobContext) -> object:
        diary.effect(context)
        if context.job.retry_count < RETRIES:
            raise ValueError(f"no luck {context.job.retry_count}")
        return result_of(context.job_id)

    async def join(context: JobContext) -> object:
        diary.effect(context)
        await asyncio.sleep(0)
        return result_of(context.job_id) | {"of": list(context.dependency_results.values())}

    for name, handler in zip(KINDS, (fetch, count, try_, join), strict=True):
        manager.register_handler(name, handler)


def family(number: int) -> list[BatchJob]:
    """Describe the jobs of a family."""
    common: BatchJob = {"name": "", "max_recoveries": None, "max_retries": RETRIES, "retry_delay": 0.001}
    *first, last = jobs_of(number)
    jobs: list[BatchJob] = [{**common, "name": name.partition("-")[0], "job_id": name} for name in first]
    return [*jobs, {**common, "name": "join", "job_id": last, "dependencies": [0, 1, 2]}]


async def work(order: Order) -> None:
    """Create the jobs that are not there yet, and run all to their end."""
    diary = Diary(Path(order.place))
    store = FileJobStore(Path(order.place) / "jobs here")
    async with JobManager(store, max_concurrent_jobs=4, retention_days=None) as manager:

        def completed(event: JobEvent) -> None:
            diary.promise("completed", event.job_id)

        manager.events.subscribe(completed, [EventType.COMPLETED])
        register_handlers(manager, diary)
        for number in range(order.families):
            names = jobs_of(number)
            if not await store.get(names):
                await manager.create_job_batch(family(number), auto_start=True)
                for name in names:
                    diary.promise("created", name)
        for number in range(order.families):
            for name in jobs_of(number):
                job = await manager.wait_for_job(name)
                assert job.status is JobStatus.COMPLETED, job


def obey(order: Order) -> None:
    """Do what a process is started for."""
    # Job files are written, and segments dropped, all the time; and nobody waits long to be recovered again.
    file._SEGMENT_AGE, file._SEGMENT_SIZE = 0.003, 6000
    _lifecycle._RECOVERY_BACKOFF = RetryPolicy.fixed(0.001)
    if order.point:
        POINTS[order.point](Countdown(order.nth))
    asyncio.run(work(order))


def main() -> None:
    """Fork a process for each order."""
    settings.job.max_concurrent_jobs = 4
    _documents._adapter()
    for line in sys.stdin:
        order = Order(**json.loads(line))
        process = os.fork()
        if process == 0:
            obey(order)
            os._exit(0)
        say(process)
        say(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def say(number: int) -> None:
    """Answer with a number."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def as_line(order: Order) -> bytes:
    """Write an order as `main` reads it."""
    return json.dumps(asdict(order)).encode() + b"\n"


if __name__ == "__main__":
    main()
