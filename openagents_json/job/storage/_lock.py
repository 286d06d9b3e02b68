"""`DirectoryLock`: one process at a time writes to a directory. The kernel keeps the lock, and any death frees it.

`kept` and `alone` are for a moment: whoever reads many files asks for nothing to be removed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import weakref
from typing import TYPE_CHECKING

from openagents_json.errors import StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
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
        _held.add(self)

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            _held.discard(self)


@contextlib.contextmanager
def kept(directory: Path) -> Iterator[None]:
    """Keep others from being `alone` with a directory, as far as that is possible, while the block runs."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(_locked(directory, fcntl.LOCK_SH))
        yield


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Tell whether nobody has asked for a directory to be `kept`; if so, nobody can while the block runs."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_locked(directory, fcntl.LOCK_EX))
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _locked(directory: Path, kind: int) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _let_go_in_child() -> None:
    """Close the locks in a forked child: they are its parent's, and must not outlive that."""
    for lock in tuple(_held):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)


def _describe(holder: bytes) -> str:
    try:
        facts = json.loads(holder)
        return f"process {int(facts['pid'])} on {facts['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
