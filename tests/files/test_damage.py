"""What cannot be read is set aside and reported, and costs no job but its own."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openagents_json.job._changes import Pause
from openagents_json.job._record import JobRecord
from openagents_json.job.storage import FileJobStore
from openagents_json.job.storage._jobfiles import SetAside
from openagents_json.testing import a_job, adding
from tests.files._tools import all_jobs, contents, document, job_file, opened, segments, soon_written, store_of


async def make_jobs(directory: Path, *names: str) -> dict[str, JobRecord]:
    """Make jobs in a directory, and close it: each has its file, and the journal is empty."""
    async with opened(directory) as driver:
        await driver.add(*(a_job(name, payload=b'{"of":"%s"}' % name.encode()) for name in names))
        return await all_jobs(store_of(driver))


async def what_is_left(directory: Path) -> tuple[dict[str, JobRecord], tuple[SetAside, ...]]:
    """Open a directory; gives the jobs in it, and what was set aside."""
    async with opened(directory) as driver:
        return await all_jobs(store_of(driver)), store_of(driver).set_aside


def replaced(text: str, by: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_text(encoding="utf-8")
        assert text in content
        path.write_text(content.replace(text, by), encoding="utf-8")

    return damage


def holding(data: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(data)

    return damage


def cut(fraction: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        os.truncate(path, int(path.stat().st_size * fraction))

    return damage


def instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


#: Ways to damage a job's file: what the reason says, and the damage.
DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "empty": ("it is not JSON", holding(b"")),
    "cut short": ("it is not JSON", cut(0.5)),
    "cut at its end": ("it is not JSON", cut(0.99)),
    "zeros": ("it is not JSON", holding(bytes(4096))),
    "binary": ("it is not JSON", holding(bytes(range(256)))),
    "no Unicode": ("it is not JSON", holding(b'{"format":1,"name":"\xff\xfe"}')),
    "two documents": ("it is not JSON", holding(b"{}\n{}")),
    "nested too deep": ("it is not JSON", holding(b"[" * 10_000)),
    "a list": ("it is not a job", holding(b"[1]")),
    "null": ("it is not a job", holding(b"null")),
    "foreign": ("it is not a job", holding(b'{"name":"package","version":"1.0"}')),
    "foreign with a format": ("is missing", holding(b'{"format":1,"name":"package"}')),
    "no format": ("it is not a job", replaced('"format"', '"fromat"')),
    "a format in words": ("it is not a job", replaced('"format": 1', '"format": "1"')),
    "a format that never was": ("which never was", replaced('"format": 1', '"format": 0')),
    "a field missing": ("is missing", replaced('"queue"', '"qu"')),
    "a state field missing": ("it is not a job", replaced('"version"', '"vers"')),
    "only its state": ("was created with", replaced('"name"', '"nam"')),
    "a wrong type": ("it is not a job", replaced('"version": 1', '"version": "many"')),
    "a null too many": ("it is not a job", replaced('"version": 1', '"version": null')),
    "a wrong status": ("it is not a job", replaced('"pending"', '"sleeping"')),
    "a wrong priority": ("it is not a job", replaced('"medium"', '"urgent"')),
    "a priority of a wrong type": ("it is not a job", replaced('"medium"', '["medium"]')),
    "a wrong time": ("it is not a job", replaced('"created_at": "2', '"created_at": "yesterday 2')),
    "an id of a wrong type": ("it is not a job", replaced('"job_id": "bad"', '"job_id": ["bad"]')),
    "a field too many": ("it is not a job", replaced('"version"', '"colour": "red", "version"')),
    "another job's": ("whose file has another name", replaced('"job_id": "bad"', '"job_id": "other"')),
    "the same job's in capitals": ("whose file has another name", replaced('"job_id": "bad"', '"job_id": "BAD"')),
    "a directory": ("it is not a file", instead(Path.mkdir)),
    "a pipe": ("it is not a file", instead(os.mkfifo)),
    "a link to nowhere": ("it is not a file", instead(lambda path: path.symlink_to("nowhere"))),
}


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_file_is_set_aside_and_costs_no_other_job(
    directory: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    before = await make_jobs(directory, "bad", "good", "other")
    reason, damage = DAMAGES[name]
    damage(job_file(directory, "bad"))
    is_file = job_file(directory, "bad").is_file()
    content = job_file(directory, "bad").read_bytes() if is_file else b""

    left, (aside,) = await what_is_left(directory)

    assert left == {name: job for name, job in before.items() if name != "bad"}
    assert reason in aside.reason
    assert aside.path.parent == directory / "quarantine"
    assert aside.path.is_symlink() or aside.path.exists()
    assert not is_file or aside.path.read_bytes() == content
    assert not job_file(directory, "bad").exists()
    (reported,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    for part in (str(job_file(directory, "bad")), str(aside.path), aside.reason):
        assert part in reported
    assert await what_is_left(directory) == (left, ()), "it is set aside once"


async def test_damage_of_every_kind_at_once_is_survived_on_every_disk(any_directory: Path) -> None:
    before = await make_jobs(any_directory, *(f"bad-{number}" for number in range(len(DAMAGES))), "good")
    for number, (_, damage) in enumerate(DAMAGES.values()):
        content = job_file(any_directory, f"bad-{number}").read_text(encoding="utf-8")
        job_file(any_directory, f"bad-{number}").write_text(content.replace(f"bad-{number}", "bad"), encoding="utf-8")
        damage(job_file(any_directory, f"bad-{number}"))
    left, aside = await what_is_left(any_directory)
    assert left == {"good": before["good"]}
    assert len({item.path for item in aside}) == len(aside) == len(DAMAGES)


async def test_what_a_broken_disk_cut_off_at_any_byte_is_set_aside(directory: Path) -> None:
    before = await make_jobs(directory, "bad", "good")
    whole = job_file(directory, "bad").read_bytes()
    for length in range(len(whole) - 1):
        job_file(directory, "bad").write_bytes(whole[:length])
        left, aside = await what_is_left(directory)
        assert (left, len(aside)) == ({"good": before["good"]}, 1)
    job_file(directory, "bad").write_bytes(whole[:-1])  # all but the last line's end
    assert await what_is_left(directory) == (before, ())


STRANGERS = [
    "README",
    "notes.txt",
    ".DS_Store",
    "good.json~",
    "x.json.bak",
    "%7a.json",
    "a b.json",
    "ü.json",
    "GOOD.json",
]


@pytest.mark.parametrize("name", STRANGERS)
async def test_a_strangers_file_among_the_jobs_is_set_aside(directory: Path, name: str) -> None:
    before = await make_jobs(directory, "good")
    shutil.copy(job_file(directory, "good"), directory / "jobs" / name)
    left, (aside,) = await what_is_left(directory)
    assert left == before
    assert aside.path == directory / "quarantine" / name


async def test_files_that_were_being_written_are_removed_without_a_word(directory: Path) -> None:
    before = await make_jobs(directory, "good")
    for name in ("good.json.tmp", "new.json.tmp"):
        (directory / "jobs" / name).write_bytes(job_file(directory, "good").read_bytes()[:100])
    (directory / "journal" / "start.tmp").write_bytes(b"")
    assert await what_is_left(directory) == (before, ())
    assert [path.name for path in (directory / "jobs").iterdir()] == ["good.json"]


async def test_a_directory_with_the_name_of_a_file_being_written_is_set_aside(directory: Path) -> None:
    before = await make_jobs(directory, "good")
    (directory / "jobs" / "good.json.tmp").mkdir()
    (directory / "jobs" / "good.json.tmp" / "inside").write_text("precious", encoding="utf-8")
    left, (aside,) = await what_is_left(directory)
    assert left == before
    assert (aside.path / "inside").read_text(encoding="utf-8") == "precious"


async def test_names_in_quarantine_do_not_collide(directory: Path) -> None:
    before = await make_jobs(directory, "good")
    targets = []
    for number in range(4):
        (directory / "jobs" / "bad.json").write_text(f"rubbish {number}", encoding="utf-8")
        left, (aside,) = await what_is_left(directory)
        assert left == before
        targets.append(aside.path)
    assert [path.read_text(encoding="utf-8") for path in targets] == [f"rubbish {number}" for number in range(4)]


async def test_a_job_whose_file_is_damaged_is_taken_from_the_journal(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job", description="first"))
        await soon_written(driver)
        await driver.do(Pause("job"))
        before = await all_jobs(store_of(driver))
        saved = contents(directory)
    shutil.rmtree(directory)
    restore(directory, saved)
    job_file(directory, "job").write_text("rubbish", encoding="utf-8")
    left, (aside,) = await what_is_left(directory)
    assert left == before
    assert aside.path.read_text(encoding="utf-8") == "rubbish"
    assert document(directory, "job")["status"] == "paused", "it has a file again"


async def test_a_job_that_depends_on_a_lost_one_waits(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("parent"), a_job("child", "parent"), a_job("grandchild", "child"), a_job("free"))
    job_file(directory, "parent").write_text("", encoding="utf-8")
    async with opened(directory) as driver:
        assert len(store_of(driver).set_aside) == 1
        assert (await driver.job("child")).unmet == 1
        await driver.complete("free")
        await driver.do(Pause("child"))
    left, _ = await what_is_left(directory)
    assert set(left) == {"child", "grandchild", "free"}


# ------------------------------------------------------------------------------------------------ the journal


def restore(directory: Path, saved: dict[str, bytes]) -> None:
    """Write the files of a directory as `contents` gave them."""
    (directory / "jobs").mkdir(parents=True)
    for name, data in saved.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)


@pytest.fixture
async def died(directory: Path) -> tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]]:
    """Leave a directory as after a death; gives the jobs after each commit, the segment, and all other files."""
    async with opened(directory) as driver:
        await driver.add(a_job("written"))
        await soon_written(driver)
        states = [await all_jobs(store_of(driver))]
        for number in range(4):
            await driver.apply(adding(a_job(f"a-{number}"), a_job(f"b-{number}")), Pause("written"))
            states.append(await all_jobs(store_of(driver)))
        (segment,) = segments(directory)
        saved = contents(directory)
    shutil.rmtree(directory)
    restore(directory, saved)
    return states, segment.read_bytes(), saved


def line_ends(data: bytes) -> Iterator[int]:
    """Give the offsets behind each line."""
    position = 0
    while position := data.find(b"\n", position) + 1:
        yield position


async def test_a_last_record_that_was_cut_short_at_any_byte_is_dropped(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]]
) -> None:
    states, data, saved = died
    (segment,) = segments(directory)
    begin = list(line_ends(data))[-2]
    for length in range(begin, len(data)):
        shutil.rmtree(directory)
        restore(directory, saved)
        segment.write_bytes(data[:length])
        async with opened(directory) as driver:
            assert await all_jobs(store_of(driver)) == states[-2]
            assert store_of(driver).set_aside == ()
            if length % 50 == 0:
                await driver.add(a_job("next"))
        if length % 50 == 0:
            left, aside = await what_is_left(directory)
            assert (set(left), aside) == ({*states[-2], "next"}, ())
    shutil.rmtree(directory)
    restore(directory, saved)
    assert await what_is_left(directory) == (states[-1], ())


@pytest.mark.parametrize("rest", [b"\0" * 500, b"0000", b"000000ff 00000000 {"], ids=["zeros", "length", "header"])
async def test_a_record_that_never_got_beyond_its_beginning_is_dropped(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]], rest: bytes
) -> None:
    states, data, _ = died
    segments(directory)[0].write_bytes(data + rest)
    assert await what_is_left(directory) == (states[-1], ())


@pytest.mark.parametrize("line", range(4))
@pytest.mark.parametrize("part", ["length", "checksum", "document", "line end"])
async def test_a_damaged_record_is_reported_and_costs_no_other(
    directory: Path,
    died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]],
    caplog: pytest.LogCaptureFixture,
    part: str,
    line: int,
) -> None:
    states, data, _ = died
    begins = [0, *line_ends(data)]
    offset = {"length": 7, "checksum": 12, "document": 60, "line end": begins[line + 1] - begins[line] - 1}[part]
    broken = bytearray(data)
    broken[begins[line] + offset] ^= 0x07
    (segment,) = segments(directory)
    segment.write_bytes(broken)

    left, aside = await what_is_left(directory)

    lost = {f"a-{line}", f"b-{line}"}
    if part == "line end" and line < 3:  # which takes the next line along
        lost |= {f"a-{line + 1}", f"b-{line + 1}"}
    assert set(left) == set(states[-1]) - lost
    assert len({item.path for item in aside}) == 1
    assert aside[0].path.read_bytes() == broken, "the whole segment is kept"
    assert any(f"bytes {begins[line]:,} to" in item.reason for item in aside)
    assert str(aside[0].path) in caplog.text
    assert await what_is_left(directory) == (left, ())


async def test_a_damaged_record_of_a_jobs_beginning_costs_that_job_alone(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("lost"))
        await driver.add(a_job("kept"))
        await driver.do(Pause("lost"))
        await driver.do(Pause("kept"))
        before = await all_jobs(store_of(driver))
        saved = contents(directory)
    shutil.rmtree(directory)
    restore(directory, saved)
    (segment,) = segments(directory)
    segment.write_bytes(segment.read_bytes().replace(b'"payload"', b'"PAYLOAD"', 1))
    left, aside = await what_is_left(directory)
    assert left == {"kept": before["kept"]}
    assert [item.reason.partition(" ")[0] for item in aside] == ["bytes", "a"]
    assert "created with" in aside[1].reason


async def test_a_newer_file_is_not_undone_by_what_is_left_of_the_journal(directory: Path) -> None:
    """The job file was written already, and the record of the last change is damaged."""
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        await driver.do(Pause("job"))
        before = await all_jobs(store_of(driver))
        saved = contents(directory)
    file = job_file(directory, "job").read_bytes()
    shutil.rmtree(directory)
    restore(directory, saved)
    job_file(directory, "job").write_bytes(file)
    (segment,) = segments(directory)
    segment.write_bytes(segment.read_bytes().replace(b'"paused"', b'"PAUSED"'))
    left, aside = await what_is_left(directory)
    assert left == before
    assert len(aside) == 1


#: What may stand in a segment: the number of things set aside.
RUBBISH: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 0),
    "a line end": (b"\n", 1),
    "zeros": (bytes(100_000), 0),
    "text": (b"once upon a time\n" * 50_000, 1),
    "bytes": (bytes(range(256)) * 4000, 1),
    "line ends": (b"\n" * 100_000, 1),
    "a record that is no JSON": (b"00000003 352441c2 abc\n", 1),
    "a record that is no object": (b"00000002 40eb9af7 12\n", 1),
    "a record of something else": (b"00000002 a505df1b {}\n".replace(b"a505df1b", b"99914b93"), 1),
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_a_segment_full_of_rubbish_is_kept_and_costs_no_job(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]], name: str
) -> None:
    states, _, _ = died
    data, number = RUBBISH[name]
    (segment,) = segments(directory)
    early, late = segment.with_name("0000000001.log"), segment.with_name("0000000077.log")
    (directory / "journal" / "start").unlink()
    for path in (early, late):
        path.write_bytes(data)
    left, aside = await what_is_left(directory)
    assert left == states[-1]
    assert len(aside) == 2 * number
    assert {item.path.name for item in aside} <= {early.name, late.name}
    for item in aside:
        assert item.path.read_bytes() == data
    assert await what_is_left(directory) == (states[-1], ())


async def test_rubbish_between_records_costs_no_record(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]]
) -> None:
    states, data, _ = died
    segments(directory)[0].write_bytes(b"".join(b"rubbish\n" + line for line in data.splitlines(keepends=True)))
    left, aside = await what_is_left(directory)
    assert left == states[-1]
    assert len(aside) == 4
    assert len(list((directory / "quarantine").iterdir())) == 1, "one copy is enough"


@pytest.mark.parametrize("name", ["notes.txt", "1.log", "00000000001.log", "٠٠٠٠٠٠٠٠٠٩.log", "0000000099.log.bak"])
async def test_a_strangers_file_in_the_journal_is_set_aside(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]], name: str
) -> None:
    states, data, _ = died
    (directory / "journal" / name).write_bytes(data)
    left, (aside,) = await what_is_left(directory)
    assert left == states[-1]
    assert aside.path == directory / "quarantine" / name
    assert aside.path.read_bytes() == data


@pytest.mark.parametrize("number", [1, 4, 5, 6])
async def test_a_directory_in_the_place_of_a_segment_is_set_aside(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]], number: int
) -> None:
    states, _, _ = died
    place = directory / "journal" / f"{number:010}.log"
    if place.exists():
        place.unlink()
        states = states[:1]
    place.mkdir()
    left, (aside,) = await what_is_left(directory)
    assert left == states[-1]
    assert aside.path == directory / "quarantine" / place.name


@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"\0" * 10, b"12345678901234567890123456789\n" * 300])
async def test_without_knowing_where_the_journal_begins_nothing_is_lost(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]], content: bytes | None
) -> None:
    states, _, _ = died
    start = directory / "journal" / "start"
    start.unlink()
    if content is not None:
        start.write_bytes(content)
    async with opened(directory) as driver:
        assert await all_jobs(store_of(driver)) == states[-1]
        await driver.add(a_job("next"))
    left, aside = await what_is_left(directory)
    assert (set(left), aside) == ({*states[-1], "next"}, ())


async def test_what_is_committed_after_the_segments_were_removed_by_hand_counts(
    directory: Path, died: tuple[list[dict[str, JobRecord]], bytes, dict[str, bytes]]
) -> None:
    states, _, _ = died
    for segment in segments(directory):
        segment.unlink()
    async with opened(directory) as driver:
        await driver.add(a_job("next"))
        saved = contents(directory)
    shutil.rmtree(directory)
    restore(directory, saved)
    left, aside = await what_is_left(directory)
    assert (set(left), aside) == ({*states[0], "next"}, ())


async def test_set_aside_is_empty_when_all_is_well(directory: Path) -> None:
    store = FileJobStore(directory)
    assert store.set_aside == ()
    async with opened(directory) as driver:
        assert store_of(driver).set_aside == ()
    assert not (directory / "quarantine").exists()
