"""`JobFiles`: one readable JSON document for each job, in a directory. Synchronous file I/O.

A file is written beside its place and then renamed into it, so it is whole or the one before. What is found there
that cannot be a job is set aside, not deleted.

File names encode ids: letters that differ only in case become different names also on disks that ignore case.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openagents_json.job import _documents
from openagents_json.job._documents import DamagedDocumentError
from openagents_json.job.storage._journal import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from openagents_json.job._record import JobRecord

_UNSAFE = re.compile(r"[^a-z0-9._-]")
_REPORT_EVERY = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SetAside:
    """Something that was found among the jobs and could not be read as one.

    Attributes:
        path: where it is now, or, in a store opened for reading, where it was found.
        reason: what is wrong with it.
    """

    path: Path
    reason: str


def file_name(job_id: str) -> str:
    """Give the name of a job's file: capitals and ``:`` become ``%`` and two hexadecimal digits."""
    return _UNSAFE.sub(lambda found: f"%{ord(found[0]):02x}", job_id) + ".json"


class JobFiles:
    """The job files of a directory.

    Args:
        directory: where they are.
        quarantine: where to put what is no job; None: leave it, only report it.
    """

    def __init__(self, directory: Path, quarantine: Path | None) -> None:
        self._directory = directory
        self._quarantine = quarantine
        self._leftovers: list[Path] = []
        self._found: list[tuple[Path, str, bool]] = []
        self.set_aside: list[SetAside] = []

    def read(self) -> Iterator[JobRecord]:
        """Read all jobs; a long reading is reported in the log as it goes. Nothing is moved before `tidy`.

        Raises:
            NewerFormatError: a file was written by a later version.
        """
        self._leftovers, self._found = [], []
        entries = sorted(os.scandir(self._directory), key=lambda entry: entry.name)
        for position, entry in enumerate(entries):
            if position and position % _REPORT_EVERY == 0:
                logger.info("read %s of %s job files in %s", f"{position:,}", f"{len(entries):,}", self._directory)
            path = self._directory / entry.name
            if not entry.is_file():
                self.found(path, "it is not a file")
                continue
            if entry.name.endswith(".tmp"):
                self._leftovers.append(path)
                continue
            try:
                job = _documents.job_of(_documents.parse(path.read_bytes()))
                if file_name(job.job_id) != entry.name:
                    raise DamagedDocumentError(f"it holds job {job.job_id!r}, whose file has another name")
            except DamagedDocumentError as exc:
                self.found(path, str(exc))
            except FileNotFoundError:
                if self._quarantine is not None:
                    raise  # a reader's writer may remove files meanwhile; a writer has nobody beside it
            else:
                yield job

    def write(self, jobs: Iterable[tuple[str, JobRecord | None]]) -> None:
        """Write the files of jobs, remove those of deleted ones (None), and flush it all to the disk at once.

        Raises:
            OSError: not all was written.
        """
        for job_id, job in jobs:
            path = self._directory / file_name(job_id)
            if job is None:
                path.unlink(missing_ok=True)
            else:
                publish(path, _documents.readable(job))
        sync_file_system(self._directory)

    def found(self, path: Path, reason: str, *, copy: bool = False) -> None:
        """Note something that is not a job, to be moved (or copied) to the quarantine by `tidy`."""
        self._found.append((path, reason, copy))

    def tidy(self) -> None:
        """Set aside what was found that is not a job, and report it; remove what unfinished writing left behind."""
        if self._quarantine is None:
            self.set_aside = [SetAside(path, reason) for path, reason, _ in self._found]
            return
        self.set_aside = []
        targets: dict[Path, Path] = {}
        for path, reason, copy in self._found:
            if path not in targets:
                targets[path] = _put_aside(path, self._quarantine, copy=copy)
            logger.error("%s was set aside as %s: %s", path, targets[path], reason)
            self.set_aside.append(SetAside(targets[path], reason))
        for path in self._leftovers:
            path.unlink(missing_ok=True)


def publish(path: Path, data: bytes) -> None:
    """Write a file beside its place, then rename it into it."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_bytes(data)
    beside.replace(path)


def sync_file_system(directory: Path) -> None:
    """Flush everything written below the directory to the disk, in one call where the system has one."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if _libc is not None and _libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(descriptor)
    if _libc is None:
        for entry in os.scandir(directory):
            _sync_file(entry.path)
        sync_directory(directory)


def _load_libc() -> ctypes.CDLL | None:
    """Load the C library, for Linux' syncfs(2), which Python does not offer."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None, use_errno=True)
    return library if hasattr(library, "syncfs") else None


_libc = _load_libc()


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put_aside(path: Path, quarantine: Path, *, copy: bool) -> Path:
    quarantine.mkdir(exist_ok=True)
    target = _free_name(quarantine / path.name)
    if copy:
        target.write_bytes(path.read_bytes())
    else:
        path.rename(target)
    return target


def _free_name(path: Path) -> Path:
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}.{number}")
    return candidate
