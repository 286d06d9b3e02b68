"""The demo as a whole: as its users start it, and in this process where something has to go wrong."""

import json
import os
import re
import struct
import subprocess
from pathlib import Path

import pytest

from openagents_json import __version__
from openagents_json.demo import _jobs, _report
from openagents_json.demo.__main__ import main
from openagents_json.demo._analysis import FileReport, analyse
from openagents_json.demo._sources import library_root
from openagents_json.job import RetryPolicy
from tests.demo.programs import FEW, NO_PLOT_DEMO, run_bare

pytestmark = pytest.mark.usefixtures("in_empty_folder")


def test_on_a_terminal_there_are_bars(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="pseudo terminals are a Unix thing")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*NO_PLOT_DEMO, *FEW],
        stdout=subprocess.PIPE,
        stderr=theirs,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        text=True,
    )
    os.close(theirs)
    shown = _everything_from(ours)
    report, _ = process.communicate()
    assert process.returncode == 0, shown
    assert "extract" in shown
    assert "3/3" in shown
    assert "\x1b[?25h" in shown, "the cursor is back"
    assert "7 jobs in " in shown
    assert "jobs are kept in openagents-demo/jobs" in shown
    assert (tmp_path / "openagents-demo" / "report.txt").read_text(encoding="utf-8") == report


def test_all_files_are_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FEW]) == 0
    report = capsys.readouterr().out
    folder = tmp_path / "openagents-demo"
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["jobs", "report.json", "report.png", "report.txt"]
    assert len(list((folder / "jobs" / "jobs").iterdir())) == 7
    assert (folder / "report.txt").read_text(encoding="utf-8") == report
    assert re.search(r"^bisect +1 ", report, re.MULTILINE)
    picture = (folder / "report.png").read_bytes()
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", picture[16:24]) == (1870, 1210)
    assert len(picture) > 50_000
    # a second run takes the files for its own
    _report.check_folder(folder)


def test_json_without_matplotlib_and_rich_is_one_document_and_says_how_to_get_the_plot(tmp_path: Path) -> None:
    process = run_bare(*FEW, "--json", "--output", "here", "--jobs", "1", "--store", "memory")
    assert process.returncode == 0, process.stderr
    document = json.loads(process.stdout)
    assert document["status"] == "completed"
    assert document["jobs"] == 7
    assert (document["store"], document["resumed"]) == ("memory", None)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["here", "report.json", "report.txt"]
    assert document["totals"]["figures"]["files"] >= 7
    assert document["totals"]["rows"][0]["package"] == "json"
    assert set(document["imports"]["edges"]) == {"json", "tomllib", "bisect"}
    assert document["files"]["plot"] is None
    assert 'pip install "openagents-json[demo]"' in process.stderr
    assert "extract      3 of 3, last: " in process.stderr
    assert "\x1b" not in process.stderr
    assert json.loads((tmp_path / "here" / "report.json").read_bytes()).items() <= document.items()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--store", "sqlite:///jobs.db"], "jobs cannot be kept in 'sqlite:///jobs.db'; choose from: memory, file:DIR"),
        (["--store", "file:"], "argument --store: names no folder"),
        (["--store", "file:foreign"], "argument --store: "),
        (["--jobs", "0"], "must be a whole number from 1 on, not '0'"),
        (["--jobs", "many"], "must be a whole number from 1 on, not 'many'"),
        (["--packages", ","], "names no package"),
        (["--packages", "json,asynci"], "'asynci' is no package of the standard library; did you mean asyncio"),
        (["--packages", "sys"], "'sys' has no Python source here"),
        (["--output", "file"], "argument --output: "),
        (["--output", "foreign"], "none of this demo's files"),
        (["--output", "."], "holds something else than jobs"),
        (["--plot"], "unrecognized arguments: --plot"),
    ],
)
def test_wrong_usage_is_explained(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "mine").touch()
    (tmp_path / "foreign" / "report.txt").touch()
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    output, messages = capsys.readouterr()
    assert complaint in messages
    assert output == ""


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert f"openagents_json {__version__} " in capsys.readouterr().out


@pytest.mark.usefixtures("no_plot")
def test_a_file_that_cannot_be_parsed_is_counted_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def python_2(source: bytes, file: str) -> FileReport:
        return analyse(b"print 1\n" if file == "json/tool.py" else source, file)

    monkeypatch.setattr(_jobs, "analyse", python_2)
    assert main([*FEW, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["totals"]["unparsable"]) == ["json/tool.py"]


@pytest.mark.usefixtures("no_plot")
def test_a_job_that_fails_is_shown_with_its_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _without_delays(monkeypatch)
    monkeypatch.setattr(_jobs, "analyse", _broken)
    assert main([*FEW]) == 1
    output, messages = capsys.readouterr()
    assert output == ""
    assert re.search(r"failed: extract json \(job .*\) after 3 tries: ZeroDivisionError: json/", messages)
    assert "Traceback (most recent call last)" in messages
    assert [path.name for path in (tmp_path / "openagents-demo").glob("[!.]*")] == ["jobs"]


@pytest.mark.usefixtures("no_plot")
def test_a_job_that_fails_is_in_the_json_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_delays(monkeypatch)
    monkeypatch.setattr(_jobs, "analyse", _broken)
    assert main([*FEW, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["status"] == "failed"
    assert [(job["name"], job["attempt"], job["error"]["type"]) for job in document["failed"]] == [
        ("extract json", 3, "ZeroDivisionError")
    ]


@pytest.mark.usefixtures("no_plot")
def test_a_file_that_is_out_of_reach_for_a_moment_is_read_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _without_delays(monkeypatch)
    failures = [OSError("the network drive is away")]

    def read(source: bytes, file: str) -> FileReport:
        if file.startswith("json/") and failures:
            raise failures.pop()
        return analyse(source, file)

    monkeypatch.setattr(_jobs, "analyse", read)
    assert main([*FEW]) == 0
    assert "extract json is tried again: OSError: the network drive is away" in capsys.readouterr().err


def test_a_foreign_file_that_turns_up_meanwhile_is_not_overwritten(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    foreign = tmp_path / "openagents-demo" / "report.txt"

    def read(source: bytes, file: str) -> FileReport:
        foreign.write_text("mine", encoding="utf-8")
        return analyse(source, file)

    monkeypatch.setattr(_jobs, "analyse", read)
    assert main([*FEW]) == 1
    assert "failed: report (job " in capsys.readouterr().err
    assert foreign.read_text(encoding="utf-8") == "mine"


def test_an_interrupted_extract_job_does_not_pass_a_part_for_the_whole() -> None:
    class Stopping:
        cancelled = True

    package = _jobs.Package(root=library_root(), name="argparse")
    with pytest.raises(_jobs.InterruptedRunError, match="after 0 of 1 files"):
        _jobs.extract(package, Stopping())  # type: ignore[arg-type]


def _broken(source: bytes, file: str) -> FileReport:
    if file.startswith("json/"):
        raise ZeroDivisionError(file)
    return analyse(source, file)


def _without_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_jobs, "RETRIES", RetryPolicy.fixed(0.0))


def _everything_from(terminal: int) -> str:
    parts = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                part = stream.read(65536)
            except OSError:
                # Linux: the other side was closed
                break
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode()
