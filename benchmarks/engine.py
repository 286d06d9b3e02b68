"""What the job engine costs: on the memory store, against bare asyncio tasks under a semaphore, in the same run.

``python benchmarks/engine.py`` prints a table of medians; ``--json`` prints the same and every single measurement,
``--quick`` does less of everything, ``--only TEXT`` takes the measurements whose name contains it.

Each repetition takes every measurement once, engine and bare one right after the other and in alternating order, so
that what else the machine does meets both alike. The ratio is the median of the repetitions' own ratios. What is
timed is checked: that every job ran once, that no more ran at once than may, that the store has every result. A job
counts as done when its outcome is stored, not when its handler returns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import TYPE_CHECKING, Literal

from openagents_json import __version__
from openagents_json.job import EventType, JobManager, JobStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openagents_json.job import BatchJob, JobContext, JobEvent

#: Jobs per second, or microseconds; more of the first and less of the second is better.
Unit = Literal["jobs/s", "us"]


@dataclass(frozen=True)
class Measurement:
    """One thing to measure, both ways."""

    name: str
    unit: Unit
    engine: Callable[[], Awaitable[float]]
    bare: Callable[[], Awaitable[float]]


@dataclass
class Figures:
    """What was measured, one number for each repetition."""

    name: str
    unit: Unit
    engine: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times as quick the bare tasks were."""
        pairs = zip(self.engine, self.bare, strict=True)
        return [bare / engine if self.unit == "jobs/s" else engine / bare for engine, bare in pairs]


class Work:
    """The handlers: they do nothing but note that they were called."""

    def __init__(self) -> None:
        self.calls: Counter[object] = Counter()
        self.at_once = 0
        self.most_at_once = 0

    async def note(self, payload: object) -> None:
        self.calls[payload] += 1

    def note_in_thread(self, payload: object) -> None:
        self.calls[payload] += 1

    async def note_and_yield(self, payload: object) -> object:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.calls[payload] += 1
        self.at_once -= 1
        return payload

    def check(self, number: int) -> None:
        assert self.calls == Counter(range(number)), "a job was left out, or ran twice"


# ------------------------------------------------------------------------------------------------ create


async def engine_create(number: int, *, callers: int) -> float:
    """Store jobs one by one, by so many callers at a time."""
    async with JobManager(run_jobs=False) as manager:

        async def create() -> None:
            for payload in range(number // callers):
                await manager.create_job("note", payload=payload)

        started = time.perf_counter()
        await asyncio.gather(*(create() for _ in range(callers)))
        seconds = time.perf_counter() - started
        assert await manager.count_jobs(status=JobStatus.PENDING) == number
    return number / seconds


async def engine_create_batch(number: int) -> float:
    """Store jobs a thousand at a time."""
    batches: list[list[BatchJob]] = [
        [{"name": "note", "payload": payload} for payload in range(at, at + 1000)] for at in range(0, number, 1000)
    ]
    async with JobManager(run_jobs=False) as manager:
        started = time.perf_counter()
        for batch in batches:
            await manager.create_job_batch(batch)
        seconds = time.perf_counter() - started
        assert await manager.count_jobs() == number
    return number / seconds


async def bare_create(number: int) -> float:
    """Make tasks that wait for a semaphore."""
    closed, work = asyncio.Semaphore(0), Work()
    started = time.perf_counter()
    tasks = [asyncio.create_task(_under(closed, work.note, payload)) for payload in range(number)]
    seconds = time.perf_counter() - started
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return number / seconds


# -------------------------------------------------------------------------------------------- throughput


async def engine_batch(number: int, *, limit: int, handler: str = "note") -> float:
    """Create a batch and wait until all of it is completed."""
    work = Work()
    async with JobManager(max_concurrent_jobs=limit) as manager:
        manager.register_handler("note", work.note)
        manager.register_handler("note_in_thread", work.note_in_thread)
        manager.register_handler("note_and_yield", work.note_and_yield)
        completed = _all_completed(manager, number)
        batch: list[BatchJob] = [{"name": handler, "payload": payload} for payload in range(number)]
        started = time.perf_counter()
        await manager.create_job_batch(batch, auto_start=True)
        await completed
        seconds = time.perf_counter() - started
        work.check(number)
        assert work.most_at_once <= limit
        assert await manager.count_jobs(status=JobStatus.COMPLETED) == number
    return number / seconds


async def bare_batch(number: int, *, limit: int, handler: str = "note") -> float:
    """Run as many tasks under a semaphore."""
    work, slots = Work(), asyncio.Semaphore(limit)
    function = work.note_and_yield if handler == "note_and_yield" else work.note
    started = time.perf_counter()
    await asyncio.gather(*(_under(slots, function, payload) for payload in range(number)))
    seconds = time.perf_counter() - started
    work.check(number)
    return number / seconds


async def bare_threads(number: int, *, limit: int) -> float:
    """Run as many functions in threads of an executor, under a semaphore."""
    work, slots = Work(), asyncio.Semaphore(limit)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(limit) as pool:

        async def call(payload: object) -> None:
            await loop.run_in_executor(pool, work.note_in_thread, payload)

        started = time.perf_counter()
        await asyncio.gather(*(_under(slots, call, payload) for payload in range(number)))
        seconds = time.perf_counter() - started
    work.check(number)
    return number / seconds


async def engine_run_job(number: int, *, callers: int) -> float:
    """Call `run_job` again and again, by so many callers at a time, each awaiting its results."""
    work = Work()
    async with JobManager(max_concurrent_jobs=100) as manager:
        manager.register_handler("note", work.note_and_yield)

        async def call(first: int) -> None:
            for payload in range(first, number, callers):
                assert await manager.run_job("note", payload=payload) == payload

        started = time.perf_counter()
        await asyncio.gather(*(call(first) for first in range(callers)))
        seconds = time.perf_counter() - started
    work.check(number)
    return number / seconds


async def bare_run(number: int, *, callers: int) -> float:
    """Make a task and await it, again and again."""
    work, slots = Work(), asyncio.Semaphore(100)

    async def call(first: int) -> None:
        for payload in range(first, number, callers):
            assert await asyncio.create_task(_under(slots, work.note_and_yield, payload)) == payload

    started = time.perf_counter()
    await asyncio.gather(*(call(first) for first in range(callers)))
    seconds = time.perf_counter() - started
    work.check(number)
    return number / seconds


# ----------------------------------------------------------------------------------------------- latency


async def engine_latency(number: int, *, percent: int) -> float:
    """From the call of `create_job` to the handler's first line, when nothing else is going on."""
    began: list[float] = []
    async with JobManager() as manager:

        async def note() -> None:
            began.append(time.perf_counter())

        manager.register_handler("note", note)
        asked = []
        for _ in range(number):
            await asyncio.sleep(0.001)
            asked.append(time.perf_counter())
            await manager.create_job("note", auto_start=True)
            await asyncio.sleep(0.001)
    return _percentile(asked, began, percent)


async def bare_latency(number: int, *, percent: int) -> float:
    """From the call of `create_task` to the coroutine's first line."""
    began: list[float] = []
    slots = asyncio.Semaphore(10)

    async def note(_payload: object) -> None:
        began.append(time.perf_counter())

    asked, tasks = [], []
    for _ in range(number):
        await asyncio.sleep(0.001)
        asked.append(time.perf_counter())
        tasks.append(asyncio.create_task(_under(slots, note, None)))
        await asyncio.sleep(0.001)
    return _percentile(asked, began, percent)


# ------------------------------------------------------------------------------------------------ fan-in


async def engine_fan_in(number: int) -> float:
    """Run jobs and one more that depends on all of them and adds up their results."""
    async with JobManager(max_concurrent_jobs=100) as manager:

        async def give(payload: object) -> object:
            return payload

        async def add(context: JobContext) -> int:
            return sum(context.dependency_results.values())

        manager.register_handler("give", give)
        manager.register_handler("add", add)
        batch: list[BatchJob] = [{"name": "give", "payload": payload} for payload in range(number)]
        batch.append({"name": "add", "dependencies": list(range(number))})
        started = time.perf_counter()
        _, jobs = await manager.create_job_batch(batch, auto_start=True)
        total = await manager.wait_for_job(jobs[-1].job_id)
        seconds = time.perf_counter() - started
    assert total.result == sum(range(number))
    return (number + 1) / seconds


async def bare_fan_in(number: int) -> float:
    """Gather the results of tasks, and add them up."""
    slots = asyncio.Semaphore(100)

    async def give(payload: object) -> object:
        return payload

    started = time.perf_counter()
    results = await asyncio.gather(*(_under(slots, give, payload) for payload in range(number)))
    total = sum(result for result in results if isinstance(result, int))
    seconds = time.perf_counter() - started
    assert total == sum(range(number))
    return (number + 1) / seconds


# ------------------------------------------------------------------------------------------------- parts


async def _under(slots: asyncio.Semaphore, function: Callable[[object], Awaitable[object]], payload: object) -> object:
    async with slots:
        return await function(payload)


def _all_completed(manager: JobManager, number: int) -> asyncio.Future[None]:
    """Make a future that is done when that many jobs have completed (or one has failed)."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = number

    def count(event: JobEvent) -> None:
        nonlocal left
        left -= 1
        if event.type is EventType.FAILED and not done.done():
            done.set_exception(AssertionError(f"job {event.job_id} failed: {event.job.error}"))
        elif left == 0 and not done.done():
            done.set_result(None)

    manager.events.subscribe(count, [EventType.COMPLETED, EventType.FAILED])
    return done


def _percentile(asked: list[float], began: list[float], percent: int) -> float:
    assert len(asked) == len(began), "a job was left out, or ran twice"
    microseconds = [(began_at - asked_at) * 1e6 for asked_at, began_at in zip(asked, began, strict=True)]
    assert min(microseconds) > 0
    return quantiles(microseconds, n=100, method="inclusive")[percent - 1]


def measurements(*, quick: bool) -> list[Measurement]:
    """List what is measured."""
    many, some, few = (1000, 500, 100) if quick else (10_000, 2000, 500)
    return [
        Measurement("create, 1 caller", "jobs/s", partial(engine_create, some, callers=1), partial(bare_create, some)),
        Measurement(
            "create, 100 callers", "jobs/s", partial(engine_create, many, callers=100), partial(bare_create, many)
        ),
        Measurement(
            "create, batches of 1,000", "jobs/s", partial(engine_create_batch, many), partial(bare_create, many)
        ),
        *(
            Measurement(
                f"batch of {many:,}, {limit} at once",
                "jobs/s",
                partial(engine_batch, many, limit=limit),
                partial(bare_batch, many, limit=limit),
            )
            for limit in (10, 100)
        ),
        Measurement(
            f"batch of {many:,}, 100 at once, awaiting",
            "jobs/s",
            partial(engine_batch, many, limit=100, handler="note_and_yield"),
            partial(bare_batch, many, limit=100, handler="note_and_yield"),
        ),
        *(
            Measurement(
                f"run_job, {callers} caller{'s' * (callers > 1)}",
                "jobs/s",
                partial(engine_run_job, some, callers=callers),
                partial(bare_run, some, callers=callers),
            )
            for callers in (1, 100)
        ),
        Measurement(
            "plain functions in threads, 10 at once",
            "jobs/s",
            partial(engine_batch, some, limit=10, handler="note_in_thread"),
            partial(bare_threads, some, limit=10),
        ),
        Measurement("fan-in of 1,000", "jobs/s", partial(engine_fan_in, 1000), partial(bare_fan_in, 1000)),
        *(
            Measurement(
                f"start when idle, {'median' if percent == 50 else f'{percent}th percentile'}",
                "us",
                partial(engine_latency, few, percent=percent),
                partial(bare_latency, few, percent=percent),
            )
            for percent in (50, 99)
        ),
    ]


async def measure(chosen: list[Measurement], repetitions: int, *, quiet: bool) -> list[Figures]:
    """Take each measurement so many times."""
    figures = [Figures(one.name, one.unit) for one in chosen]
    for repetition in range(repetitions):
        for one, its in zip(chosen, figures, strict=True):
            ways = [(one.engine, its.engine), (one.bare, its.bare)]
            for take, into in ways if repetition % 2 == 0 else reversed(ways):
                gc.collect()
                into.append(await take())
        if not quiet:
            print(f"\rrepetition {repetition + 1} of {repetitions}", end="", file=sys.stderr, flush=True)
    if not quiet:
        print(file=sys.stderr)
    return figures


def machine() -> str:
    """Say where this was measured."""
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, {platform.machine()}"
    )


def table(figures: list[Figures]) -> str:
    """Show the medians."""
    lines = [f"{'':42} {'engine':>12} {'bare asyncio':>14}  {'':6} {'ratio':>6}"]
    for its in figures:
        engine, bare, ratio = median(its.engine), median(its.bare), median(its.ratios)
        lines.append(f"{its.name:42} {engine:12,.0f} {bare:14,.0f}  {its.unit:6} {ratio:5.1f}x")
    return "\n".join(lines)


def as_json(figures: list[Figures]) -> str:
    """Give the medians and every measurement."""
    results = [
        {
            "name": its.name,
            "unit": its.unit,
            "engine": median(its.engine),
            "bare": median(its.bare),
            "ratio": median(its.ratios),
            "measured": {"engine": its.engine, "bare": its.bare},
        }
        for its in figures
    ]
    about = {"version": __version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    return json.dumps({**about, "results": results}, indent=2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and repetitions: a rough idea")
    parser.add_argument("--only", default="", metavar="TEXT", help="only measurements whose name contains this")
    parser.add_argument("--repetitions", type=int, metavar="N", help="how often (default: 5, quick: 2)")
    options = parser.parse_args()
    chosen = [one for one in measurements(quick=options.quick) if options.only in one.name]
    if not chosen:
        parser.error(f"no measurement's name contains {options.only!r}")
    repetitions = options.repetitions or (2 if options.quick else 5)
    figures = asyncio.run(measure(chosen, repetitions, quiet=options.json))
    if options.json:
        print(as_json(figures))
    else:
        print(f"openagents_json {__version__} on the memory store; {machine()}; medians of {repetitions}\n")
        print(table(figures))
        print("\nratio: how many times as quick bare asyncio is")


if __name__ == "__main__":
    main()
