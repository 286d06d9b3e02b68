"""`Journal`: an append-only record of commits, in numbered segments. Synchronous file I/O.

A record is one line: its length and checksum (CRC-32), eight hexadecimal digits each, and a JSON document without
line breaks. It counts once it is flushed to the disk. A record that was cut short at the end of a segment was never
acknowledged, and is dropped; damage anywhere else is reported, and reading goes on with the next whole line.

The file ``start`` tells the first segment that still counts; earlier ones may be left over and are ignored. (Should
it be lost: read again, they do no harm, since the later ones are read after them.)
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HEADER = 18  # two numbers of eight digits, a space after each
_SEGMENT = re.compile(r"[0-9]{10}\.log")


class Mark(NamedTuple):
    """A place in a segment, behind a record."""

    offset: int = 0
    """in bytes"""
    last: int = 0
    """where the record before it begins"""
    header: bytes = b""
    """how that begins; tells whether it is still the same one"""


class Journal:
    """The segments of one directory.

    Args:
        directory: where they are; it must exist to be read or written.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._descriptor: int | None = None
        self._size = 0
        self._suspect = False

    @property
    def size(self) -> int:
        """Bytes in the present segment."""
        return self._size

    def segments(self) -> list[int]:
        """List the numbers of the segments that count, in order."""
        start = self._start()
        return sorted(number for path in self._segment_files() if (number := int(path.stem)) >= start)

    def strangers(self) -> list[Path]:
        """List what does not belong in the directory."""
        found = [path for path in self._directory.glob("*") if path.name not in {"start", "start.tmp"}]
        return sorted(path for path in found if not _SEGMENT.fullmatch(path.name) or path.is_dir())

    def read(self, number: int, since: Mark, damaged: Callable[[int, str], None]) -> tuple[list[bytes], Mark]:
        """Read whole records of a segment.

        Args:
            number: which segment.
            since: where to begin.
            damaged: called with the segment and what is wrong, for each stretch that is no record.

        Returns:
            The documents, and where the next one will begin.

        Raises:
            OSError: it cannot be read, or what was read before is not there any more.
        """
        with self._path(number).open("rb") as file:
            file.seek(since.last)
            data = file.read()
        if not data.startswith(since.header):
            raise OSError(f"{self._path(number)} has been cut off, and written to anew")
        records: list[bytes] = []
        last, position = 0, since.offset - since.last
        wrong_from = end = position
        while position < len(data) and not _is_cut_short(data, position):
            record = _record_at(data, position)
            if record is None:
                position = end = _next_line(data, position)
                continue
            if wrong_from < position:
                damaged(number, _no_record(since.last + wrong_from, since.last + position))
            records.append(record)
            last, position = position, position + _HEADER + len(record) + 1
            wrong_from = end = position
        if wrong_from < end:
            damaged(number, _no_record(since.last + wrong_from, since.last + end))
        return records, Mark(since.last + end, since.last + last, data[last : last + _HEADER])

    def begin_segment(self) -> int:
        """Go on in a new segment; returns its number.

        Raises:
            OSError: it cannot be made; the present one stays in use.
        """
        self.refuse_vanished()
        if self._suspect and self._descriptor is not None:
            self._cut_off(self._descriptor)
        number = max([self._number, self._start() - 1, *self.segments()]) + 1
        descriptor = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        try:
            sync_directory(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        self.close()
        self._number, self._descriptor, self._size, self._suspect = number, descriptor, 0, False
        return number

    def append(self, document: bytes) -> None:
        """Add a record and flush it: when this returns, it outlives the machine's power.

        Raises:
            OSError: it did not work. The record is cut off again, now or before the next one is added.
        """
        if self._descriptor is None:
            raise FileNotFoundError(f"the journal in {self._directory} is not open")
        self.refuse_vanished()
        if self._suspect:
            self._cut_off(self._descriptor)
        record = b"%s%s\n" % (_header(document), document)
        self._suspect = True
        try:
            write(self._descriptor, record)
            flush(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                self._cut_off(self._descriptor)
            raise
        self._suspect = False
        self._size += len(record)

    def refuse_vanished(self) -> None:
        """Refuse to write where nobody will find it again, or where another store is by now.

        Raises:
            FileNotFoundError: the present segment is not in the directory any more.
        """
        if self._descriptor is not None:
            there, mine = self._path(self._number).stat(), os.fstat(self._descriptor)
            if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
                raise FileNotFoundError(f"{self._path(self._number)} has been replaced by another file")

    def set_start(self, number: int) -> None:
        """Let the segments before this one count no more, once the directory is flushed."""
        beside = self._directory / "start.tmp"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write(descriptor, b"%d\n" % number)
            flush(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(self._directory / "start")

    def drop_uncounted(self) -> None:
        """Remove the segments that do not count."""
        start = self._start()
        for path in sorted(self._segment_files()):
            if int(path.stem) < start:
                drop(path)

    def close(self) -> None:
        """Close the present segment."""
        if self._descriptor is not None:
            if self._suspect:
                with contextlib.suppress(OSError):
                    self._cut_off(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _cut_off(self, descriptor: int) -> None:
        os.ftruncate(descriptor, self._size)
        flush(descriptor)
        self._suspect = False

    def _start(self) -> int:
        try:
            return int((self._directory / "start").read_bytes())
        except (FileNotFoundError, IsADirectoryError, ValueError):
            return 0

    def _segment_files(self) -> list[Path]:
        return [path for path in self._directory.glob("*.log") if _SEGMENT.fullmatch(path.name) and path.is_file()]

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:010}.log"


def write(descriptor: int, data: bytes) -> None:
    """Write all of the data."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def flush(descriptor: int) -> None:
    """Flush a file's data to the disk, and its size with it."""
    getattr(os, "fdatasync", os.fsync)(descriptor)


def drop(path: Path) -> None:
    """Remove a segment."""
    path.unlink(missing_ok=True)


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _record_at(data: bytes, position: int) -> bytes | None:
    """Read the record at a position, if there is a whole one."""
    length = _length_at(data, position)
    if length is None or length < 0:
        return None
    end = position + _HEADER + length
    document = data[position + _HEADER : end]
    whole = data[position : position + _HEADER] == _header(document) and data[end : end + 1] == b"\n"
    return document if whole else None


def _header(document: bytes) -> bytes:
    return b"%08x %08x " % (len(document), zlib.crc32(document))


def _length_at(data: bytes, position: int) -> int | None:
    """Read the length of the document in the record at a position."""
    try:
        return int(data[position : position + 8], 16)
    except ValueError:
        return None


def _is_cut_short(data: bytes, position: int) -> bool:
    """Tell whether the data end within what may be the beginning of a record."""
    if data.find(b"\n", position) >= 0:
        return False
    length = _length_at(data, position)
    return length is None or position + _HEADER + length >= len(data)


def _next_line(data: bytes, position: int) -> int:
    return data.find(b"\n", position) + 1 or len(data)


def _no_record(begin: int, end: int) -> str:
    return f"bytes {begin:,} to {end:,} are no record"
