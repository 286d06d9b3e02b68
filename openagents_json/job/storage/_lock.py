"""`DirectoryLock`: one process at a time writes to a directory. The kernel keeps the lock, and any death frees it."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

from openagents_json.errors import StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]


class DirectoryLock:
    """The lock of one directory.

    Args:
        path: the lock file; it says who holds the lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StoreLockedError: somebody else holds it.
            OSError: the file cannot be made.
        """
        if fcntl is None:
            raise OSError("this system has no flock(2), which the file store needs to keep other processes out")
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0)
            os.close(descriptor)
            raise StoreLockedError(str(self._path.parent), _describe(holder)) from None
        except OSError:
            os.close(descriptor)
            raise
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode() + b"\n", 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _describe(holder: bytes) -> str:
    try:
        facts = json.loads(holder)
        return f"process {int(facts['pid'])} on {facts['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
