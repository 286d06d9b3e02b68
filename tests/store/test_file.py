"""The file store keeps every rule of the contract, agrees with the model, and bears a manager on a bad line to it."""

import asyncio
import contextlib
import errno
import itertools
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from typing_extensions import override

from openagents_json.errors import DuplicateJobError, StoreUnavailableError
from openagents_json.job import AttemptOutcome, JobContext, JobManager, JobStatus, _runner, _scheduler
from openagents_json.job._changes import Change, Claim, Query, Result
from openagents_json.job._clock import Clock
from openagents_json.job._record import JobRecord
from openagents_json.job.retry import RetryPolicy
from openagents_json.job.storage import FileJobStore, JobStore, _journal
from openagents_json.testing import FaultyStore, JobStoreConformance, check_consistency
from openagents_json.testing.faulty import Fault
from openagents_json.testing.machine import store_machine

PROGRAMS = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

#: How long a test waits for something that must happen (seconds); only a failing test takes so long.
SOON = 30.0


class TestFileJobStore(JobStoreConformance):
    """Every rule of the contract."""

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path / "jobs"

    @override
    def make_store(self, clock: Clock) -> JobStore:
        return FileJobStore(self.directory, clock=clock)


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """Make a directory in memory, where there is such a disk: for programs of thousands of commits."""
    if not Path("/dev/shm").is_dir():  # noqa: S108 # a place for a directory of our own, made safely
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:  # the same
        yield Path(place)


@pytest.mark.timeout(300)
def test_file_store_agrees_with_the_model_wherever_it_is_opened_again(quick_disk: Path) -> None:
    numbers = itertools.count()

    def make(clock: Clock) -> JobStore:
        return FileJobStore(quick_disk / f"{next(numbers)}", clock=clock)

    async def open_again(store: JobStore, clock: Clock) -> JobStore:
        """Close and open it, or close it and open it elsewhere, in turns."""
        assert isinstance(store, FileJobStore)
        number, directory = next(numbers), store._directory.path
        await store.close()
        if number % 2 == 0:
            await store.open()
            return store
        copy = quick_disk / f"{number}"
        shutil.move(directory, copy)
        another = FileJobStore(copy, clock=clock)
        await another.open()
        assert another.set_aside == ()
        return another

    class Machine(store_machine(make, reopen=open_again)):  # type: ignore[misc] # made by a function
        @override
        def _check_history(self, record: JobRecord, now: datetime) -> None:
            # How many dependencies a job waited for when it was cancelled is not stored, and means nothing any more.
            before = self.seen.get(record.job_id)
            if before is not None and record.status.finished:
                record = record._replace(unmet=before.unmet)
            super()._check_history(record, now)

    run_state_machine_as_test(Machine, settings=PROGRAMS)


class TwiceTriedStore(FileJobStore):
    """A store on a disk on which every commit fails at first: it is cut off, and made again."""

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        with pytest.MonkeyPatch.context() as broken:
            broken.setattr(_journal, "flush", _fail_once(_journal.flush))
            with contextlib.suppress(StoreUnavailableError):
                return await super().apply(changes, claim=claim)  # there was nothing to be written
            return await super().apply(changes, claim=claim)


def _fail_once(flush: Callable[[int], None]) -> Callable[[int], None]:
    calls = itertools.count()

    def failing(descriptor: int) -> None:
        if next(calls) == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    return failing


def test_commits_that_fail_at_first_leave_no_trace(quick_disk: Path) -> None:
    numbers = itertools.count()

    def make(clock: Clock) -> JobStore:
        return TwiceTriedStore(quick_disk / f"{next(numbers)}", clock=clock)

    run_state_machine_as_test(store_machine(make), settings=settings(PROGRAMS, max_examples=30))


async def create_until_stored(manager: JobManager, job_id: str, parents: list[str]) -> None:
    """Create a job over the bad line, as a careful caller does: under an id of its own, until it is there."""
    while True:
        try:
            await manager.create_job(
                "work", job_id=job_id, dependencies=parents, auto_start=True, max_retries=50, retry_delay=0.01
            )
        except StoreUnavailableError:
            continue
        except DuplicateJobError:
            pass
        return


@pytest.mark.parametrize("seed", range(4))
async def test_manager_on_a_bad_line_to_its_files_loses_nothing_and_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for module in (_runner, _scheduler):
        monkeypatch.setattr(module, "BACKOFF", RetryPolicy.exponential(0.002, max_delay=0.05, jitter=0.5))
    chance = random.Random(seed)
    store = FileJobStore(tmp_path / "jobs")
    faulty = FaultyStore(store, seed=seed, fail_before=0.08, fail_after=0.08, slow=0.1, hang=0.02, limit=0.05)
    faulty.calm()
    succeeded: Counter[str] = Counter()
    depth: dict[str, int] = {}
    async with JobManager(faulty, max_concurrent_jobs=8, retention_days=None) as manager:

        @manager.handler
        async def work(context: JobContext) -> int:
            if chance.random() < 0.2:
                msg = "bad luck"
                raise ValueError(msg)
            succeeded[context.job_id] += 1
            return 1 + max(context.dependency_results.values(), default=0)

        faulty.erratic()
        for number in range(80):
            parents = [f"j{parent}" for parent in chance.sample(range(number), min(number, chance.randrange(4)))]
            await create_until_stored(manager, f"j{number}", parents)
            depth[f"j{number}"] = 1 + max((depth[parent] for parent in parents), default=0)
        async with JobManager(store, run_jobs=False) as viewer:
            for job_id in depth:
                await viewer.wait_for_job(job_id, timeout=SOON)
        await check_consistency(store)
        before = await store.find(Query())
        shutil.copytree(tmp_path / "jobs", tmp_path / "left behind")

    for directory in ("jobs", "left behind"):
        async with JobManager(FileJobStore(tmp_path / directory), run_jobs=False) as manager:
            jobs = await manager.list_jobs()
            assert {job.job_id: job.result for job in jobs} == depth
            for job in jobs:
                outcomes = Counter(attempt.outcome for attempt in job.attempts)
                assert job.status is JobStatus.COMPLETED
                assert outcomes[AttemptOutcome.COMPLETED] == 1
                assert outcomes[AttemptOutcome.FAILED] == job.retry_count
                assert len(job.attempts) == job.attempt
            assert await manager.job_store.find(Query()) == before
    assert set(succeeded.values()) == {1}, "each was done just once: nobody died"
    assert min(faulty.counts[fault] for fault in Fault if fault is not Fault.OUTAGE) > 0


async def test_outages_come_and_go_and_every_job_in_files_completes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_runner, _scheduler):
        monkeypatch.setattr(module, "BACKOFF", RetryPolicy.exponential(0.002, max_delay=0.02, jitter=0.5))
    faulty = FaultyStore(FileJobStore(tmp_path / "jobs"), seed=7, fail_before=0.1, fail_after=0.1)
    faulty.calm()
    ran: Counter[str] = Counter()
    async with JobManager(faulty, max_concurrent_jobs=5) as manager:

        @manager.handler
        async def work(context: JobContext) -> None:
            ran[context.job_id] += 1
            if len(ran) % 10 == 0:
                faulty.outage()
                asyncio.get_running_loop().call_later(0.05, faulty.erratic)

        _, jobs = await manager.create_job_batch([{"name": "work"} for _ in range(60)], auto_start=True)
        for job in jobs:
            while True:
                try:
                    assert (await manager.wait_for_job(job.job_id, timeout=SOON)).attempt == 1
                except StoreUnavailableError:
                    continue
                break
        faulty.calm()
    assert set(ran.values()) == {1}
    assert faulty.counts[Fault.OUTAGE] > 0
