"""How often the disk is waited for, and in which order things reach it."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from openagents_json.job import JobManager
from openagents_json.job._changes import Pause
from openagents_json.job.storage import FileJobStore, _directory, _jobfiles, _journal, file
from openagents_json.job.storage._table import Table
from openagents_json.testing import ManualClock, a_job
from openagents_json.testing.clock import START
from tests.files._tools import opened, segments, soon_at_rest, soon_written

#: What waits for the disk.
FLUSHES = ("flush", "sync_directory", "sync_file_system")
#: What changes files.
WRITES = ("write", "publish", "drop")


class Log:
    """What was done to the disk, in order: the names of the functions, and of the files they were about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        for home in (_journal, _jobfiles, _directory):
            for name in (*FLUSHES, *WRITES):
                if hasattr(home, name):
                    monkeypatch.setattr(home, name, self._noted(name, getattr(home, name)))
        monkeypatch.setattr(Table, "install", self._noted("install", Table.install))
        monkeypatch.setattr(Path, "replace", self._noted("replace", Path.replace))

    @property
    def flushes(self) -> int:
        """How often the disk was waited for."""
        return sum(line.split()[0] in FLUSHES for line in self.done)

    def _noted(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def noted(*arguments: object) -> object:
            about = arguments[-1] if name == "replace" else arguments[0]
            if isinstance(about, int):
                about = Path(f"/proc/self/fd/{about}").readlink()
            self.done.append(f"{name} {about.name}" if isinstance(about, Path) else name)
            return function(*arguments)

        return noted


async def test_a_job_alone_costs_three_flushes(any_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with JobManager(FileJobStore(any_directory, clock=ManualClock())) as manager:
        manager.register_handler("one", lambda: 1)
        await manager.run_job("one")
        log = Log(monkeypatch)
        for _ in range(20):
            log.done.clear()
            job = await manager.create_job("one", auto_start=True)
            await manager.wait_for_job(job.job_id)
            assert log.flushes <= 3
        log.done.clear()
        job = await manager.create_job("one")
        await manager.start_job(job.job_id)
        await manager.wait_for_job(job.job_id)
        assert log.flushes <= 4, "starting it is one more commit"


async def test_under_load_a_flush_is_shared_by_many_jobs(any_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 500
    async with JobManager(FileJobStore(any_directory), max_concurrent_jobs=100) as manager:

        async def one() -> int:
            return 1

        manager.register_handler("one", one)
        log = Log(monkeypatch)
        assert await asyncio.gather(*(manager.run_job("one") for _ in range(number))) == [1] * number
        assert log.flushes < 0.2 * number


async def test_writing_job_files_costs_as_many_flushes_for_a_thousand_as_for_one(
    any_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(any_directory) as driver:
        counts = []
        for number in (1, 1000):
            await driver.add(*(a_job(f"job-{number}-{index}") for index in range(number)))
            with monkeypatch.context() as patched:
                log = Log(patched)
                await soon_written(driver)
            assert Counter(line.split()[0] for line in log.done)["publish"] == number
            counts.append(log.flushes)
        assert counts[0] == counts[1] <= 5


async def test_reading_costs_no_flush(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(directory) as driver, opened(directory, read_only=True) as reader:
        await driver.add(a_job("job"))
        log = Log(monkeypatch)
        await driver.job("job")
        await reader.job("job")
        assert log.done == []


async def test_a_commit_is_flushed_before_anybody_sees_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(directory) as driver:
        log = Log(monkeypatch)
        await driver.add(a_job("job"))
        assert log.done == ["write 0000000001.log", "flush 0000000001.log", "install"]


async def test_files_reach_the_disk_in_the_order_that_survives_a_loss_of_power(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        log = Log(monkeypatch)
        await soon_written(driver)
        assert log.done == [
            "sync_directory journal",  # with the next segment, before anything counts on it
            "publish job.json",
            "replace job.json",
            "sync_file_system jobs",  # with every job file, before the journal forgets
            "write start.tmp",
            "flush start.tmp",
            "replace start",
            "sync_directory journal",
            "drop 0000000001.log",
        ]
        log.done.clear()
        await driver.do(Pause("job"))
        assert log.done[0] == "write 0000000002.log"


async def test_a_new_directory_is_on_the_disk_before_its_first_job(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(monkeypatch)
    async with opened(directory):
        opening = list(log.done)
    assert opening.index(f"sync_directory {directory.name}") < opening.index("sync_file_system jobs")
    assert "sync_directory journal" in opening


async def test_the_job_files_are_written_when_the_journal_is_old(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as driver:
        log = Log(monkeypatch)
        await driver.add(a_job("job"))
        driver.clock.advance(1.9)
        await driver.do(Pause("job"))
        await soon_at_rest()
        assert "publish job.json" not in log.done
        driver.clock.advance(0.1)
        await soon_at_rest()
        assert log.done.count("publish job.json") == 1
        driver.clock.advance(100.0)
        await soon_at_rest()
        assert log.done.count("publish job.json") == 1, "there is nothing new"


async def test_the_job_files_are_written_when_the_journal_is_long(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "_SEGMENT_SIZE", 20_000)
    async with opened(directory) as driver:
        for number in range(200):
            await driver.add(a_job(f"job-{number}"))
        await soon_at_rest()
        assert len(segments(directory)) <= 2
        assert len(list((directory / "jobs").iterdir())) > 100
        assert driver.clock.now() == START, "no time has passed"
