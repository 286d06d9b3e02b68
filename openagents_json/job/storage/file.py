"""`FileJobStore`: jobs in a directory, as readable JSON, kept through any death of the process.

::

    DIR/lock             held by the one process that writes
    DIR/jobs/*.json      one document a job
    DIR/journal/*.log    the commits that are not in the job files yet
    DIR/quarantine/      what could not be read

All jobs are in memory, too (`_table`). A commit is planned there, appended to the journal and flushed, then installed:
until it is on the disk, nobody sees it. The job files follow a little later, many at a time; the journal's segments
are dropped once the files they stand for are on the disk.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from typing_extensions import override

from openagents_json.errors import ConfigurationError, StoreError, StoreReadOnlyError, StoreUnavailableError
from openagents_json.job.storage._directory import JobDirectory
from openagents_json.job.storage._tabled import TableStore
from openagents_json.job.storage.base import StoreTraits

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from openagents_json.job._changes import Change, Claim, Result
    from openagents_json.job._clock import Clock, Timer
    from openagents_json.job.storage._jobfiles import SetAside

T = TypeVar("T")

#: The job files are written when the journal's segment has grown to this size (bytes) ...
_SEGMENT_SIZE = 8 * 1024 * 1024
#: ... or when a change has waited for it this long (seconds).
_SEGMENT_AGE = 2.0

#: A failed writing of job files is tried again after this long (seconds), or with the next change.
_RETRY_AFTER = 10.0

logger: logging.Logger = logging.getLogger(__name__)


class FileJobStore(TableStore):
    """Keep jobs in files. What a call acknowledged is on the disk.

    One process writes to a directory; others may read it beside (`read_only`). A restart after a crash resumes at
    once: whoever holds the directory knows that nobody else runs its jobs.

    Args:
        storage_dir: the directory; made when it does not exist.
        read_only: open it beside a process that writes. Every read shows a state that was once complete.
        clock: where timestamps come from; a test may bring its own.

    Attributes:
        set_aside: what was found among the jobs and could not be read, with the reason; empty when all is well.

    Raises:
        ConfigurationError: `storage_dir` is no path.
    """

    def __init__(self, storage_dir: str | Path, *, read_only: bool = False, clock: Clock | None = None) -> None:
        super().__init__(clock)
        if not str(storage_dir):
            raise ConfigurationError("storage_dir must be the path of a directory, not empty")
        self.traits: StoreTraits = StoreTraits(durable=True, shared=False, pushes=not read_only)
        self._directory = JobDirectory(Path(storage_dir), read_only=read_only)
        self._read_only = read_only
        self._unsure = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn = asyncio.Lock()
        self._filing = asyncio.Lock()  # taken before the other, where both are
        self._executor: ThreadPoolExecutor | None = None
        self._under_way: set[asyncio.Task[Any]] = set()
        self._dirty: set[str] = set()
        self._unwritten: set[str] = set()
        self._timer: Timer | None = None
        self._retrying = False

    @override
    def __repr__(self) -> str:
        return f"FileJobStore({str(self._directory.path)!r}, {len(self._table.jobs)} jobs)"

    @property
    def set_aside(self) -> tuple[SetAside, ...]:
        """What was found among the jobs and could not be read."""
        return tuple(self._directory.set_aside)

    @override
    async def _open(self) -> None:
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="openagents-files")
        try:
            await self._in_thread(self._directory.acquire)
            await self._load()
        except BaseException:
            self._let_go()
            raise

    @override
    async def _close(self) -> None:
        self._enter_loop()
        try:
            if self._under_way:
                await asyncio.wait(self._under_way)
            if not self._read_only:
                await self._write_job_files()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Give up the threads and the directory; a caller who was cancelled waits here for what is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
        self._directory.release()

    def _enter_loop(self) -> None:
        """Forget what belonged to an event loop that ended meanwhile: nobody will ever be woken there."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._timer = loop, None
            self._turn, self._filing = asyncio.Lock(), asyncio.Lock()
            # a commit that was under way may be on the disk, and is not in the table
            self._unsure = self._unsure or bool(self._under_way)
            self._under_way.clear()

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        self._require_open()
        if self._read_only:
            raise StoreReadOnlyError(f"{self!r} was opened for reading; nothing can be changed through it")
        self._enter_loop()
        return await self._to_its_end(self._apply(changes, claim))

    async def _apply(self, changes: Sequence[Change], claim: Claim | None) -> Result:
        async with self._turn:
            if self._unsure:
                await self._load()
            plan = self._table.plan(changes, claim, self._clock.now())
            if plan.after:
                try:
                    await self._in_thread(lambda: self._directory.commit(plan.after, self._table.jobs))
                except BaseException as exc:
                    self._table.abort(plan)
                    # an event loop that ends does not stop the thread: what it wrote is read again when next needed
                    self._unsure = isinstance(exc, asyncio.CancelledError)
                    if isinstance(exc, OSError):
                        raise _unavailable(self._directory.path, exc) from exc
                    raise
                self._dirty.update(plan.after)
                self._write_job_files_soon()
            wakeup = self._table.install(plan)
        self._wake(wakeup)
        return plan.result

    @override
    async def _refresh(self) -> None:
        self._require_open()
        if self._read_only:
            self._enter_loop()
            async with self._turn:
                # whoever is cancelled here has read what the table does not hold: all is read again then
                again, self._unsure = self._unsure, True
                news = None if again else await self._in_thread(self._directory.news)
                if news is None:
                    await self._load()
                else:
                    self._table.restore(news, self._clock.now(), self._clock.monotonic())
                self._unsure = False

    async def _load(self) -> None:
        """Read everything from the disk."""
        jobs = await self._in_thread(self._directory.load)
        table = self._table.emptied()
        table.restore(jobs, self._clock.now(), self._clock.monotonic())
        self._table, self._unsure = table, False
        self._dirty = set(self._directory.in_journal)

    def _write_job_files_soon(self) -> None:
        if self._directory.segment_size > _SEGMENT_SIZE and not self._filing.locked():
            self._start_writing_job_files()
        elif self._timer is None or self._retrying:
            self._set_timer(_SEGMENT_AGE)

    def _set_timer(self, seconds: float, *, retrying: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._retrying = self._clock.call_later(seconds, self._start_writing_job_files), retrying

    def _start_writing_job_files(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._keep(asyncio.get_running_loop().create_task(self._write_job_files(), name="write job files"))

    async def _write_job_files(self) -> None:
        """Bring the job files up to date, then drop the journal's segments that stood for them.

        One after the other: the segments that one of them drops may be all there is of the jobs of another.
        """
        async with self._filing:
            try:
                async with self._turn:
                    self._unwritten |= self._dirty
                    self._dirty = set()
                    if not self._unwritten:
                        return
                    number = await self._in_thread(self._directory.begin_segment)
                    jobs = [(job_id, self._table.get(job_id)) for job_id in self._unwritten]
                await self._in_thread(lambda: self._directory.write_job_files(jobs, number))
                self._unwritten = set()  # however this ends before, they are written the next time
            except Exception as exc:  # noqa: BLE001 - whatever it is, the journal has the jobs meanwhile
                path = self._directory.path
                logger.warning("the job files in %s could not be written, trying again later: %s", path, exc)
                if self._timer is None and self._users:
                    self._set_timer(_RETRY_AFTER, retrying=True)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something that goes on to its end even if the caller is cancelled."""
        task = asyncio.get_running_loop().create_task(work, name="commit to files")
        self._keep(task)
        return await asyncio.shield(task)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        """Call a function that works on the files in a thread."""
        if self._executor is None:
            raise StoreError(f"{self!r} is not open")
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _unavailable(path: Path, error: OSError) -> StoreUnavailableError:
    what = error.strerror or str(error)
    return StoreUnavailableError(f"the jobs in {str(path)!r} cannot be written: {what}; nothing was changed")
