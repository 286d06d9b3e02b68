"""Opened for reading, a store shows what another process writes, whole states only, and touches nothing."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from openagents_json.errors import StoreError, StoreReadOnlyError, StoreUnavailableError
from openagents_json.job import JobManager
from openagents_json.job._changes import Cancel, Change, Delete, Pause, Query
from openagents_json.job._record import JobRecord
from openagents_json.job.model import JobStatus
from openagents_json.job.storage import FileJobStore, _directory, _journal
from openagents_json.job.storage._jobfiles import JobFiles
from openagents_json.testing import ManualClock, a_claim, a_job, adding
from tests.files import _writer
from tests.files._tools import (
    SOON,
    all_jobs,
    contents,
    is_there,
    move,
    opened,
    segments,
    soon_written,
    store_of,
)

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def busy_writer(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that moves tokens between jobs, until its standard input is closed."""
    command = [sys.executable, "-m", "tests.files._writer", str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def check_tokens(jobs: dict[str, JobRecord]) -> None:
    """Check what is true of all the jobs together at every moment."""
    held = [job.progress for job in jobs.values() if job.lease is not None]
    assert len(held) == _writer.HOLDERS
    assert round(sum(held) * 100) == _writer.TOKENS
    statuses = [job.status for job in jobs.values()]
    assert statuses.count(JobStatus.PAUSED) == _writer.PAUSED
    assert statuses.count(JobStatus.CANCELLED) == _writer.FINISHED
    assert len(jobs) == _writer.ALL


def check_no_going_back(before: dict[str, JobRecord], after: dict[str, JobRecord]) -> None:
    """Check that no job is in an earlier state than it was seen in before."""
    for job_id in before.keys() & after.keys():
        assert after[job_id].version >= before[job_id].version


async def test_readers_see_whole_states_only_while_segments_are_dropped(any_directory: Path) -> None:
    looks, dropped = 0, set[str]()
    with busy_writer(any_directory) as writer:
        before: dict[str, JobRecord] = {}
        while looks < 300 or len(dropped) < 20:
            async with opened(any_directory, read_only=True) as driver:
                for _ in range(30):
                    jobs = await all_jobs(store_of(driver))
                    check_tokens(jobs)
                    check_no_going_back(before, jobs)
                    before = jobs
                    dropped |= {path.name for path in segments(any_directory)}
                    looks += 1
                assert store_of(driver).set_aside == ()
        async with opened(any_directory, read_only=True) as driver:
            _, left = await asyncio.to_thread(writer.communicate)
            assert writer.returncode == 0, left
            last = await all_jobs(store_of(driver))
    check_tokens(last)
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == last


async def test_a_reader_refuses_every_change(any_directory: Path) -> None:
    async with opened(any_directory) as driver:
        await driver.add(a_job("job"))
    before = contents(any_directory)
    refused: list[list[Change]] = [[], [Pause("job")], [adding(a_job("another"))], [Delete("job"), Cancel("job", "")]]
    async with opened(any_directory, read_only=True) as driver:
        for changes in refused:
            with pytest.raises(StoreReadOnlyError, match="opened for reading"):
                await driver.store.apply(changes)
        with pytest.raises(StoreReadOnlyError):
            await driver.store.apply([], claim=a_claim(1))
        assert await driver.status("job") is JobStatus.PENDING
        assert not driver.store.traits.pushes
    assert contents(any_directory) == before


async def test_a_manager_on_a_reader_shows_jobs_and_refuses_to_make_any(directory: Path) -> None:
    async with JobManager(FileJobStore(directory)) as writing:
        writing.register_handler("two", lambda: 2)
        async with JobManager(FileJobStore(directory, read_only=True), run_jobs=False) as reading:
            job = await writing.create_job("two")
            assert await reading.get_job(job.job_id) == job
            waiting = asyncio.create_task(reading.wait_for_job(job.job_id, timeout=SOON))
            await writing.start_job(job.job_id)
            assert (await waiting).result == 2
            for refused in (reading.create_job("two"), reading.retry_job(job.job_id), reading.delete_job(job.job_id)):
                with pytest.raises(StoreReadOnlyError):
                    await refused


async def test_a_reader_reads_only_what_is_new(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(directory) as driver, opened(directory, read_only=True) as reader:
        await driver.add(a_job("first"))
        monkeypatch.setattr(JobFiles, "read", lambda _: pytest.fail("all job files are read again"))
        read: list[bytes] = []
        record_at = _journal._record_at

        def noted(data: bytes, position: int) -> bytes | None:
            record = record_at(data, position)
            assert record is not None
            read.append(record)
            return record

        monkeypatch.setattr(_journal, "_record_at", noted)
        for number in range(5):
            await driver.add(a_job(f"job-{number}"))
            assert f"job-{number}" in await all_jobs(store_of(reader))
            read.clear()
            assert f"job-{number}" in await all_jobs(store_of(reader))
            assert read == [], "nothing is new"


async def test_a_reader_beside_a_writer_sees_each_commit_at_once(any_directory: Path) -> None:
    async with opened(any_directory) as driver, opened(any_directory, read_only=True) as reader:
        for number in range(20):
            await driver.add(a_job(f"job-{number}"))
            if number % 4 == 3:
                await soon_written(driver)
            if number % 5 == 4:
                await driver.do(Cancel(f"job-{number}", ""))
                await driver.do(Delete(f"job-{number}"))
            elif number % 3 == 1:
                await driver.complete(f"job-{number}", result=b"[1]")
            assert await all_jobs(store_of(reader)) == await all_jobs(store_of(driver))
            assert await reader.store.count(Query()) == await driver.store.count(Query())
            assert await reader.store.get(["job-0", "x"]) == await driver.store.get(["job-0", "x"])


async def test_a_reader_needs_no_writer_and_outlives_several(directory: Path) -> None:
    clock = ManualClock()
    async with opened(directory, clock=clock) as driver:
        await driver.add(a_job("first"))
    async with opened(directory, read_only=True) as reader:
        assert set(await all_jobs(store_of(reader))) == {"first"}
        for name in ("second", "third"):
            async with opened(directory, clock=clock) as driver:
                await driver.add(a_job(name))
                assert name in await all_jobs(store_of(reader))
        assert set(await all_jobs(store_of(reader))) == {"first", "second", "third"}


async def test_a_reader_told_to_read_where_nothing_is_says_so(place: Path) -> None:
    for missing in (place / "missing", place):
        with pytest.raises(StoreError, match=r"there are no jobs in .* to be read") as caught:
            await FileJobStore(missing, read_only=True).open()
        assert str(missing) in str(caught.value)
    assert contents(place) == {}
    assert not is_there(place / "missing"), "a reader makes nothing"


async def test_a_reader_whose_directory_vanishes_says_so_and_goes_on_when_it_is_back(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
    async with opened(directory, read_only=True) as reader:
        move(directory, directory.with_name("moved"))
        with pytest.raises(StoreUnavailableError, match="cannot be read: No such file or directory"):
            await all_jobs(store_of(reader))
        move(directory.with_name("moved"), directory)
        assert set(await all_jobs(store_of(reader))) == {"job"}


async def test_a_reader_leaves_damaged_and_unfinished_files_where_they_are(any_directory: Path) -> None:
    async with opened(any_directory) as driver:
        await driver.add(a_job("job"))
    (any_directory / "jobs" / "broken.json").write_text("{", encoding="utf-8")
    (any_directory / "jobs" / "other.json.tmp").write_text("{", encoding="utf-8")
    (any_directory / "journal" / "0000000009.log").write_bytes(b"rubbish\n")
    before = contents(any_directory)
    async with opened(any_directory, read_only=True) as reader:
        assert set(await all_jobs(store_of(reader))) == {"job"}
        found = store_of(reader).set_aside
    assert [item.path.name for item in found] == ["broken.json", "0000000009.log"]
    assert contents(any_directory) == before
    assert not (any_directory / "quarantine").exists()


async def test_a_cancelled_look_misses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(directory) as driver, opened(directory, read_only=True) as reader:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        news = _directory.JobDirectory.news

        def noted(self: _directory.JobDirectory) -> dict[str, JobRecord | None] | None:
            told = news(self)
            loop.call_soon_threadsafe(begun.set)
            return told

        await driver.add(a_job("job"))
        with monkeypatch.context() as patched:
            patched.setattr(_directory.JobDirectory, "news", noted)
            look = asyncio.create_task(all_jobs(store_of(reader)))
            await begun.wait()
            look.cancel()
            await asyncio.wait({look})
        assert set(await all_jobs(store_of(reader))) == {"job"}
        await driver.add(a_job("next"))
        assert set(await all_jobs(store_of(reader))) == {"job", "next"}


async def test_a_slow_reader_is_waited_for_with_the_dropping_of_segments(
    any_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to read all the files, and however busy the writer is: once is enough."""
    async with opened(any_directory) as driver:
        await driver.add(*(a_job(f"job-{number}") for number in range(5)))
        await soon_written(driver)
        loop, begun, go, readings = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), list[str]()
        read = JobFiles.read

        def slow(self: JobFiles) -> Iterator[JobRecord]:
            readings.append("one")
            for number, job in enumerate(read(self)):
                if number == 2:
                    loop.call_soon_threadsafe(begun.set)
                    assert go.wait(SOON)
                yield job

        monkeypatch.setattr(JobFiles, "read", slow)
        reader = FileJobStore(any_directory, read_only=True, clock=driver.clock)
        opening = asyncio.create_task(reader.open())
        await begun.wait()
        for number in range(5):
            await driver.do(Pause(f"job-{number}"))
            await soon_written(driver)
            assert len(segments(any_directory)) > number + 1, "what the reader needs is kept"
        go.set()
        await opening
        assert readings == ["one"]
        assert await all_jobs(reader) == await all_jobs(store_of(driver))
        await driver.do(Cancel("job-0", ""))
        await soon_written(driver)
        assert len(segments(any_directory)) == 1
        assert await all_jobs(reader) == await all_jobs(store_of(driver))
        await reader.close()


async def test_a_reader_gives_up_on_files_that_never_come_to_rest(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        looks: list[list[int]] = []

        def other(self: _journal.Journal) -> list[int]:
            looks.append([])
            return [len(looks)]

        monkeypatch.setattr(_journal.Journal, "segments", other)
        monkeypatch.setattr(_journal.Journal, "read", lambda *_: ([], _journal.Mark()))
        with pytest.raises(StoreUnavailableError, match="change faster than they can be read"):
            await FileJobStore(directory, read_only=True).open()
        monkeypatch.undo()


async def test_a_reader_forgets_what_was_written_and_not_acknowledged(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk fails in the middle of a commit that a reader has seen already."""
    async with opened(directory) as driver, opened(directory, read_only=True) as reader:
        await driver.add(a_job("job"))
        flush, seen, loop = _journal.flush, list[set[str]](), asyncio.get_running_loop()

        def failing_after_a_look(descriptor: int) -> None:
            if not seen:
                looked = asyncio.run_coroutine_threadsafe(all_jobs(store_of(reader)), loop)
                seen.append(set(looked.result(SOON)))
                raise OSError(5, "Input/output error")
            flush(descriptor)

        monkeypatch.setattr(_journal, "flush", failing_after_a_look)
        with pytest.raises(StoreUnavailableError):
            await driver.add(a_job("refused"))
        assert seen == [{"job", "refused"}]
        await driver.add(a_job("allowed"))  # as long as the one that was cut off
        assert await all_jobs(store_of(reader)) == await all_jobs(store_of(driver))
        assert store_of(reader).set_aside == ()
        await driver.do(Pause("job"))
        assert await all_jobs(store_of(reader)) == await all_jobs(store_of(driver))
