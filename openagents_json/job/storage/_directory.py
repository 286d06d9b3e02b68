"""`JobDirectory`: the files of a file store as one thing: load, commit, checkpoint. Synchronous file I/O.

`commit`, `begin_segment` and `load` exclude each other; `write_job_files` may run beside commits.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pydantic_core

from openagents_json.errors import StoreError, StoreUnavailableError
from openagents_json.job import _documents
from openagents_json.job._documents import DamagedDocumentError
from openagents_json.job.storage._jobfiles import JobFiles
from openagents_json.job.storage._journal import Journal, sync_directory
from openagents_json.job.storage._lock import DirectoryLock

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from openagents_json.job._record import JobRecord
    from openagents_json.job.storage._jobfiles import SetAside

#: A reader that finds the files changed under its hands begins anew, so many times.
_READ_TRIES = 20

logger = logging.getLogger(__name__)


class JobDirectory:
    """The directory of a file store.

    Args:
        path: where it is.
        read_only: another process may be writing to it.

    Attributes:
        path: where it is.
        in_journal: the jobs whose files are older than the journal, as of the last load.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path = path
        self.in_journal: set[str] = set()
        self._read_only = read_only
        self._alone = threading.Lock()
        self._lock = DirectoryLock(path / "lock")
        self._journal = Journal(path / "journal")
        self._files = JobFiles(path / "jobs", None if read_only else path / "quarantine")
        self._in_segment: set[str] = set()
        self._offsets: dict[int, int] = {}
        self._jobs: dict[str, JobRecord] = {}

    @property
    def set_aside(self) -> list[SetAside]:
        """What could not be read."""
        return self._files.set_aside

    @property
    def segment_size(self) -> int:
        """Bytes in the journal's present segment."""
        return self._journal.size

    def acquire(self) -> None:
        """Make the directory if need be, and take its lock; a reader needs neither.

        Raises:
            StoreLockedError: another process holds it.
            StoreError: it cannot be made, or written to, or (by a reader) found.
        """
        if self._read_only:
            if not (self.path / "jobs").is_dir():
                raise StoreError(f"there are no jobs in {str(self.path)!r} to be read")
            return
        try:
            for directory in (self.path, self.path / "jobs", self.path / "journal"):
                directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            sync_directory(self.path)
        except OSError as exc:
            self._lock.release()
            problem = f"cannot keep jobs in {str(self.path)!r}: {exc.strerror or exc}; choose another directory"
            raise StoreError(problem) from exc

    def release(self) -> None:
        """Close everything, and give the lock back; harmless when there is nothing to close."""
        self._journal.close()
        self._lock.release()

    def load(self) -> dict[str, JobRecord]:
        """Read all jobs, and begin a new segment for what is to come.

        Raises:
            NewerFormatError: a later version of this package wrote here.
            StoreUnavailableError: the files cannot be read.
        """
        with self._alone:
            try:
                self._files.set_aside.clear()
                self._read_all()
                if not self._read_only:
                    number = self._journal.begin_segment()
                    self._in_segment.clear()
                    if not self.in_journal:
                        self.write_job_files((), number)
            except OSError as exc:
                problem = f"the jobs in {str(self.path)!r} cannot be read: {exc.strerror or exc}"
                raise StoreUnavailableError(problem) from exc
            return self._jobs if self._read_only else self._hand_over()

    def news(self) -> dict[str, JobRecord | None] | None:
        """Read what was committed since the last look; None: more has changed than can be told, `load` again."""
        with self._alone:
            try:
                segments = self._journal.segments()
                if not set(self._offsets) <= set(segments):
                    return None
                before = dict(self._jobs)
                changed = self._replay(segments)
            except OSError:
                return None
            return {
                job_id: self._jobs.get(job_id) for job_id in changed if self._jobs.get(job_id) != before.get(job_id)
            }

    def commit(self, after: Mapping[str, JobRecord | None], jobs: Mapping[str, JobRecord]) -> None:
        """Append a commit to the journal; when this returns, it is on the disk.

        Args:
            after: the jobs that change, as they will be; None: deleted.
            jobs: all jobs as they are.

        Raises:
            OSError: it is not on the disk, and nothing of it will be found there.
        """
        with self._alone:
            try:
                self._journal.append(self._document(after))
            except FileNotFoundError:
                if not self._may_begin_anew():
                    raise
                self._begin_anew(jobs)
                self._journal.append(self._document(after))
            self._in_segment.update(after)

    def begin_segment(self) -> int:
        """Let further commits go to a new segment; returns its number.

        Raises:
            OSError: it cannot be made.
        """
        with self._alone:
            number = self._journal.begin_segment()
            self._in_segment.clear()
            return number

    def write_job_files(self, jobs: Iterable[tuple[str, JobRecord | None]], number: int) -> None:
        """Write the files of jobs (None: remove it), then drop the segments before that number.

        Raises:
            OSError: not all was written; no segment was dropped.
        """
        self._files.write(jobs)
        self._journal.set_start(number)
        sync_directory(self.path / "journal")
        self._journal.drop_uncounted()

    def _document(self, after: Mapping[str, JobRecord | None]) -> bytes:
        """Write a commit. The first mention of a job in a segment is whole, so that no segment needs another one."""
        jobs = [
            _documents.state(job) if job_id in self._in_segment else _documents.whole(job)
            for job_id, job in after.items()
            if job is not None
        ]
        gone = [job_id for job_id, job in after.items() if job is None]
        return b'{"jobs":[%s],"gone":%s}' % (b",".join(jobs), pydantic_core.to_json(gone))

    def _read_all(self) -> None:
        for _ in range(_READ_TRIES):
            before = self._journal.segments()
            self._jobs = {job.job_id: job for job in self._files.read()}
            self._offsets = {}
            self.in_journal = self._replay(self._journal.segments())
            if set(before) <= set(self._journal.segments()):
                return
        raise StoreUnavailableError(f"the files in {str(self.path)!r} change faster than they can be read")

    def _replay(self, segments: Iterable[int]) -> set[str]:
        """Read what the journal holds beyond what was read before; returns the jobs it is about."""
        changed: set[str] = set()
        for number in segments:
            records, self._offsets[number] = self._journal.read(number, self._offsets.get(number, 0), self._damaged)
            for record in records:
                changed |= self._install(number, record)
        return changed

    def _install(self, number: int, record: bytes) -> set[str]:
        commit: dict[str, Any] = pydantic_core.from_json(record)
        changed: set[str] = set(commit["gone"])
        for job_id in commit["gone"]:
            self._jobs.pop(job_id, None)
        for document in commit["jobs"]:
            job_id = document["job_id"]
            before = self._jobs.get(job_id)
            try:
                job = _documents.job_of(_documents.upgraded(document), before)
            except DamagedDocumentError as exc:
                self._damaged(number, 0, f"job {job_id!r}: {exc}")
                continue
            if before is None or job.version >= before.version:
                self._jobs[job_id] = job
                changed.add(job_id)
        return changed

    def _damaged(self, number: int, offset: int, reason: str) -> None:
        path = self.path / "journal" / f"{number:010}.log"
        self._files.put_aside(path, f"damaged at byte {offset}: {reason}", copy=True)

    def _hand_over(self) -> dict[str, JobRecord]:
        jobs, self._jobs = self._jobs, {}
        return jobs

    def _may_begin_anew(self) -> bool:
        """Tell whether the directory was emptied under our hands and is there again, for us to fill."""
        return self.path.is_dir() and not (self.path / "journal").exists() and not (self.path / "jobs").exists()

    def _begin_anew(self, jobs: Mapping[str, JobRecord]) -> None:
        """Write everything again: what is in memory is all there is."""
        logger.error("%s was emptied; its %d jobs are written again", self.path, len(jobs))
        self._lock.release()
        self._lock.acquire()
        for directory in (self.path / "jobs", self.path / "journal"):
            directory.mkdir()
        self._files.write(jobs.items())
        sync_directory(self.path)
        self._journal.close()
        self._journal.begin_segment()
        self._in_segment.clear()
