"""One process writes to a directory: everybody else is told who, and any death of it lets the next one in."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openagents_json.errors import StoreError, StoreLockedError
from openagents_json.job import JobManager
from openagents_json.job.storage import FileJobStore
from openagents_json.testing import a_job
from tests.files._tools import all_jobs, contents, make, opened, store_of

#: Opens a store, says so, and waits to be killed. Told to, it forks first, as a pool of processes does, a child that
#: stays, and one that ends at once.
HOLDER = """
import asyncio, os, signal, sys
from openagents_json.job.storage import FileJobStore

async def main():
    store = FileJobStore(sys.argv[1])
    await store.open()
    if "fork" in sys.argv:
        ending = os.fork()
        if not ending:
            os._exit(0)
        os.waitpid(ending, 0)
        if not os.fork():
            print(os.getpid(), flush=True)
            signal.pause()
    else:
        print(os.getpid(), flush=True)
    signal.pause()

asyncio.run(main())
"""

#: Tries to open a store and prints what comes of it.
OPENER = """
import asyncio, sys
from openagents_json.errors import StoreLockedError
from openagents_json.job.storage import FileJobStore

async def main():
    store = FileJobStore(sys.argv[1])
    try:
        await store.open()
    except StoreLockedError as exc:
        print("refused:", exc)
    else:
        await store.close()
        print("opened")

asyncio.run(main())
"""


@contextlib.contextmanager
def holder_of(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a process that holds a directory; gives it, and the child it forked, or itself."""
    command = [sys.executable, "-c", HOLDER, str(directory), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


async def refusal(directory: Path) -> StoreLockedError:
    """Ask for a directory that is held, and say why it is not given."""
    with pytest.raises(StoreLockedError) as caught:
        await FileJobStore(directory).open()
    return caught.value


async def test_a_second_store_in_the_same_process_is_refused(any_directory: Path) -> None:
    async with opened(any_directory) as driver:
        await driver.add(a_job("job"))
        before = contents(any_directory)
        refused = await refusal(any_directory)
        assert str(os.getpid()) in refused.holder
        assert refused.location == str(any_directory)
        for part in (str(os.getpid()), str(any_directory), "read_only=True"):
            assert part in str(refused)
        assert contents(any_directory) == before, "the refused one changed nothing"
        await driver.add(a_job("another"))
    async with opened(any_directory) as driver:
        assert set(await all_jobs(store_of(driver))) == {"job", "another"}


async def test_a_second_manager_is_refused_and_the_first_goes_on(directory: Path) -> None:
    async with JobManager(FileJobStore(directory)) as manager:
        manager.register_handler("one", lambda: 1)
        with pytest.raises(StoreLockedError, match=str(os.getpid())):
            await JobManager(FileJobStore(directory)).start()
        assert await manager.run_job("one") == 1


async def test_another_process_is_refused_and_told_who_holds_the_jobs(any_directory: Path) -> None:
    command = [sys.executable, "-c", OPENER, str(any_directory)]
    async with opened(any_directory):
        told = await asyncio.to_thread(subprocess.check_output, command, text=True)
        assert told.startswith("refused:")
        assert f"process {os.getpid()} on " in told
    assert (await asyncio.to_thread(subprocess.check_output, command, text=True)) == "opened\n"


async def test_the_lock_is_free_as_soon_as_its_holder_is_killed(any_directory: Path) -> None:
    with holder_of(any_directory) as (process, _):
        assert f"process {process.pid} on " in (await refusal(any_directory)).holder
        process.send_signal(signal.SIGKILL)
        process.wait()
        async with opened(any_directory) as driver:
            await driver.add(a_job("job"))


async def test_children_neither_free_the_lock_nor_keep_it(directory: Path) -> None:
    with holder_of(directory, "fork") as (process, child):
        try:
            assert f"process {process.pid} on " in (await refusal(directory)).holder
            process.send_signal(signal.SIGKILL)
            process.wait()
            os.kill(child, 0)  # it lives
            async with opened(directory) as driver:
                await driver.add(a_job("job"))
        finally:
            os.kill(child, signal.SIGKILL)


async def test_a_store_that_could_not_be_opened_holds_nothing(directory: Path) -> None:
    make(directory)
    (directory / "jobs").write_text("a file where a directory should be", encoding="utf-8")
    store = FileJobStore(directory)
    with pytest.raises(StoreError, match="cannot keep jobs in"):
        await store.open()
    (directory / "jobs").unlink()
    async with opened(directory):
        pass
    await store.open()
    await store.close()


async def test_what_stands_in_the_lock_file_keeps_nobody_out(directory: Path) -> None:
    make(directory)
    (directory / "lock").write_text("no JSON, and no holder", encoding="utf-8")
    async with opened(directory):
        assert json.loads((directory / "lock").read_text(encoding="utf-8"))["pid"] == os.getpid()
        (directory / "lock").write_text('{"pid": "?"}', encoding="utf-8")
        assert (await refusal(directory)).holder == "another process"


@pytest.mark.parametrize("below", ["", "deeper/down"])
async def test_a_directory_that_cannot_be_made_is_refused_clearly(place: Path, below: str) -> None:
    (place / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match=r"cannot keep jobs in .*file.*; choose another directory"):
        await FileJobStore(place / "file" / below).open()


async def test_directories_are_made_as_deep_as_asked_for(place: Path) -> None:
    async with opened(place / "deeper" / "down") as driver:
        await driver.add(a_job("job"))
    async with opened(place / "deeper" / "down") as driver:
        assert set(await all_jobs(store_of(driver))) == {"job"}
