"""Directories on real disks: most tests take the quickest there is, the core ones every kind."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openagents_json.testing import ManualClock

#: A file system in memory: its flushes cost nothing.
_TMPFS = Path("/dev/shm")  # noqa: S108 # a place for a directory of our own, made safely


@pytest.fixture(scope="session")
def tmpfs() -> Iterator[Path | None]:
    """Make a directory on a tmpfs; None where there is none."""
    if not _TMPFS.is_dir():
        yield None
        return
    with tempfile.TemporaryDirectory(dir=_TMPFS, prefix="openagents-tests-") as place:
        yield Path(place)


@pytest.fixture
def place(tmpfs: Path | None, tmp_path: Path) -> Iterator[Path]:
    """Make an empty directory on the quickest file system there is."""
    if tmpfs is None:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=tmpfs) as place:
        yield Path(place)


@pytest.fixture
def directory(place: Path) -> Path:
    """Name a directory for jobs that does not exist yet, on the quickest file system there is."""
    return place / "jobs here"


@pytest.fixture(params=["disk", "tmpfs"])
def any_directory(request: pytest.FixtureRequest, tmp_path: Path, tmpfs: Path | None) -> Iterator[Path]:
    """Name a directory for jobs that does not exist yet, on each kind of file system in turn."""
    if request.param == "disk":
        yield tmp_path / "jobs here"
        return
    if tmpfs is None:
        pytest.skip(f"this machine has no tmpfs at {_TMPFS}")
    with tempfile.TemporaryDirectory(dir=tmpfs) as place:
        yield Path(place) / "jobs here"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()
