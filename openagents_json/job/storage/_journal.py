"""`Journal`: an append-only record of commits, in numbered segments. Synchronous file I/O.

A record is one line: its length and checksum (CRC-32), eight hexadecimal digits each, and a JSON document without
line breaks. It counts once it is flushed to the disk. A record that was cut short at the end of the last segment was
never acknowledged, and is dropped; damage anywhere else is reported, and reading goes on with the next whole line.

The file ``start`` tells the first segment that still counts; earlier ones may be left over and are ignored.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_HEADER = 18  # two numbers of eight digits, a space after each


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
        numbers = (int(path.stem) for path in self._directory.glob("*.log") if path.stem.isdecimal())
        return sorted(number for number in numbers if number >= start)

    def read(self, number: int, offset: int, damaged: Callable[[int, int, str], None]) -> tuple[list[bytes], int]:
        """Read whole records of a segment.

        Args:
            number: which segment.
            offset: where to begin, in bytes.
            damaged: called with segment, offset and what is wrong, for each stretch that is no record.

        Returns:
            The documents, and the offset behind the last whole record.
        """
        data = memoryview(self._path(number).read_bytes())[offset:]
        records: list[bytes] = []
        position = end = 0
        while position < len(data):
            record, after = _record_at(data, position)
            if record is not None:
                records.append(record)
                end = after
            elif bytes(data[after - 1 : after]) == b"\n":
                damaged(number, offset + position, "it is not what was written")
                end = after
            position = after
        return records, offset + end

    def begin_segment(self) -> int:
        """Go on in a new segment; returns its number.

        Raises:
            OSError: it cannot be made; the present one stays in use.
        """
        if self._suspect and self._descriptor is not None:
            self._cut_off(self._descriptor)
        number = max([self._number, *self.segments()]) + 1
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
        self._refuse_vanished(self._descriptor)
        if self._suspect:
            self._cut_off(self._descriptor)
        record = b"%08x %08x %s\n" % (len(document), zlib.crc32(document), document)
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

    def set_start(self, number: int) -> None:
        """Let the segments before this one count no more, once the directory is flushed."""
        beside = self._directory / "start.tmp"
        beside.write_text(f"{number}\n", encoding="ascii")
        beside.replace(self._directory / "start")

    def drop_uncounted(self) -> None:
        """Remove the segments that do not count."""
        start = self._start()
        for path in sorted(self._directory.glob("*.log")):
            if path.stem.isdecimal() and int(path.stem) < start:
                drop(path)

    def close(self) -> None:
        """Close the present segment."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _refuse_vanished(self, descriptor: int) -> None:
        """Refuse to write to a file that nobody will find again."""
        there, mine = self._path(self._number).stat(), os.fstat(descriptor)
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            raise FileNotFoundError(f"{self._path(self._number)} has been replaced by another file")

    def _cut_off(self, descriptor: int) -> None:
        os.ftruncate(descriptor, self._size)
        flush(descriptor)
        self._suspect = False

    def _start(self) -> int:
        try:
            return int((self._directory / "start").read_text(encoding="ascii"))
        except FileNotFoundError:
            return 0

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


def _record_at(data: memoryview, position: int) -> tuple[bytes | None, int]:
    """Read the record at a position; returns it, or None, and where to go on."""
    try:
        length = int(bytes(data[position : position + 8]), 16)
        checksum = int(bytes(data[position + 9 : position + 17]), 16)
    except ValueError:
        return None, _next_line(data, position)
    end = position + _HEADER + length
    document = bytes(data[position + _HEADER : end])
    if len(document) == length and bytes(data[end : end + 1]) == b"\n" and zlib.crc32(document) == checksum:
        return document, end + 1
    return None, _next_line(data, position)


def _next_line(data: memoryview, position: int) -> int:
    found = bytes(data[position:]).find(b"\n")
    return len(data) if found < 0 else position + found + 1
