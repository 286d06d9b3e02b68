"""Which files the demo reads: the standard library's own modules, without its tests. Does not look into them."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Directories that are no part of the library proper, wherever they stand.
_SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test"})


def library_root() -> Path:
    """Give the directory of the running Python's standard library; a Python in a zip file has none."""
    return Path(sysconfig.get_path("stdlib"))


def packages(root: Path) -> dict[str, int]:
    """List what can be imported from the standard library and has Python source.

    Which names belong to it, Python itself says (`sys.stdlib_module_names`).

    Returns:
        The names of top-level packages and modules, in alphabetical order, with the size of their sources in bytes.

    Raises:
        OSError: the directory cannot be read.
    """
    sizes = {
        name: sum(file.stat().st_size for file in source_files(root, name))
        for name in sorted({path.stem for path in root.iterdir()} & sys.stdlib_module_names)
    }
    return {name: size for name, size in sizes.items() if size}


def source_files(root: Path, package: str) -> list[Path]:
    """List the source files of a top-level package, or the one file of a module, in a fixed order."""
    directory = root / package
    if not directory.is_dir():
        file = root / f"{package}.py"
        return [file] if file.is_file() else []
    return sorted(file for file in directory.rglob("*.py") if _SKIPPED.isdisjoint(file.relative_to(root).parts))


def digest(root: Path, packages: Iterable[str]) -> str:
    """Compute a checksum of the packages' source files: it changes when one is added, removed, renamed or changed."""
    sums = hashlib.blake2b(digest_size=16)
    for file in (file for package in packages for file in source_files(root, package)):
        try:
            content = file.read_bytes()
        except OSError as exc:
            # whoever has to read it will say so
            content = type(exc).__name__.encode()
        sums.update(b"%s\0%d\0%s" % (os.fsencode(file.relative_to(root).as_posix()), len(content), content))
    return sums.hexdigest()
