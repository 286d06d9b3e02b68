"""Short ways to say what tests of the file store say often."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from openagents_json.job._changes import Query
from openagents_json.job._record import JobRecord
from openagents_json.job.storage import FileJobStore
from openagents_json.testing import ManualClock, StoreDriver

#: How long a test waits for something that must happen (seconds); only a failing test takes so long.
SOON = 20.0

#: The job files are written when a change has waited for so long (seconds on the store's clock).
A_WHILE = 2.0


@contextlib.asynccontextmanager
async def opened(
    directory: Path, *, clock: ManualClock | None = None, read_only: bool = False
) -> AsyncIterator[StoreDriver]:
    """Open a store, and close it at the end."""
    clock = clock or ManualClock()
    store = FileJobStore(directory, read_only=read_only, clock=clock)
    await store.open()
    try:
        yield StoreDriver(store, clock)
    finally:
        await store.close()


async def all_jobs(store: FileJobStore) -> dict[str, JobRecord]:
    """Read every job of an open store, but for a counter that means nothing once a job is over."""
    jobs = await store.find(Query(descending=False))
    return {job.job_id: job._replace(unmet=0) if job.status.finished else job for job in jobs}


async def jobs_in(directory: Path, *, elsewhere: Path | None = None) -> dict[str, JobRecord]:
    """Say what a restart would find if the process died now: opens a copy of the files, beside them or elsewhere."""
    with tempfile.TemporaryDirectory(dir=elsewhere or directory.parent) as place:
        copy = Path(place) / "copy"
        shutil.copytree(directory, copy)
        async with opened(copy) as driver:
            return await all_jobs(store_of(driver))


def store_of(driver: StoreDriver) -> FileJobStore:
    """Give the file store of a driver."""
    assert isinstance(driver.store, FileJobStore)
    return driver.store


async def soon_written(driver: StoreDriver) -> None:
    """Let the job files be written, and wait until that is over."""
    driver.clock.advance(A_WHILE)
    await soon_at_rest()


async def soon_at_rest() -> None:
    """Wait until no job files are being written."""
    writing = {task for task in asyncio.all_tasks() if task.get_name() == "write job files"}
    if writing:
        done, _ = await asyncio.wait(writing, timeout=SOON)
        assert done == writing


def job_file(directory: Path, job_id: str) -> Path:
    """Name the file of a job whose id needs no encoding."""
    return directory / "jobs" / f"{job_id}.json"


def document(directory: Path, job_id: str) -> dict[str, Any]:
    """Read the file of a job."""
    content = json.loads(job_file(directory, job_id).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def move(directory: Path, to: Path) -> None:
    """Move a directory."""
    directory.rename(to)


def make(directory: Path) -> None:
    """Make a directory."""
    directory.mkdir()


def is_there(path: Path) -> bool:
    """Tell whether something is there."""
    return path.exists()


def segments(directory: Path) -> list[Path]:
    """List the segments of the journal, the oldest first."""
    return sorted((directory / "journal").glob("*.log"))


def contents(directory: Path, *, but: Iterable[str] = ()) -> dict[str, bytes]:
    """Read every file below a directory, by its path within; `but` some of those at the top."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.relative_to(directory).parts[0] not in set(but)
    }
