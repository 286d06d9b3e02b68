"""What keeping jobs in files costs: `FileJobStore` against `MemoryJobStore`, in the same run.

``python benchmarks/files.py`` prints a table of medians; ``--json`` prints the same and every single measurement,
``--quick`` does less of everything, ``--directory DIR`` says on which disk (default: the system's directory for
temporary files; what is measured on a tmpfs such as ``/dev/shm`` leaves the disk out of it).

Each repetition takes every measurement once, on files and in memory right after the other and in alternating order.
The ratio is the median of the repetitions' own ratios. What is timed is checked. Memory is what Python allocates
(tracemalloc), for jobs with a payload of a hundred bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import tempfile
import time
import tracemalloc
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from openagents_json import __version__
from openagents_json.job import JobManager, JobStatus
from openagents_json.job._changes import Query
from openagents_json.job.storage import FileJobStore, MemoryJobStore
from openagents_json.testing import a_job, adding

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openagents_json.job import BatchJob
    from openagents_json.job.storage import JobStore

#: More of the first is better, and less of the others.
Unit = Literal["jobs/s", "us", "ms", "bytes"]

#: A hundred bytes; made anew for each job, as no two jobs share theirs.
PAYLOAD = b'{"text":"%089d"}'


@dataclass(frozen=True)
class Measurement:
    """One thing to measure, on any store; `in_memory` is False where a memory store has nothing to compare."""

    name: str
    unit: Unit
    take: Callable[[Callable[[], JobStore]], Awaitable[float]]
    in_memory: bool = True


@dataclass
class Figures:
    """What was measured, one number for each repetition."""

    name: str
    unit: Unit
    files: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times as much files cost; None: there is nothing to compare."""
        pairs = list(zip(self.files, self.memory, strict=False))
        ratios = [memory / files if self.unit == "jobs/s" else files / memory for files, memory in pairs]
        return median(ratios) if ratios else None


# ------------------------------------------------------------------------------------------------ create


async def create(make: Callable[[], JobStore], number: int, *, callers: int) -> float:
    """Store jobs one by one, by so many callers at a time."""
    async with JobManager(make(), run_jobs=False) as manager:

        async def call() -> None:
            for payload in range(number // callers):
                await manager.create_job("note", payload=payload)

        started = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        seconds = time.perf_counter() - started
        assert await manager.count_jobs() == number
    return number / seconds


async def create_batches(make: Callable[[], JobStore], number: int) -> float:
    """Store jobs a thousand at a time."""
    batches: list[list[BatchJob]] = [
        [{"name": "note", "payload": payload} for payload in range(at, at + 1000)] for at in range(0, number, 1000)
    ]
    async with JobManager(make(), run_jobs=False) as manager:
        started = time.perf_counter()
        for batch in batches:
            await manager.create_job_batch(batch)
        seconds = time.perf_counter() - started
        assert await manager.count_jobs() == number
    return number / seconds


# --------------------------------------------------------------------------------------------------- run


async def run_many(make: Callable[[], JobStore], number: int, *, callers: int) -> float:
    """Create jobs and wait for their results, by so many callers at a time."""
    async with JobManager(make(), max_concurrent_jobs=100) as manager:

        async def note(payload: int) -> int:
            return payload

        async def call(first: int) -> None:
            for payload in range(first, number, callers):
                assert await manager.run_job("note", payload=payload) == payload

        manager.register_handler("note", note)
        started = time.perf_counter()
        await asyncio.gather(*(call(first) for first in range(callers)))
        seconds = time.perf_counter() - started
        assert await manager.count_jobs(status=JobStatus.COMPLETED) == number
    return number / seconds


async def latency(make: Callable[[], JobStore], number: int) -> float:
    """From the call of `run_job` to its result, one job after the other: the median, in microseconds."""
    taken = []
    async with JobManager(make()) as manager:

        async def note() -> None:
            pass

        manager.register_handler("note", note)
        for _ in range(number):
            started = time.perf_counter()
            await manager.run_job("note")
            taken.append((time.perf_counter() - started) * 1e6)
    return median(taken)


# ------------------------------------------------------------------------------------------------- sizes


async def open_many(make: Callable[[], JobStore], number: int) -> float:
    """Open a directory of that many jobs, each in its file: milliseconds."""
    store = make()
    await fill(store, number)
    await store.close()
    gc.collect()
    started = time.perf_counter()
    await store.open()
    milliseconds = (time.perf_counter() - started) * 1e3
    assert await store.count(Query()) == number
    await store.close()
    return milliseconds


async def memory_of_waiting(make: Callable[[], JobStore], number: int) -> float:
    """Measure what a waiting job takes: bytes. In files, once they are opened anew."""
    store = make()
    await fill(store, number)
    if store.traits.durable:
        await store.close()
        another = make_again(store)
        del store
        gc.collect()
        tracemalloc.start()
        await another.open()
    else:
        await store.close()
        del store
        another = make()
        gc.collect()
        tracemalloc.start()
        await fill(another, number)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert await another.count(Query()) == number
    await another.close()
    return taken / number


async def fill(store: JobStore, number: int) -> None:
    """Open a store and make jobs in it."""
    await store.open()
    for begin in range(0, number, 1000):
        jobs = (a_job(f"job-{index}", payload=PAYLOAD % index) for index in range(begin, min(begin + 1000, number)))
        await store.apply([adding(*jobs)])


def make_again(store: JobStore) -> JobStore:
    """Make another store on the same directory."""
    assert isinstance(store, FileJobStore)
    return FileJobStore(store._directory.path)


# ------------------------------------------------------------------------------------------------- parts


def measurements(*, quick: bool) -> list[Measurement]:
    """List what is measured."""
    many, some, few, stored = (2000, 200, 50, 10_000) if quick else (10_000, 1000, 300, 100_000)
    return [
        Measurement("create, 1 caller", "jobs/s", partial(create, number=some, callers=1)),
        Measurement("create, 100 callers", "jobs/s", partial(create, number=many, callers=100)),
        Measurement("create, batches of 1,000", "jobs/s", partial(create_batches, number=many)),
        Measurement("run_job, 1 caller", "jobs/s", partial(run_many, number=some, callers=1)),
        Measurement("run_job, 100 callers", "jobs/s", partial(run_many, number=many, callers=100)),
        Measurement("create to result, one by one, median", "us", partial(latency, number=few)),
        Measurement(f"open {stored:,} jobs", "ms", partial(open_many, number=stored), in_memory=False),
        Measurement("memory per waiting job", "bytes", partial(memory_of_waiting, number=stored // 10)),
    ]


async def measure(chosen: list[Measurement], repetitions: int, directory: Path, *, quiet: bool) -> list[Figures]:
    """Take each measurement so many times."""
    figures = [Figures(one.name, one.unit) for one in chosen]
    numbers = count()

    def in_files() -> JobStore:
        return FileJobStore(directory / f"{next(numbers)}")

    for repetition in range(repetitions):
        for one, its in zip(chosen, figures, strict=True):
            ways: list[tuple[Callable[[], JobStore], list[float]]] = [(in_files, its.files)]
            if one.in_memory:
                ways.append((MemoryJobStore, its.memory))
            for make, into in ways if repetition % 2 == 0 else reversed(ways):
                gc.collect()
                into.append(await one.take(make))
        if not quiet:
            print(f"\rrepetition {repetition + 1} of {repetitions}", end="", file=sys.stderr, flush=True)
    if not quiet:
        print(file=sys.stderr)
    return figures


def table(figures: list[Figures]) -> str:
    """Show the medians."""
    lines = [f"{'':42} {'in files':>12} {'in memory':>14}  {'':6} {'ratio':>6}"]
    for its in figures:
        memory = f"{median(its.memory):14,.0f}" if its.memory else f"{'':14}"
        ratio = f"{its.ratio:5.1f}x" if its.ratio is not None else ""
        lines.append(f"{its.name:42} {median(its.files):12,.0f} {memory}  {its.unit:6} {ratio}".rstrip())
    return "\n".join(lines)


def as_json(figures: list[Figures], directory: str) -> str:
    """Give the medians and every measurement."""
    results = [
        {
            "name": its.name,
            "unit": its.unit,
            "files": median(its.files),
            "memory": median(its.memory) if its.memory else None,
            "ratio": its.ratio,
            "measured": {"files": its.files, "memory": its.memory},
        }
        for its in figures
    ]
    about = {"version": __version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    return json.dumps({**about, "directory": directory, "results": results}, indent=2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and repetitions: a rough idea")
    parser.add_argument("--only", default="", metavar="TEXT", help="only measurements whose name contains this")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often (default: 3, quick: 2)")
    parser.add_argument("--directory", metavar="DIR", default=tempfile.gettempdir(), help="where the files are")
    options = parser.parse_args()
    chosen = [one for one in measurements(quick=options.quick) if options.only in one.name]
    if not chosen:
        parser.error(f"no measurement's name contains {options.only!r}")
    repetitions = options.repetitions or (2 if options.quick else 3)
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        figures = asyncio.run(measure(chosen, repetitions, Path(place), quiet=options.json))
    if options.json:
        print(as_json(figures, options.directory))
    else:
        machine = f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs"
        print(f"openagents_json {__version__}, files in {options.directory}; {machine}; medians of {repetitions}\n")
        print(table(figures))
        print("\nratio: how many times as much it costs in files")


if __name__ == "__main__":
    main()
