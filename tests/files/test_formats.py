"""Documents of an older format are upgraded on reading; those of a newer one are refused and left alone."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openagents_json.errors import StoreError
from openagents_json.job import _documents
from openagents_json.job._changes import Pause
from openagents_json.job._documents import NewerFormatError
from openagents_json.job.storage import FileJobStore
from openagents_json.testing import a_job
from tests.files._tools import all_jobs, contents, document, job_file, opened, segments, store_of


async def make_jobs(directory: Path) -> None:
    """Leave jobs as after a death: one only in its file, one only in the journal, whole, and one in both."""
    async with opened(directory) as driver:
        await driver.add(a_job("file", description="a"), a_job("both", description="b"))
    async with opened(directory) as driver:
        await driver.do(Pause("both"))
        await driver.add(a_job("journal", description="c"))
        await driver.do(Pause("journal"))
        saved = contents(directory)
    shutil.rmtree(directory)
    for name, data in saved.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


def third_format(monkeypatch: pytest.MonkeyPatch, **upgrades: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Become a later version, of format 3, that knows how to upgrade 1 and 2."""
    known = {"one": upgrades.get("one", to_second), "two": upgrades.get("two", to_third)}
    monkeypatch.setattr(_documents, "FORMAT", 3)
    monkeypatch.setattr(_documents, "UPGRADES", {1: known["one"], 2: known["two"]})


def to_second(document: dict[str, Any]) -> dict[str, Any]:
    """Upgrade a document to format 2, where every description is longer; a job's state has none."""
    if "description" in document:
        document = document | {"description": document["description"] + ", second"}
    return document | {"format": 2}


def to_third(document: dict[str, Any]) -> dict[str, Any]:
    """Upgrade a document to format 3, where progress is told in words."""
    assert document["format"] == 2
    return document | {"format": 3, "progress_message": "upgraded"}


async def test_older_formats_are_upgraded_step_by_step(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_jobs(directory)
    before = await all_jobs_in(directory)
    third_format(monkeypatch)
    after = await all_jobs_in(directory)
    for name, job in before.items():
        spec = job.spec._replace(description=f"{job.spec.description}, second")
        assert after[name] == job._replace(spec=spec, progress_message="upgraded")
    async with opened(directory) as driver:
        assert store_of(driver).set_aside == ()
        assert await all_jobs(store_of(driver)) == after, "also once files are written anew"
        await driver.do(Pause("file"))
    assert [document(directory, name)["format"] for name in ("file", "both", "journal")] == [3, 3, 3]


async def all_jobs_in(directory: Path) -> dict[str, Any]:
    """Read a directory's jobs without changing anything in it."""
    async with opened(directory, read_only=True) as driver:
        return await all_jobs(store_of(driver))


def unknown_to_it(document: dict[str, Any]) -> dict[str, Any]:
    """Fail as an upgrade does on a document that is none."""
    return {"format": 2, "name": document["surname"]}


def wrong_for_it(document: dict[str, Any]) -> dict[str, Any]:
    """Fail as an upgrade does on a field of a wrong type."""
    return document | {"version": int(document["description"])}


@pytest.mark.parametrize("upgrade", [unknown_to_it, wrong_for_it])
async def test_a_document_that_cannot_be_upgraded_is_set_aside(
    directory: Path, monkeypatch: pytest.MonkeyPatch, upgrade: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("old", description="x"))
    third_format(monkeypatch, one=upgrade)
    async with opened(directory) as driver:
        assert await all_jobs(store_of(driver)) == {}
        (aside,) = store_of(driver).set_aside
        assert "format 1" in aside.reason


async def test_a_newer_format_is_refused_and_nothing_is_touched(
    any_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        third_format(later)
        await make_jobs(any_directory)
    await check_refused(any_directory, 3)


@pytest.mark.parametrize("where", ["file", "journal"])
async def test_one_newer_document_among_others_is_refused_and_nothing_is_touched(directory: Path, where: str) -> None:
    """It may be what somebody's mixed installation left: what else looks damaged there may be newer, too."""
    await make_jobs(directory)
    (directory / "jobs" / "a-damaged.json").write_text("{", encoding="utf-8")
    (directory / "jobs" / "z-damaged.json").write_text("{", encoding="utf-8")
    (directory / "jobs" / "unfinished.json.tmp").write_text("{", encoding="utf-8")
    (directory / "journal" / "notes.txt").write_text("foreign", encoding="utf-8")
    if where == "file":
        text = job_file(directory, "file").read_text(encoding="utf-8")
        job_file(directory, "file").write_text(text.replace('"format": 1', '"format": 2'), encoding="utf-8")
    else:
        async with opened(directory.with_name("other")) as driver:
            with pytest.MonkeyPatch.context() as later:
                later.setattr(_documents, "FORMAT", 2)
                await driver.add(a_job("newer"))
            data = segments(directory.with_name("other"))[0].read_bytes()
        (directory / "journal" / "0000000500.log").write_bytes(data)
    await check_refused(directory, 2)


async def check_refused(directory: Path, found: int) -> None:
    """Check that a directory can be opened neither way, and is as it was afterwards, but for who locked it last."""
    before = contents(directory, but=["lock"])
    for read_only in (False, True):
        with pytest.raises(NewerFormatError) as caught:
            await FileJobStore(directory, read_only=read_only).open()
        assert isinstance(caught.value, StoreError)
        for part in (str(directory), f"format {found}", "knows 1", "install a newer one"):
            assert part in str(caught.value)
    assert contents(directory, but=["lock"]) == before
    assert not (directory / "quarantine").exists()


async def test_a_reader_beside_a_newer_writer_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("old"))
    async with opened(directory, read_only=True) as reader:
        assert set(await all_jobs(store_of(reader))) == {"old"}
        with monkeypatch.context() as later:
            third_format(later)
            async with opened(directory) as driver:
                await driver.add(a_job("new"))
        for _ in range(2):
            with pytest.raises(NewerFormatError, match="format 3"):
                await all_jobs(store_of(reader))
