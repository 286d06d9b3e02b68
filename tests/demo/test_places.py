"""Where the user may say that jobs are kept."""

from pathlib import Path

import pytest

from openagents_json.demo._places import folder, parse
from openagents_json.job.storage import FileJobStore, MemoryJobStore


def test_jobs_may_be_kept_in_memory() -> None:
    place = parse("memory")
    assert (place.name, place.shown) == ("memory", "memory")
    assert isinstance(place.make(), MemoryJobStore)


def test_jobs_may_be_kept_in_a_folder_that_need_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (parse("file:my/jobs"), folder(Path("my/jobs"))):
        assert (place.name, place.shown) == (f"file:{tmp_path / 'my' / 'jobs'}", str(Path("my/jobs")))
        assert isinstance(place.make(), FileJobStore)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_elsewhere_is_shown_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("file:~/jobs").shown == str(tmp_path / "jobs")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sqlite:///jobs.db", "'sqlite:///jobs.db'; choose from: memory, file:DIR"),
        ("postgresql://localhost/jobs", "choose from: memory, file:DIR"),
        ("", "choose from: "),
        ("file", "choose from: "),
        ("memory:x", "choose from: "),
        ("file:", "names no folder"),
        ("file:~nobody-of-this-name/jobs", "home"),
    ],
)
def test_what_is_no_place_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text)


@pytest.mark.parametrize("found", ["mine", "jobs/mine.json"])
def test_a_folder_of_other_use_is_refused(tmp_path: Path, found: str) -> None:
    (tmp_path / found).parent.mkdir(exist_ok=True)
    (tmp_path / found).touch()
    with pytest.raises(FileExistsError, match="holds something else than jobs"):
        folder(tmp_path)
    (tmp_path / found).rename(tmp_path / "lock")
    assert folder(tmp_path).name == f"file:{tmp_path}"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        folder(tmp_path / "file")


def test_a_store_that_was_killed_while_it_was_made_is_taken(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "journal").mkdir()
    assert folder(tmp_path).name == f"file:{tmp_path}"
