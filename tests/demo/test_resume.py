"""Runs that come to no end, by kill -9 or Ctrl-C, and what the same command makes of them; runs after complete ones."""

import asyncio
import io
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from openagents_json.demo import _jobs, _sources
from openagents_json.demo.__main__ import _introduction, main
from openagents_json.demo._analysis import FileReport
from openagents_json.demo._bars import BarProgress
from openagents_json.demo._batch import Batch, Standing
from openagents_json.demo._places import parse
from openagents_json.demo._progress import PlainProgress
from openagents_json.demo._run import Plan
from openagents_json.job import EventType, Job, JobEvent, JobManager, JobStatus, RetryPolicy
from openagents_json.job.storage import FileJobStore
from tests.demo.programs import DEMO, FEW, run_bare, run_ending

pytestmark = pytest.mark.usefixtures("in_empty_folder", "no_plot")

FOLDER = Path("openagents-demo")
#: Where the demo keeps jobs when nothing is said.
STORE = FOLDER / "jobs"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of three modules: seven jobs."""
    root = tmp_path / "library"
    root.mkdir()
    for name in ("argparse", "bisect", "calendar"):
        (root / f"{name}.py").write_text("import sys\ndef function(): ...\n", encoding="utf-8")
    monkeypatch.setattr(_sources, "library_root", lambda: root)
    return root


@pytest.fixture
def interrupted(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run the demo in this process, with Ctrl-C when the first job has completed; gives the last line."""

    class InterruptedProgress(PlainProgress):
        @override
        def tell(self, event: JobEvent) -> None:
            super().tell(event)
            if event.type is EventType.COMPLETED and sum(self.done.values()) == 1:
                signal.raise_signal(signal.SIGINT)

    def run(*arguments: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr("openagents_json.demo.__main__.PlainProgress", InterruptedProgress)
            assert main(["--jobs", "1", *arguments]) == 130
        line = capsys.readouterr().err.splitlines()[-1]
        # nothing is begun any more: at most one job was under way beside the one that completed
        assert re.match(r"interrupted: [12] of 7 jobs were done", line)
        return line

    return run


def stored_jobs() -> dict[str, Job]:
    """Read the jobs as whoever opens the folder finds them, by name."""

    async def read() -> dict[str, Job]:
        async with JobManager(FileJobStore(STORE, read_only=True), run_jobs=False) as manager:
            return {job.name: job for job in await manager.list_jobs()}

    return asyncio.run(read())


def job_files() -> dict[str, dict[str, Any]]:
    """Read the files themselves, by the jobs' names."""
    documents = [json.loads(path.read_bytes()) for path in (STORE / "jobs").iterdir()]
    return {document["name"]: document for document in documents}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with SIGKILL")
def test_what_kill_9_left_over_is_finished_by_the_same_command() -> None:
    command = (*FEW, "--jobs", "2", "--json")
    killed = run_ending("SIGKILL", 2, *command)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == ""
    assert f"jobs are kept in {STORE}" in killed.stderr
    before = stored_jobs()
    done = {name for name, job in before.items() if job.status is JobStatus.COMPLETED}
    assert done == {"extract json", "extract tomllib"}
    assert before["extract bisect"].status is JobStatus.RUNNING

    finished = run_bare(*command)

    assert finished.returncode == 0, finished.stderr
    assert "resuming: 2 of 7 jobs were done, 1 interrupted\n" in finished.stderr
    assert "the remaining 5 jobs in " in finished.stderr
    document = json.loads(finished.stdout)
    assert document["resumed"] == {"done": 2, "interrupted": 1}
    assert document["store"] == f"file:{STORE.absolute()}"
    after = job_files()
    assert {job["status"] for job in after.values()} == {"completed"}
    assert {name: job["attempt"] for name, job in after.items() if job["attempt"] != 1} == {"extract bisect": 2}
    assert {name: datetime.fromisoformat(after[name]["completed_at"]) for name in done} == {
        name: before[name].completed_at for name in done
    }
    assert after.keys() == before.keys()
    assert main([*FEW, "--store", "memory", "--output", "undisturbed"]) == 0
    for name in ("report.txt", "report.json"):
        assert (FOLDER / name).read_bytes() == Path("undisturbed", name).read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_it_with_a_short_message_and_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    process = run_ending("SIGINT", 1, *FEW, "--jobs", "1", "--json")
    assert process.returncode == 130
    assert process.stdout == ""
    assert "Traceback" not in process.stderr
    message = process.stderr.splitlines()[-1]
    interrupted = re.fullmatch(r"interrupted: (\d) of 7 jobs were done; the same command goes on from there", message)
    assert interrupted is not None
    assert main([*FEW, "--json"]) == 0
    output, messages = capsys.readouterr()
    assert f"resuming: {interrupted[1]} of 7 jobs were done, " in messages
    assert json.loads(output)["resumed"]["done"] == int(interrupted[1])


def test_ctrl_c_with_jobs_in_memory_promises_nothing(interrupted: Callable[..., str]) -> None:
    assert interrupted("--store", "memory").endswith("jobs were done")
    assert interrupted().endswith("jobs were done; the same command goes on from there")


def test_ctrl_c_before_anything_runs_is_as_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def packages(root: Path) -> dict[str, int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sources, "packages", packages)
    assert main([]) == 130
    assert capsys.readouterr() == ("", "interrupted before a job was run\n")


async def test_a_second_process_on_the_same_folder_is_refused() -> None:
    store = FileJobStore(STORE)
    await store.open()
    try:
        refused = await asyncio.to_thread(subprocess.run, [*DEMO, *FEW], capture_output=True, text=True, check=False)
    finally:
        await store.close()
    assert refused.returncode == 2
    assert refused.stdout == ""
    expected = rf"error: process {os.getpid()} on \S+ works on the jobs in {STORE}; wait for its end, or choose .*\n"
    assert re.fullmatch(expected, refused.stderr)


@pytest.mark.usefixtures("library")
def test_after_a_complete_run_the_same_command_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    first, before = capsys.readouterr().out, job_files()
    assert main([]) == 0
    second, messages = capsys.readouterr()
    assert second == first
    assert "resum" not in messages
    assert "7 jobs in " in messages
    after = job_files()
    assert len(after) == 7, "the old ones are gone"
    ids = {job["job_id"] for job in before.values()}
    assert ids.isdisjoint(job["job_id"] for job in after.values())


def test_after_a_failed_run_the_same_command_begins_anew(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(source: bytes, file: str) -> FileReport:
        raise ZeroDivisionError(file)

    with monkeypatch.context() as patch:
        patch.setattr(_jobs, "analyse", broken)
        patch.setattr(_jobs, "RETRIES", RetryPolicy.fixed(0.0))
        assert main([]) == 1
    assert main(["--json"]) == 0
    assert json.loads(capsys.readouterr().out)["resumed"] is None
    assert {job["status"] for job in job_files().values()} == {"completed"}


def test_a_report_nobody_has_seen_is_shown_and_nothing_runs_again(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # as if the process had been killed between its last job and its last line
    with monkeypatch.context() as patch:
        patch.setattr("openagents_json.demo._report.remember_shown", lambda folder, run: None)
        assert main([]) == 0
    report, before = capsys.readouterr().out, job_files()
    assert main([]) == 0
    output, messages = capsys.readouterr()
    assert output == report
    assert "resuming: 7 of 7 jobs were done, 0 interrupted" in messages
    assert "no job was left; the report is in openagents-demo" in messages
    assert job_files() == before
    (FOLDER / ".openagents_json.demo").unlink()
    (FOLDER / "report.txt").unlink()
    assert main([]) == 0
    assert capsys.readouterr().out == report
    assert job_files().keys() == before.keys()
    assert job_files() != before, "without its files, a report is not there"


def test_changed_sources_are_analysed_anew(
    library: Path, interrupted: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = interrupted().split()[1]
    (library / "calendar.py").write_text("import sys\ndef functiom(): ...\n", encoding="utf-8")
    assert main([]) == 0
    output, messages = capsys.readouterr()
    assert "functiom" in output
    assert f"not resumed: {done} of 7 jobs were done in a run whose sources, options or" in messages
    assert len(job_files()) == 7


def test_a_run_that_lost_a_job_is_not_resumed(
    interrupted: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted("--json")
    lost = job_files()["extract calendar"]["job_id"]
    (STORE / "jobs" / f"{lost}.json").write_bytes(b"{")
    assert main(["--json"]) == 0
    output, messages = capsys.readouterr()
    assert json.loads(output)["resumed"] is None
    assert "not resumed: " in messages
    assert (STORE / "quarantine" / f"{lost}.json").exists()
    assert len(job_files()) == 7


def test_a_run_with_other_options_is_another_run(
    interrupted: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted()
    assert main(["--packages", "bisect", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["jobs"], document["resumed"]) == (5, None)
    assert len(job_files()) == 5


@pytest.mark.usefixtures("library")
async def test_jobs_of_others_in_the_same_folder_are_left_alone() -> None:
    async with JobManager(FileJobStore("shared"), run_jobs=False) as manager:
        theirs = await manager.create_job("report", handler="extract", tags=["load"], auto_start=True)
    for _ in range(2):
        # it brings an event loop of its own
        assert await asyncio.to_thread(main, ["--store", "file:shared"]) == 0
    async with JobManager(FileJobStore("shared", read_only=True), run_jobs=False) as manager:
        assert await manager.get_job(theirs.job_id) == theirs
        assert await manager.count_jobs() == 1 + 7
    assert not STORE.exists()


def test_bars_begin_with_what_was_done_before() -> None:
    stream = io.StringIO()
    with BarProgress({"extract": 4, "load": 1}, stream) as progress:
        progress.begin({"extract": 3})
    assert "3/4" in stream.getvalue()
    assert "0/1" in stream.getvalue()


def test_who_was_interrupted_too_often_to_begin_at_once_is_announced() -> None:
    plan = Plan({"bisect": 1}, Path("library"), FOLDER, 4)
    resumed = Standing(total=5, done=3, interrupted=1, wait_seconds=5.2)
    lines = list(_introduction(plan, parse("memory"), Batch("batch", "report", {}, resumed, ())))
    assert lines[1:] == [
        "resuming: 3 of 5 jobs were done, 1 interrupted",
        "what was interrupted several times in a row begins in 5 s",
    ]
