"""``python -m openagents_json.demo``: the command line, what is printed, and the exit code.

Exit codes: 0 the report is there; 1 a job failed; 2 wrong usage, or another process works on the jobs in this folder;
130 interrupted with Ctrl-C. The report goes to stdout; progress, and where the files are, to stderr.

A run that did not come to its end, whatever the cause, is resumed by the same command, unless its jobs were kept in
memory. A run that is over, well or badly, is not: the same command begins anew.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from openagents_json._version import __version__
from openagents_json.demo import _analysis, _places, _report, _sources
from openagents_json.demo._format import counted
from openagents_json.demo._progress import PlainProgress, Progress
from openagents_json.demo._run import Plan, Result, finish, opened
from openagents_json.errors import OpenAgentsError, StoreLockedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from openagents_json.demo._batch import Batch
    from openagents_json.demo._places import Place
    from openagents_json.job import Job
    from openagents_json.job.storage import JobStore

FAILED, REFUSED, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; see the module for the exit codes.

    Args:
        arguments: those of the command line; None: the process's own.

    Raises:
        SystemExit: wrong usage, or only help was asked for.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return _main(parser, options)
    except KeyboardInterrupt:
        _say("interrupted before a job was run")
        return INTERRUPTED


def _main(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    root, folder = _sources.library_root(), options.output.absolute()
    try:
        packages = _selected(_sources.packages(root), options.packages)
    except (OSError, ValueError) as exc:
        parser.error(f"argument --packages: {exc}")
    try:
        _report.check_folder(folder)
        place = options.store or _places.folder(folder / _places.FOLDER)
    except OSError as exc:
        parser.error(f"argument --output: {exc}")
    plan = Plan(packages, root, folder, options.jobs)
    progress = _progress(plan.stages(), sys.stderr)
    store = place.make()
    try:
        with warnings.catch_warnings():
            _analysis.ignore_source_warnings()
            result = asyncio.run(_run(plan, place, store, progress))
        try:
            return _tell(result, place, as_json=options.json)
        finally:
            if store.traits.durable:
                _report.remember_shown(folder, result.batch_id)
    except KeyboardInterrupt:
        if not progress.begun:
            raise
        done, total = sum(progress.done.values()), sum(progress.totals.values())
        remedy = "; the same command goes on from there" if store.traits.durable else ""
        _say(f"interrupted: {done} of {total} jobs were done{remedy}")
        return INTERRUPTED
    except StoreLockedError as exc:
        _say(f"error: {exc.holder} works on the jobs in {place.shown}; wait for its end, or choose another folder")
        return REFUSED
    except OpenAgentsError as exc:
        _say(f"error: {exc}")
        return FAILED
    except BrokenPipeError:
        # whoever read the report has gone (`| head`); Python must not stumble over that again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _run(plan: Plan, place: Place, store: JobStore, progress: Progress) -> Result:
    async with opened(plan, store) as batch:
        # not before: a run that is refused says nothing else
        with progress:
            for line in _introduction(plan, place, batch):
                progress.note(line)
            progress.begin(batch.done)
            return await finish(plan, store, batch, progress)


def _introduction(plan: Plan, place: Place, batch: Batch) -> Iterator[str]:
    yield (
        f"Python {platform.python_version()}: {counted(len(plan.packages), 'package')} in {plan.root}; "
        f"jobs are kept in {place.shown}, {plan.concurrency} run at once"
    )
    for run in batch.dropped:
        yield (
            f"not resumed: {run.done} of {run.total} jobs were done in a run whose sources, options or files of jobs "
            "have changed since"
        )
    if batch.resumed is not None:
        run = batch.resumed
        yield f"resuming: {run.done} of {run.total} jobs were done, {run.interrupted} interrupted"
        if run.wait_seconds >= 1:
            yield f"what was interrupted several times in a row begins in {run.wait_seconds:.0f} s"


def _store(text: str) -> Place:
    try:
        return _places.parse(text)
    except (OSError, ValueError) as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"must be a whole number from 1 on, not {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        msg = "names no package; write for example: json,asyncio"
        raise argparse.ArgumentTypeError(msg)
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m openagents_json.demo",
        description="Measure the standard library of this Python, as a batch of jobs: one for each package, which "
        "parses its source files; some that combine what those found; one that makes the report.",
        epilog="A run that was killed or interrupted is finished by the same command. "
        "Exit codes: 0 the report is there, 1 a job failed, 2 wrong usage or folder in use, 130 interrupted.",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document instead of the text; nothing else goes to stdout"
    )
    parser.add_argument(
        "--store",
        type=_store,
        metavar="WHERE",
        help=f"where jobs are kept: {', '.join(_places.FORMS)} (default: in {_places.FOLDER}, beside the report)",
    )
    parser.add_argument(
        "--jobs", type=_count, default=4, metavar="N", help="how many jobs run at once (default: %(default)s)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("openagents-demo"),
        metavar="DIR",
        help=f"folder for {_report.TEXT}, {_report.PLOT} and {_report.JSON} (default: %(default)s)",
    )
    parser.add_argument(
        "--packages", type=_names, metavar="NAMES", help="only these, separated by commas (default: all)"
    )
    version = f"openagents_json {__version__} (Python {platform.python_version()})"
    parser.add_argument("--version", action="version", version=version)
    return parser


def _selected(packages: Mapping[str, int], names: Sequence[str] | None) -> Mapping[str, int]:
    """Restrict the packages to those named; refuse names that are none."""
    if not packages:
        msg = f"this Python keeps no source files of its standard library in {_sources.library_root()}"
        raise ValueError(msg)
    if names is None:
        return packages
    for name in names:
        if name not in packages:
            without_source = name in sys.stdlib_module_names
            reason = "has no Python source here" if without_source else "is no package of the standard library"
            similar = difflib.get_close_matches(name, packages, n=3)
            hint = f"; did you mean {' or '.join(similar)}?" if similar and not without_source else ""
            msg = f"{name!r} {reason}{hint}"
            raise ValueError(msg)
    return {name: packages[name] for name in dict.fromkeys(names)}


def _progress(stages: Mapping[str, int], stream: TextIO) -> Progress:
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        try:
            from openagents_json.demo._bars import BarProgress  # noqa: PLC0415 - needs rich, which may be missing
        except ImportError:
            pass
        else:
            return BarProgress(stages, stream)
    return PlainProgress(stages, stream)


def _tell(result: Result, place: Place, *, as_json: bool) -> int:
    about = {
        "jobs": result.jobs,
        "seconds": round(result.seconds, 3),
        "store": place.name,
        "resumed": result.resumed and {"done": result.resumed.done, "interrupted": result.resumed.interrupted},
    }
    if result.files is None:
        for job in result.failed:
            tries = f" after {job.attempt} tries" if job.attempt > 1 else ""
            _say(f"{job.status}: {job.name} (job {job.job_id}){tries}: {job.error}")
            if job.error is not None and job.error.traceback:
                _say(job.error.traceback.rstrip())
        if as_json:
            print(
                json.dumps({"status": "failed", **about, "failed": [_failure(job) for job in result.failed]}),
                flush=True,
            )
        return FAILED
    if as_json:
        report = json.loads(Path(result.files["json"]).read_bytes())
        print(json.dumps({"status": "completed", **about, "files": result.files, **report}), flush=True)
    else:
        print(Path(result.files["text"]).read_text(encoding="utf-8"), end="", flush=True)
    made = [result.files[kind] for kind in ("text", "plot", "json") if result.files[kind]]
    _say(f"{_effort(result)}; the report is in {_short(made)}")
    if result.files["note"]:
        _say(result.files["note"])
    return 0


def _effort(result: Result) -> str:
    if result.resumed is None:
        return f"{counted(result.jobs, 'job')} in {result.seconds:.1f} s"
    remaining = result.jobs - result.resumed.done
    return f"the remaining {counted(remaining, 'job')} in {result.seconds:.1f} s" if remaining else "no job was left"


def _failure(job: Job) -> dict[str, Any]:
    whole = job.to_dict()
    return {field: whole[field] for field in ("job_id", "name", "attempt", "error")}


def _short(files: Sequence[str]) -> str:
    """List files of one folder."""
    folder = Path(files[0]).parent
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f"{shown}: {', '.join(Path(file).name for file in files)}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
