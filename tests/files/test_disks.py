"""Disks that fill up, fail, or vanish: a clear error, the old state whole, and work goes on when the cause is gone."""

import asyncio
import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from openagents_json.errors import StoreError, StoreUnavailableError
from openagents_json.job import JobManager, JobStatus
from openagents_json.job._changes import Cancel, Delete, Finish, Pause, Resume
from openagents_json.job._record import JobRecord
from openagents_json.job.model import AttemptOutcome
from openagents_json.job.storage import FileJobStore, _directory, _jobfiles, _journal
from openagents_json.testing import StoreDriver, a_job, adding
from openagents_json.testing.builders import BOOM
from tests.files._tools import (
    SOON,
    all_jobs,
    contents,
    document,
    is_there,
    job_file,
    jobs_in,
    make,
    move,
    opened,
    segments,
    soon_written,
    store_of,
)

#: The most a small disk holds (bytes).
SMALL = 400 * 1024


class Disk:
    """A small disk that a test fills up.

    Attributes:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, but: int = 0) -> None:
        """Leave just that many bytes free, or fewer."""
        self.free()
        with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        left = self._ballast.stat().st_size - but
        os.truncate(self._ballast, left // 4096 * 4096)

    def free(self) -> None:
        """Make room again."""
        self._ballast.unlink(missing_ok=True)


def call(program: str, *arguments: str | Path) -> None:
    """Call a program of the system's."""
    found = shutil.which(program)
    if found is None:
        raise FileNotFoundError(program)
    subprocess.run([found, *arguments], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Mount a small disk."""
    place = tmp_path / "small disk"
    place.mkdir()
    try:
        call("mount", "-t", "tmpfs", "-o", f"size={SMALL}", "openagents-tests", place)
    except (OSError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"a small disk cannot be mounted here ({exc}); the tests that pretend one run all the same")
    yield Disk(place)
    call("umount", place)


async def check_whole(driver: StoreDriver, before: dict[str, JobRecord], elsewhere: Path) -> None:
    """Check that a failure changed nothing: not what is shown, nor what a restart would find."""
    assert await all_jobs(store_of(driver)) == before
    assert await jobs_in(store_of(driver)._directory.path, elsewhere=elsewhere) == before


# --------------------------------------------------------------------------------------------------- full


async def test_on_a_full_disk_nothing_is_lost_and_work_goes_on_when_there_is_room(disk: Disk, place: Path) -> None:
    directory = disk.path / "jobs here"
    async with opened(directory) as driver:
        await driver.add(a_job("first"))
        for round_ in range(3):
            disk.fill(but=8192 * round_)
            before, told = await all_jobs(store_of(driver)), ""
            while not told:
                try:
                    await driver.add(a_job(f"job-{round_}-{len(before)}", payload=b'"%s"' % (b"x" * 1000)))
                    before = await all_jobs(store_of(driver))
                except StoreUnavailableError as exc:
                    told = str(exc)
            for part in (str(directory), "cannot be written: No space left on device", "nothing was changed"):
                assert part in told
            await check_whole(driver, before, place)
            with pytest.raises(StoreUnavailableError):
                await driver.add(a_job("x", payload=b'"%s"' % (b"x" * 100_000)))
            await check_whole(driver, before, place)
            disk.free()
            await driver.add(a_job(f"job-{round_}-{len(before)}"))
            await check_whole(driver, await all_jobs(store_of(driver)), place)
        before = await all_jobs(store_of(driver))
    async with opened(directory) as driver:
        assert await all_jobs(store_of(driver)) == before
        assert store_of(driver).set_aside == ()


async def test_job_files_that_found_no_room_are_written_later(
    disk: Disk, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = disk.path / "jobs here"
    async with opened(directory) as driver:
        await driver.add(*(a_job(f"job-{number}") for number in range(20)))
        before = await all_jobs(store_of(driver))
        disk.fill(but=12 * 1024)
        for _ in range(2):
            await soon_written(driver)
            await check_whole(driver, before, place)
        assert "could not be written, trying again later" in caplog.text
        assert len(list((directory / "jobs").glob("*.json"))) < 20
        disk.free()
        await driver.do(Pause("job-0"))
        await soon_written(driver)
        await check_whole(driver, await all_jobs(store_of(driver)), place)
        assert len(list((directory / "jobs").glob("*.json"))) == 20
        assert document(directory, "job-0")["status"] == "paused"
        assert len(segments(directory)) == 1


async def test_a_store_is_closed_and_opened_on_a_full_disk(disk: Disk, place: Path) -> None:
    directory = disk.path / "jobs here"
    async with opened(directory) as driver:
        await driver.add(*(a_job(f"job-{number}") for number in range(20)))
        before = await all_jobs(store_of(driver))
        disk.fill()
    assert await jobs_in(directory, elsewhere=place) == before
    with contextlib.suppress(StoreUnavailableError):
        async with opened(directory) as driver:
            assert await all_jobs(store_of(driver)) == before
            with pytest.raises(StoreUnavailableError):
                await driver.add(a_job("x"))
    assert await jobs_in(directory, elsewhere=place) == before
    disk.free()
    async with opened(directory) as driver:
        assert await all_jobs(store_of(driver)) == before
        await driver.add(a_job("x"))


async def test_a_manager_outlives_a_full_disk(disk: Disk) -> None:
    async with JobManager(FileJobStore(disk.path / "jobs here")) as manager:
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            begun.set()
            await go.wait()
            return "x" * 50_000

        manager.register_handler("work", work)
        job = await manager.create_job("work", auto_start=True)
        await begun.wait()
        disk.fill()
        go.set()  # its outcome finds no room
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="No space left on device; nothing was changed"):
                await manager.create_job("work", payload="x" * 50_000)
        assert await manager.get_job_status(job.job_id) is JobStatus.RUNNING
        assert await manager.count_jobs() == 1
        disk.free()
        assert (await manager.wait_for_job(job.job_id, timeout=SOON)).result == "x" * 50_000
        assert (await manager.run_job("work")) == "x" * 50_000
        assert (await manager.get_job(job.job_id)).attempt == 1


async def test_on_a_disk_that_pretends_to_be_full_nothing_is_lost(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        before = await all_jobs(store_of(driver))
        with monkeypatch.context() as patched:
            Faults(patched, only="write", code=errno.ENOSPC).fail_from(1)
            with pytest.raises(StoreUnavailableError, match="No space left on device; nothing was changed"):
                await driver.add(a_job("refused"))
        await check_whole(driver, before, directory.parent)
        await driver.add(a_job("next"))
        await check_whole(driver, await all_jobs(store_of(driver)), directory.parent)


# ---------------------------------------------------------------------------------------------- read-only


def make_read_only(path: Path) -> Callable[[], None]:
    """Forbid everybody, root too, to change what is in a directory; gives what allows it again."""
    if os.geteuid():
        path.chmod(0o555)
        return lambda: path.chmod(0o755)
    try:
        call("chattr", "+i", path)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"root may write everywhere, and there are no immutable directories in {path}")
    return lambda: call("chattr", "-i", path)


@contextlib.contextmanager
def read_only(*paths: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.callback(make_read_only(path))
        yield


async def test_a_directory_that_cannot_be_written_to_is_refused_clearly(tmp_path: Path) -> None:
    directory = tmp_path / "jobs here"
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
    (directory / "lock").unlink()
    for forbidden in ([directory], [directory / "journal"], [directory / "jobs", directory, directory / "journal"]):
        before = contents(directory, but=["lock"])
        with read_only(*forbidden):
            with pytest.raises(StoreError, match=r"not permitted|Permission denied") as caught:
                await FileJobStore(directory).open()
            assert str(directory) in str(caught.value)
            async with opened(directory, read_only=True) as driver:
                assert set(await all_jobs(store_of(driver))) == {"job"}
        assert contents(directory, but=["lock"]) == before
        (directory / "lock").unlink(missing_ok=True)
    with read_only(tmp_path), pytest.raises(StoreError, match=r"cannot keep jobs in .*; choose another directory"):
        await FileJobStore(tmp_path / "new").open()
    async with opened(directory) as driver:
        assert set(await all_jobs(store_of(driver))) == {"job"}


async def test_a_disk_that_is_mounted_read_only_can_be_read(disk: Disk) -> None:
    directory = disk.path / "jobs here"
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
    call("mount", "-o", "remount,ro", disk.path)
    with pytest.raises(StoreError, match="Read-only file system; choose another directory"):
        await FileJobStore(directory).open()
    async with opened(directory, read_only=True) as driver:
        assert set(await all_jobs(store_of(driver))) == {"job"}
    call("mount", "-o", "remount,rw", disk.path)
    async with opened(directory) as driver:
        await driver.add(a_job("another"))


async def test_a_directory_that_becomes_read_only_under_way_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "jobs here"
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        with read_only(directory, directory / "jobs", directory / "journal"):
            await driver.add(a_job("another"))  # the journal is open already
            await soon_written(driver)
            await check_whole(driver, await all_jobs(store_of(driver)), tmp_path)
            assert not job_file(directory, "another").exists()
        await driver.do(Pause("job"))
        await soon_written(driver)
        assert job_file(directory, "another").exists()
        await check_whole(driver, await all_jobs(store_of(driver)), tmp_path)


# ----------------------------------------------------------------------------------------------- vanished


async def test_a_directory_that_is_away_for_a_while_is_waited_for(any_directory: Path) -> None:
    away = any_directory.with_name("away")
    async with opened(any_directory) as driver:
        await driver.add(a_job("job"))
        before = await all_jobs(store_of(driver))
        move(any_directory, away)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="No such file or directory; nothing was changed"):
                await driver.add(a_job("refused"))
            await soon_written(driver)
        assert await all_jobs(store_of(driver)) == before
        assert await jobs_in(away) == before
        assert not is_there(any_directory)
        move(away, any_directory)
        await driver.add(a_job("next"))
        await soon_written(driver)
        after = await all_jobs(store_of(driver))
        assert set(after) == {"job", "next"}
        assert await jobs_in(any_directory) == after
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == after


async def test_a_manager_outlives_a_directory_that_is_away(directory: Path) -> None:
    async with JobManager(FileJobStore(directory)) as manager:
        begun, go = asyncio.Event(), asyncio.Event()

        async def work() -> int:
            begun.set()
            await go.wait()
            return 1

        manager.register_handler("work", work)
        job = await manager.create_job("work", auto_start=True)
        await begun.wait()
        move(directory, directory.with_name("away"))
        go.set()
        with pytest.raises(StoreUnavailableError, match="No such file"):
            await manager.run_job("work")
        move(directory.with_name("away"), directory)
        assert (await manager.wait_for_job(job.job_id, timeout=SOON)).result == 1
        assert await manager.run_job("work") == 1


async def test_in_a_directory_that_was_removed_and_made_again_all_jobs_are_written_again(
    any_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(any_directory) as driver, opened(any_directory, read_only=True) as reader:
        await driver.add(*(a_job(f"job-{number}") for number in range(5)))
        await soon_written(driver)
        await driver.complete("job-1", result=b"[1]")
        shutil.rmtree(any_directory)
        with pytest.raises(StoreUnavailableError, match="No such file or directory"):
            await driver.do(Pause("job-0"))
        await soon_written(driver)
        make(any_directory)
        await driver.do(Pause("job-0"))
        after = await all_jobs(store_of(driver))
        assert await jobs_in(any_directory) == after
        assert "its 5 jobs are written again" in caplog.text
        assert await all_jobs(store_of(reader)) == after
        with pytest.raises(StoreError, match="are held by process"):
            await FileJobStore(any_directory).open()
        await soon_written(driver)
        await driver.do(Resume("job-0"))
        await driver.do(Cancel("job-0", ""))
        await driver.do(Delete("job-0"))
        await soon_written(driver)
        after = await all_jobs(store_of(driver))
        assert await jobs_in(any_directory) == after
        assert await all_jobs(store_of(reader)) == after
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == after


@pytest.mark.parametrize("failing", ["publish", "sync_file_system", "flush", "sync_directory"])
async def test_jobs_that_could_not_all_be_written_again_are_once_that_is_possible(
    directory: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async with opened(directory) as driver:
        await driver.add(*(a_job(f"job-{number}") for number in range(5)))
        await soon_written(driver)
        before = await all_jobs(store_of(driver))
        shutil.rmtree(directory)
        make(directory)
        for nth in (1, 3):
            with monkeypatch.context() as broken:
                Faults(broken, only=failing).fail_from(nth)
                with contextlib.suppress(StoreUnavailableError):
                    await driver.do(Pause("job-0"))
                    before = await all_jobs(store_of(driver))
            assert await all_jobs(store_of(driver)) == before
        await driver.do(Pause("job-1"))
        after = await all_jobs(store_of(driver))
        assert await jobs_in(directory) == after


async def test_a_place_that_another_store_took_is_left_to_it(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        move(directory, directory.with_name("away"))
        async with opened(directory) as other:
            await other.add(a_job("other's"))
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match=r"replaced by another file|No such file"):
                    await driver.do(Pause("job"))
                await soon_written(driver)
        async with opened(directory) as other:
            assert set(await all_jobs(store_of(other))) == {"other's"}
            assert store_of(other).set_aside == ()
        shutil.rmtree(directory)
        move(directory.with_name("away"), directory)
        await driver.do(Pause("job"))
    async with opened(directory) as driver:
        assert await driver.status("job") is JobStatus.PAUSED


async def test_a_journal_that_vanished_alone_is_waited_for(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        move(directory / "journal", directory / "away")
        with pytest.raises(StoreUnavailableError, match="No such file or directory"):
            await driver.do(Pause("job"))
        move(directory / "away", directory / "journal")
        await driver.do(Pause("job"))
        await check_whole(driver, await all_jobs(store_of(driver)), directory.parent)


# ------------------------------------------------------------------------------------------------ failing


class Faults:
    """Lets calls that touch the disk fail.

    Attributes:
        calls: the names of the calls made so far.
    """

    _HOMES = {  # noqa: RUF012 # a constant
        "write": (_journal,),
        "flush": (_journal,),
        "drop": (_journal,),
        "sync_directory": (_journal, _jobfiles, _directory),
        "publish": (_jobfiles,),
        "sync_file_system": (_jobfiles,),
        "ftruncate": (os,),
    }

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, only: str = "", code: int = errno.EIO) -> None:
        self.calls: list[str] = []
        self._error = OSError(code, os.strerror(code))
        self._on = True
        self._first = self._last = 0
        for name, homes in self._HOMES.items():
            if only in {"", name}:
                for home in homes:
                    monkeypatch.setattr(home, name, self._faulty(name, getattr(home, name)))

    def fail_from(self, first: int, *, times: int = 1_000_000) -> None:
        """Let so many calls fail, from the n-th from now on."""
        self._first = len(self.calls) + first
        self._last = self._first + times - 1

    @contextlib.contextmanager
    def off(self) -> Iterator[None]:
        """Let no call fail meanwhile, nor count it."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def _faulty(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def faulty(*arguments: object) -> object:
            if not self._on:
                return function(*arguments)
            self.calls.append(name)
            if self._first <= len(self.calls) <= self._last:
                if name == "write":
                    descriptor, data = arguments
                    assert isinstance(descriptor, int)
                    assert isinstance(data, bytes)
                    os.write(descriptor, data[: len(data) // 2])
                raise self._error
            return function(*arguments)

        return faulty


@contextlib.asynccontextmanager
async def opened_to_fail(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[StoreDriver, Faults]]:
    """Open a store with jobs, on a disk that can be let fail."""
    async with opened(directory) as driver:
        await driver.add(a_job("job"), a_job("done"))
        await driver.complete("done")
        await soon_written(driver)
        await driver.add(a_job("unwritten"))
        with monkeypatch.context() as patched:
            yield driver, Faults(patched)


@pytest.mark.parametrize(("call", "nth"), [("write", 1), ("flush", 2)])
@pytest.mark.parametrize("ending", ["goes on", "dies", "closes"])
async def test_a_commit_that_was_not_flushed_did_not_happen(
    any_directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, ending: str
) -> None:
    async with opened_to_fail(any_directory, monkeypatch) as (driver, faults):
        before = await all_jobs(store_of(driver))
        for _ in range(3):
            made = len(faults.calls)
            faults.fail_from(nth, times=1)
            with pytest.raises(StoreUnavailableError, match="Input/output error; nothing was changed"):
                await driver.add(a_job("refused"), a_job("refused too"))
            assert faults.calls[made + nth - 1] == call
            await check_whole(driver, before, any_directory.parent)
        if ending == "goes on":
            await driver.add(a_job("next"))
            before = await all_jobs(store_of(driver))
            await check_whole(driver, before, any_directory.parent)
        elif ending == "dies":
            assert await jobs_in(any_directory) == before
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == before


async def test_a_commit_that_could_not_be_cut_off_is_cut_off_before_the_next(
    any_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_to_fail(any_directory, monkeypatch) as (driver, faults):
        before = await all_jobs(store_of(driver))
        faults.fail_from(2)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="Input/output error"):
                await driver.add(a_job("refused"))
            await soon_written(driver)
            assert await all_jobs(store_of(driver)) == before
        faults.fail_from(0, times=0)
        await driver.add(a_job("next"))
        await check_whole(driver, await all_jobs(store_of(driver)), any_directory.parent)
        assert set(await jobs_in(any_directory)) == {*before, "next"}


async def test_a_commit_that_could_not_be_cut_off_is_when_the_store_is_closed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened_to_fail(directory, monkeypatch) as (driver, faults):
        await soon_written(driver)  # nothing is left to be done when it is closed
        before = await all_jobs(store_of(driver))
        faults.fail_from(2)
        with pytest.raises(StoreUnavailableError):
            await driver.add(a_job("refused"))
        faults.fail_from(0, times=0)
    async with opened(directory) as driver:
        assert await all_jobs(store_of(driver)) == before


async def test_a_commit_that_could_never_be_cut_off_is_found_whole_or_not_at_all(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies on a broken disk. What it could not tell its caller, it cannot know: that is the contract's."""
    async with opened_to_fail(directory, monkeypatch) as (driver, faults):
        before = await all_jobs(store_of(driver))
        faults.fail_from(2)
        with pytest.raises(StoreUnavailableError):
            await driver.add(a_job("refused"), a_job("refused too"))
        with faults.off():
            assert set(await jobs_in(directory)) - set(before) in (set(), {"refused", "refused too"})


async def claim_and_keep(driver: StoreDriver, leases: dict[str, str], job_id: str) -> None:
    leases[job_id] = await driver.run(job_id)


#: A bit of everything, each step a commit of its own, or a writing of job files.
STEPS: list[Callable[[StoreDriver, dict[str, str]], Awaitable[object]]] = [
    lambda driver, _: driver.add(a_job("a"), a_job("b", "a")),
    lambda driver, _: soon_written(driver),
    lambda driver, leases: claim_and_keep(driver, leases, "a"),
    lambda driver, leases: driver.do(Finish("a", leases["a"], AttemptOutcome.COMPLETED, b"1")),
    lambda driver, _: driver.do(Pause("b")),
    lambda driver, _: soon_written(driver),
    lambda driver, _: driver.do(Cancel("b", "")),
    lambda driver, _: driver.do(Delete("b")),
    lambda driver, _: driver.add(a_job("b", description="another")),
    lambda driver, _: soon_written(driver),
    lambda driver, leases: claim_and_keep(driver, leases, "b"),
    lambda driver, leases: driver.do(Finish("b", leases["b"], AttemptOutcome.FAILED, error=BOOM)),
    lambda driver, _: driver.apply(Delete("b"), adding(a_job("b", description="a third"))),
    lambda driver, _: driver.do(Delete("a")),
    lambda driver, _: soon_written(driver),
    lambda driver, _: driver.add(a_job("c")),
]


async def take_steps(driver: StoreDriver, elsewhere: Path, faults: Faults) -> int:
    """Take every step until it succeeds; whatever happens, a death afterwards would lose nothing, and add nothing.

    Returns:
        How often it took more than one try.
    """
    failures, leases = 0, dict[str, str]()
    for step in STEPS:
        before = await all_jobs(store_of(driver))
        while True:
            try:
                await step(driver, leases)
            except StoreUnavailableError:
                failures += 1
                assert await all_jobs(store_of(driver)) == before
                if not store_of(driver)._directory._journal._suspect:  # else it may be found by who opens the files
                    with faults.off():
                        await check_whole(driver, before, elsewhere)
            else:
                break
        with faults.off():
            await check_whole(driver, await all_jobs(store_of(driver)), elsewhere)
    return failures


@pytest.mark.parametrize("times", [1, 2, 7])
async def test_whichever_call_to_the_disk_fails_nothing_is_lost(
    place: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    nth, failures, expected = 0, 0, set[str]()
    while True:
        nth += 1
        directory = place / f"{nth}"
        async with opened(directory) as driver:
            with monkeypatch.context() as patched:
                faults = Faults(patched)
                faults.fail_from(nth, times=times)
                failures += await take_steps(driver, place, faults)
            last = await all_jobs(store_of(driver))
            expected = expected or set(last)
            assert set(last) == expected == {"b", "c"}
        async with opened(directory) as driver:
            assert await all_jobs(store_of(driver)) == last
            assert store_of(driver).set_aside == ()
        shutil.rmtree(directory)
        if len(faults.calls) < nth:
            break
    assert nth > 40
    assert failures > 20
