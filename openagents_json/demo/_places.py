"""Where the demo keeps its jobs: from what the user said to a store. What a store can bear is the store's business."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openagents_json.job.storage import FileJobStore, MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openagents_json.job.storage import JobStore

#: The folder that holds the jobs, inside the one of the report, when the user says nothing.
FOLDER = "jobs"


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs are kept.

    Attributes:
        name: as the command line takes it, for scripts: ``memory``, ``file:/home/ada/jobs``.
        shown: for people.
        make: makes the store.
    """

    name: str
    shown: str
    make: Callable[[], JobStore]


def parse(text: str) -> Place:
    """Read what the user said.

    Raises:
        ValueError: jobs cannot be kept there.
        OSError: the folder cannot be read, or is somebody else's.
    """
    kind, colon, rest = text.partition(":")
    for form, place in _PLACES.items():
        if form.partition(":")[:2] == (kind, colon):
            return place(rest)
    msg = f"jobs cannot be kept in {text!r}; choose from: {', '.join(FORMS)}"
    raise ValueError(msg)


def folder(path: Path) -> Place:
    """Keep jobs in a folder, which is made when it is missing.

    Raises:
        OSError: it cannot be read, or is somebody else's.
    """
    path = path.absolute()
    _refuse_foreign(path)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return Place(f"file:{path}", str(shown), partial(FileJobStore, path))


def _named_folder(path: str) -> Place:
    if not path:
        msg = "names no folder; write for example: file:my-jobs"
        raise ValueError(msg)
    try:
        # a shell leaves a tilde behind a colon alone
        return folder(Path(path).expanduser())
    except RuntimeError as exc:
        raise ValueError(str(exc)) from exc


#: The places there are, by how they are written: up to the first colon, if there is one.
_PLACES: Mapping[str, Callable[[str], Place]] = {
    "memory": lambda _: Place("memory", "memory", MemoryJobStore),
    "file:DIR": _named_folder,
}
FORMS = tuple(_PLACES)


def _refuse_foreign(path: Path) -> None:
    """Keep the store away from folders of other use: it would set aside what it finds there."""
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is not a folder")
    # the lock is made first of all files: a store that was killed while it was made has only empty folders
    if not (path / "lock").exists() and any(not below.is_dir() for below in path.rglob("*")):
        raise FileExistsError(f"{path} exists and holds something else than jobs; choose another folder")
