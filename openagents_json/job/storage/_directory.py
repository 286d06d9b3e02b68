"""`JobDirectory`: the files of a file store as one thing: load, commit, checkpoint. Synchronous file I/O.

`commit`, `begin_segment` and `load` exclude each other; `write_job_files` may run beside commits. Nothing may be under
way when the directory is released: whoever takes its lock next shall find the files at rest.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pydantic_core

from openagents_json.errors import StoreError, StoreUnavailableError
from openagents_json.job import _documents
from openagents_json.job._documents import DamagedDocumentError, NewerFormatError
from openagents_json.job.storage._jobfiles import JobFiles
from openagents_json.job.storage._journal import Journal, Mark, sync_directory
from openagents_json.job.storage._lock import DirectoryLock, alone, kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from openagents_json.job._record import JobRecord, JobSpec
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
        self._filing = threading.Lock()  # taken before the other, where both are
        self._lock = DirectoryLock(path / "lock")
        self._journal = Journal(path / "journal")
        self._files = JobFiles(path / "jobs", None if read_only else path / "quarantine")
        self._in_segment: dict[str, JobSpec] = {}
        self._emptied = False
        self._segment = 0
        self._mark = Mark()
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
        with self._filing, self._alone:
            try:
                self._read_all()
                self._files.tidy()
                if not self._read_only:
                    number = self._journal.begin_segment()
                    self._in_segment.clear()
                    if not self.in_journal:
                        self._write_job_files((), number)
            except NewerFormatError as exc:
                raise NewerFormatError(f"the jobs in {str(self.path)!r} cannot be read: {exc}") from None
            except OSError as exc:
                what = "read" if self._read_only else "opened"
                problem = f"the jobs in {str(self.path)!r} cannot be {what}: {exc.strerror or exc}"
                raise StoreUnavailableError(problem) from exc
            return self._jobs if self._read_only else self._hand_over()

    def news(self) -> dict[str, JobRecord | None] | None:
        """Read what was committed since the last look; None: more has changed than can be told, `load` again."""
        with self._alone:
            try:
                segments = self._journal.segments()
                if self._segment not in (segments or [0]):
                    return None
                before = dict(self._jobs)
                changed = self._replay(segments)
                self._files.tidy()
            except (OSError, NewerFormatError):
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
                self._journal.append(self._document(after, jobs))
            except FileNotFoundError:
                if not self._may_begin_anew():
                    raise
                self._begin_anew(jobs)
                self._journal.append(self._document(after, jobs))
            for job_id, job in after.items():
                if job is None:
                    self._in_segment.pop(job_id, None)
                else:
                    self._in_segment[job_id] = job.spec

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
        with self._filing:
            self._write_job_files(jobs, number)

    def _write_job_files(self, jobs: Iterable[tuple[str, JobRecord | None]], number: int) -> None:
        self._journal.refuse_vanished()
        self._files.write(jobs)
        self._journal.refuse_vanished()
        with alone(self.path / "journal") as nobody_reads:
            if nobody_reads:  # else it is done the next time
                self._journal.set_start(number)
                sync_directory(self.path / "journal")
                self._journal.drop_uncounted()

    def _document(self, after: Mapping[str, JobRecord | None], before: Mapping[str, JobRecord]) -> bytes:
        """Write a commit. The first mention of a job in a segment is whole, so that no segment needs another one.

        A job whose place another one of its id takes is gone first: their versions have nothing to do with each other.
        """
        jobs: list[bytes] = []
        gone: list[str] = []
        for job_id, job in after.items():
            was = before.get(job_id)
            if job is None or (was is not None and was.spec is not job.spec):
                gone.append(job_id)
            if job is not None:
                known = self._in_segment.get(job_id) is job.spec
                jobs.append(_documents.state(job) if known else _documents.whole(job))
        return b'{"jobs":[%s],"gone":%s}' % (b",".join(jobs), pydantic_core.to_json(gone))

    def _read_all(self) -> None:
        trouble: OSError | None = None
        for _ in range(_READ_TRIES):
            with kept(self.path / "journal"):
                before = self._journal.segments()
                try:
                    self._jobs = {job.job_id: job for job in self._files.read()}
                    for path in self._journal.strangers():
                        self._files.found(path, "it is no segment of the journal")
                    self._segment = 0
                    self.in_journal = self._replay(self._journal.segments())
                except FileNotFoundError as exc:
                    trouble = exc
                    continue
                if set(before) <= set(self._journal.segments()):
                    return
        raise trouble or StoreUnavailableError(f"the files in {str(self.path)!r} change faster than they can be read")

    def _replay(self, segments: Iterable[int]) -> set[str]:
        """Read what the journal holds beyond what was read before; returns the jobs it is about.

        A segment is never added to once there is a later one.
        """
        changed: set[str] = set()
        for number in segments:
            if number < self._segment:
                continue
            since = self._mark if number == self._segment else Mark()
            records, self._mark = self._journal.read(number, since, self._damaged)
            self._segment = number
            for record in records:
                changed |= self._install(number, record)
        return changed

    def _install(self, number: int, record: bytes) -> set[str]:
        try:
            gone, documents = _parts_of(record)
        except DamagedDocumentError as exc:
            self._damaged(number, f"a record is no commit: {exc}")
            return set()
        changed = set(gone)
        for job_id in gone:
            self._jobs.pop(job_id, None)
        for document in documents:
            try:
                fields = _documents.upgraded(document)
                before = self._jobs.get(str(fields.get("job_id")))
                job = _documents.job_of(fields, before)
            except DamagedDocumentError as exc:
                self._damaged(number, f"a job in it: {exc}")
                continue
            if before is None or job.version >= before.version:
                self._jobs[job.job_id] = job
                changed.add(job.job_id)
        return changed

    def _damaged(self, number: int, reason: str) -> None:
        self._files.found(self.path / "journal" / f"{number:010}.log", reason, copy=True)

    def _hand_over(self) -> dict[str, JobRecord]:
        jobs, self._jobs = self._jobs, {}
        return jobs

    def _may_begin_anew(self) -> bool:
        """Tell whether the directory was emptied under our hands and is there again, for us to fill."""
        empty = not (self.path / "journal").exists() and not (self.path / "jobs").exists()
        return self.path.is_dir() and (self._emptied or empty)

    def _begin_anew(self, jobs: Mapping[str, JobRecord]) -> None:
        """Write everything again: what is in memory is all there is."""
        logger.error("%s was emptied; its %d jobs are written again", self.path, len(jobs))
        self._lock.release()
        self._lock.acquire()
        self._emptied = True
        for directory in (self.path / "jobs", self.path / "journal"):
            directory.mkdir(exist_ok=True)
        self._files.write(jobs.items())
        sync_directory(self.path)
        self._journal.close()
        self._journal.begin_segment()
        self._in_segment.clear()
        self._emptied = False


def _parts_of(record: bytes) -> tuple[list[str], list[object]]:
    """Take a commit apart: the ids of the jobs that are gone, and the documents of those that changed."""
    try:
        commit: Any = pydantic_core.from_json(record)
    except ValueError as exc:
        raise DamagedDocumentError(f"it is not JSON: {exc}") from None
    if not isinstance(commit, dict):
        raise DamagedDocumentError("it is not an object")
    gone, documents = commit.get("gone"), commit.get("jobs")
    if not isinstance(gone, list) or not isinstance(documents, list):
        raise DamagedDocumentError("it does not say which jobs are gone, and which changed")
    return [str(job_id) for job_id in gone], documents
