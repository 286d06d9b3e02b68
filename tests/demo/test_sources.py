"""Which files are read."""

import json
import sys
from pathlib import Path

from openagents_json.demo._sources import digest, library_root, packages, source_files


def test_the_library_is_the_one_that_runs() -> None:
    sizes = packages(library_root())
    assert {"json", "asyncio", "argparse", "typing"} <= sizes.keys() <= sys.stdlib_module_names
    assert sizes.keys().isdisjoint({"sys", "test", "site-packages"})
    assert Path(json.__file__) in source_files(library_root(), "json")
    assert list(sizes) == sorted(sizes)
    assert all(sizes.values())


def test_tests_caches_and_foreign_packages_are_left_out(tmp_path: Path) -> None:
    for name in ("json/a.py", "json/sub/b.py", "json/test/c.py", "json/sub/tests/d.py", "json/__pycache__/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1\n")
    for name in ("argparse.py", "mine.py", "test.py", "sys.so"):
        (tmp_path / name).write_bytes(b"12\n")
    (tmp_path / "site-packages" / "json").mkdir(parents=True)
    assert packages(tmp_path) == {"argparse": 3, "json": 4}
    assert source_files(tmp_path, "json") == [tmp_path / "json/a.py", tmp_path / "json/sub/b.py"]
    assert source_files(tmp_path, "nothing") == []


def test_the_digest_changes_with_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    file, renamed = tmp_path / "json" / "a.py", tmp_path / "json" / "b.py"
    file.write_bytes(b"1\n")
    seen = {digest(tmp_path, ["json"])}
    assert digest(tmp_path, ["json", "argparse"]) in seen, "what has no files changes nothing"
    file.write_bytes(b"2\n")
    seen.add(digest(tmp_path, ["json"]))
    file.rename(renamed)
    seen.add(digest(tmp_path, ["json"]))
    renamed.unlink()
    renamed.symlink_to("nowhere")
    seen.add(digest(tmp_path, ["json"]))
    assert len(seen) == 4
    renamed.unlink()
    file.write_bytes(b"1\n")
    assert digest(tmp_path, ["json"]) in seen
