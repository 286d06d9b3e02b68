"""Opening, closing, cancelling, event loops that end, and two things at once: the files stay whole, and are let go."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openagents_json.errors import ConfigurationError, StoreClosedError
from openagents_json.job import JobManager, JobStatus
from openagents_json.job._changes import Pause, Query
from openagents_json.job.storage import FileJobStore, _jobfiles, _journal, file
from openagents_json.job.storage._directory import JobDirectory
from openagents_json.testing import ManualClock, a_job, adding
from tests.files._tools import (
    A_WHILE,
    SOON,
    all_jobs,
    document,
    job_file,
    jobs_in,
    opened,
    segments,
    soon_at_rest,
    soon_written,
    store_of,
)


class Held:
    """A function that is held when it is called, in its thread, until it is let go.

    Attributes:
        begun: set when it was called, and is held.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: object, name: str) -> None:
        self.begun = asyncio.Event()
        self.calls = 0
        self._go = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._function: Callable[..., object] = getattr(home, name)
        monkeypatch.setattr(home, name, self._as_function())

    def _as_function(self) -> Callable[..., object]:
        """Give a function, not a bound method: it may become a method of a class."""

        def call(*arguments: object) -> object:
            return self._call(*arguments)

        return call

    def let_go(self) -> None:
        """Let it, and all later calls, go on."""
        self._go.set()

    def _call(self, *arguments: object) -> object:
        self.calls += 1
        if not self._go.is_set():
            self._loop.call_soon_threadsafe(self.begun.set)
            assert self._go.wait(SOON)
        return self._function(*arguments)


# ------------------------------------------------------------------------------------------- two at a time


async def test_job_files_that_take_long_are_not_outrun_by_later_ones(
    any_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The segments that a later writing drops may be all there is of the jobs of an earlier one."""
    async with opened(any_directory) as driver:
        await driver.add(a_job("early"), a_job("both"))
        publish = _jobfiles.publish
        held = Held(monkeypatch, _jobfiles, "publish")
        driver.clock.advance(A_WHILE)
        await held.begun.wait()
        await driver.do(Pause("both"))
        await driver.add(a_job("late"))
        driver.clock.advance(A_WHILE)
        await asyncio.sleep(0)
        before = await all_jobs(store_of(driver))
        with monkeypatch.context() as patched:
            patched.setattr(_jobfiles, "publish", publish)  # for the copy, where nothing is to be held
            for _ in range(3):
                assert await jobs_in(any_directory) == before
        held.let_go()
        await soon_at_rest()
        assert await all_jobs(store_of(driver)) == before
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == before


async def test_commits_do_not_wait_for_job_files(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        held = Held(monkeypatch, _jobfiles, "publish")
        driver.clock.advance(A_WHILE)
        await held.begun.wait()
        for number in range(5):
            await driver.add(a_job(f"job-{number}"))
        assert await driver.store.count(Query()) == 6
        held.let_go()


async def test_a_job_that_changes_while_its_file_is_written_is_written_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        held = Held(monkeypatch, _jobfiles, "publish")
        driver.clock.advance(A_WHILE)
        await held.begun.wait()
        await driver.do(Pause("job"))
        held.let_go()
        await soon_at_rest()
        assert document(directory, "job")["status"] == "pending"
        assert (await jobs_in(directory))["job"].status is JobStatus.PAUSED
        await soon_written(driver)
        assert document(directory, "job")["status"] == "paused"


async def test_many_callers_at_once_are_all_served(any_directory: Path) -> None:
    async with opened(any_directory) as driver:
        changes = (driver.store.apply([adding(a_job(f"job-{number}"))]) for number in range(50))
        await asyncio.gather(*changes, *(driver.store.get(["job-1"]) for _ in range(10)))
        before = await all_jobs(store_of(driver))
        assert len(before) == 50
        assert await jobs_in(any_directory) == before


# --------------------------------------------------------------------------------------------- cancelled


async def test_a_caller_who_is_cancelled_does_not_stop_the_commit(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as driver:
        held = Held(monkeypatch, _journal, "flush")
        caller = asyncio.create_task(driver.add(a_job("job")))
        await held.begun.wait()
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await driver.store.count(Query()) == 0
        told = asyncio.Event()
        driver.store.listen(lambda wakeup: told.set())
        held.let_go()
        async with asyncio.timeout(SOON):
            await told.wait()
        assert await driver.store.count(Query()) == 1
        await driver.add(a_job("next"))
        assert set(await jobs_in(directory)) == set(await all_jobs(store_of(driver))) == {"job", "next"}


@pytest.mark.parametrize("step", ["acquire", "load", "begin_segment"])
async def test_a_cancelled_opening_holds_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
    store = FileJobStore(directory)
    with monkeypatch.context() as patched:
        held = Held(patched, _journal.Journal if step == "begin_segment" else JobDirectory, step)
        opening = asyncio.create_task(store.open())
        await held.begun.wait()
        opening.cancel()
        asyncio.get_running_loop().call_soon(held.let_go)
        threading.Timer(0.05, held.let_go).start()
        with pytest.raises(asyncio.CancelledError):
            await opening
    with pytest.raises(StoreClosedError):
        await store.get(["job"])
    async with opened(directory) as driver:
        assert set(await all_jobs(store_of(driver))) == {"job"}
    await store.open()
    await store.close()


@pytest.mark.parametrize("step", ["publish", "sync_file_system"])
async def test_a_cancelled_closing_lets_go_once_the_files_are_at_rest(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    store = FileJobStore(directory)
    await store.open()
    await store.apply([adding(a_job("job"))])
    with monkeypatch.context() as patched:
        held = Held(patched, _jobfiles, step)
        closing = asyncio.create_task(store.close())
        await held.begun.wait()
        closing.cancel()
        threading.Timer(0.05, held.let_go).start()
        with pytest.raises(asyncio.CancelledError):
            await closing
    async with opened(directory) as driver:
        assert set(await all_jobs(store_of(driver))) == {"job"}
        assert not list((directory / "jobs").glob("*.tmp"))


# ------------------------------------------------------------------------------------------------- closed


async def test_closing_waits_for_what_is_under_way_and_writes_all_job_files(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    store = FileJobStore(directory, clock=clock)
    await store.open()
    held = Held(monkeypatch, _journal, "flush")
    caller = asyncio.create_task(store.apply([adding(a_job("job"))]))
    await held.begun.wait()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreClosedError):
        await store.apply([adding(a_job("late"))])
    held.let_go()
    await asyncio.gather(caller, closing)
    assert job_file(directory, "job").exists()
    assert clock.pending == 0, "no timer is left behind"
    assert [path.stat().st_size for path in segments(directory)] == [0]


async def test_a_closed_store_refuses_everything_and_can_be_opened_again(directory: Path) -> None:
    store = FileJobStore(directory)
    calls: list[Callable[[], object]] = [
        lambda: store.apply([]),
        lambda: store.get([]),
        lambda: store.find(Query()),
        lambda: store.beat("x"),
    ]
    for _ in range(3):
        for call in calls:
            with pytest.raises(StoreClosedError):
                await call()  # type: ignore[misc]
        await store.open()
        await store.apply([adding(a_job(f"job-{await store.count(Query())}"))])
        await store.close()
    async with opened(directory) as driver:
        assert set(await all_jobs(store_of(driver))) == {"job-0", "job-1", "job-2"}


async def test_a_store_opened_anew_reads_what_others_wrote_meanwhile(directory: Path) -> None:
    store = FileJobStore(directory)
    await store.open()
    await store.apply([adding(a_job("mine"), a_job("ours"))])
    await store.close()
    async with opened(directory) as driver:
        await driver.add(a_job("theirs"))
        await driver.do(Pause("ours"))
        after = await all_jobs(store_of(driver))
    await store.open()
    assert await all_jobs(store) == after
    await store.close()


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="storage_dir"):
        FileJobStore("")


def test_the_directory_and_the_number_of_jobs_are_shown(directory: Path) -> None:
    assert repr(FileJobStore(directory)) == f"FileJobStore({str(directory)!r}, 0 jobs)"


# -------------------------------------------------------------------------------------------- event loops


@pytest.fixture
def quick_job_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_SEGMENT_AGE", 0.01)


@pytest.mark.usefixtures("quick_job_files")
def test_a_manager_left_behind_by_its_event_loop_goes_on_in_the_next(directory: Path) -> None:
    manager = JobManager(FileJobStore(directory), retention_days=None)

    @manager.handler
    async def one(payload: int) -> int:
        await asyncio.sleep(0)
        return payload

    @manager.handler
    async def endless() -> None:
        await asyncio.Event().wait()

    async def use(first: int) -> list[int]:
        results = await asyncio.gather(*(manager.run_job("one", payload=first + number) for number in range(50)))
        await manager.create_job("endless", job_id=f"endless-{first}", auto_start=True)
        return results

    for first in (0, 100, 200):
        assert asyncio.run(use(first)) == list(range(first, first + 50))

    async def look() -> None:
        async with opened(directory, read_only=True) as reader:
            assert await reader.store.count(Query(statuses=frozenset({JobStatus.COMPLETED}))) == 150
        assert {job.job_id for job in await manager.list_jobs(name="endless")} == {
            "endless-0",
            "endless-100",
            "endless-200",
        }
        await manager.stop(timeout=0)
        async with opened(directory) as driver:  # nobody holds it any more
            assert await driver.store.count(Query()) == 153

    asyncio.run(look())


def test_job_files_are_written_in_every_event_loop(directory: Path) -> None:
    store = FileJobStore(directory)

    async def use(number: int) -> None:
        if number == 0:
            await store.open()
        written = asyncio.Event()
        loop = asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(file, "_SEGMENT_AGE", 0.001)
            drop = _journal.drop
            patched.setattr(_journal, "drop", lambda path: (drop(path), loop.call_soon_threadsafe(written.set)))
            await store.apply([adding(a_job(f"job-{number}"))])
            async with asyncio.timeout(SOON):
                await written.wait()
            await soon_at_rest()
        assert job_file(directory, f"job-{number}").exists()
        await store.apply([adding(a_job(f"left-{number}"))])  # whose timer this event loop never comes to
        if number == 2:
            await store.close()

    for number in range(3):
        asyncio.run(use(number))
    assert len(list((directory / "jobs").iterdir())) == 6


def test_a_commit_under_way_when_the_event_loop_ends_is_known_in_the_next(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileJobStore(directory)
    holding: list[Held] = []

    async def begin() -> None:
        await store.open()
        await store.apply([adding(a_job("first"))])
        holding.append(Held(monkeypatch, _journal, "flush"))
        caller = asyncio.create_task(store.apply([adding(a_job("under way"))]))
        await holding[0].begun.wait()
        assert not caller.done()

    async def go_on() -> None:
        holding[0].let_go()
        await store.apply([Pause("first")])
        jobs = await all_jobs(store)
        assert set(jobs) == {"first", "under way"}
        assert jobs["first"].status is JobStatus.PAUSED
        assert await jobs_in(directory) == jobs
        await store.close()

    asyncio.run(begin())
    asyncio.run(go_on())


def test_job_files_under_way_when_the_event_loop_ends_are_not_forgotten(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    store = FileJobStore(directory, clock=clock)
    holding: list[Held] = []

    async def begin() -> None:
        await store.open()
        await store.apply([adding(a_job("a"), a_job("b"))])
        holding.append(Held(monkeypatch, _jobfiles, "publish"))
        clock.advance(A_WHILE)
        await holding[0].begun.wait()

    async def go_on() -> None:
        await store.apply([Pause("a")])
        holding[0].let_go()
        clock.advance(A_WHILE)
        await soon_at_rest()
        before = await all_jobs(store)
        assert await jobs_in(directory) == before
        assert document(directory, "a")["status"] == "paused"
        await store.close()

    asyncio.run(begin())
    asyncio.run(go_on())


#: A program that uses a manager and forgets to stop it.
FORGETFUL = """
import asyncio, sys
from openagents_json.job import JobManager
from openagents_json.job.storage import FileJobStore

async def main():
    manager = JobManager(FileJobStore(sys.argv[1]))
    manager.register_handler("one", lambda: 1)
    print(await manager.run_job("one"))

asyncio.run(main())
"""


async def test_a_program_that_forgets_to_stop_ends_and_loses_nothing(directory: Path) -> None:
    for number in range(1, 3):
        command = [sys.executable, "-c", FORGETFUL, str(directory)]
        assert await asyncio.to_thread(subprocess.check_output, command, text=True, timeout=SOON) == "1\n"
        async with opened(directory, read_only=True) as reader:
            assert await reader.store.count(Query(statuses=frozenset({JobStatus.COMPLETED}))) == number


def threads() -> Iterator[threading.Thread]:
    return (thread for thread in threading.enumerate() if thread.name.startswith("openagents-files"))


async def test_a_store_that_is_open_needs_two_threads_at_most(directory: Path) -> None:
    async with opened(directory) as driver:
        await asyncio.gather(*(driver.store.apply([adding(a_job(f"job-{number}"))]) for number in range(20)))
        await soon_written(driver)
        assert len(list(threads())) <= 2
