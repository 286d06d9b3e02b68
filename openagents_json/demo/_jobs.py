"""The demo's jobs: their payloads, their handlers, and the batch that ties them together.

::

    extract asyncio ─┐
    extract json    ─┼─> totals ───┐
    ...              ├─> imports ──┼─> report
    extract zoneinfo ┴─> rankings ─┘

The handlers are plain functions, so they run in threads. They work from their payload and from the results of the
jobs they depend on, and from nothing else: any process that has them registered can run any of the jobs, and so can
finish what another one began.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, TypeAdapter

from openagents_json.demo import _combine, _report
from openagents_json.demo._analysis import PackageReport, analyse, summarise
from openagents_json.demo._combine import ImportGraph, Rankings, Report, Totals
from openagents_json.demo._sources import source_files
from openagents_json.job import JobContext, JobPriority, NonRetryableError, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openagents_json.app import OpenAgentsApp
    from openagents_json.demo._analysis import FileReport
    from openagents_json.job import BatchJob, JobOptions

#: The stages, in their order; each job has its stage as its first tag.
EXTRACT, TRANSFORM, LOAD = STAGES = ("extract", "transform", "load")

#: The demo's own queue, so that it takes no job of anybody else for its own.
QUEUE = "openagents-demo"

#: Under this name each job's metadata says which run it belongs to.
RUN = "run"

#: A file may be out of reach for a moment, on a network drive say.
RETRIES = RetryPolicy.exponential(0.2, max_delay=2.0)

#: The largest packages start first, so that no long one is left over when all others are done.
_LARGE_BYTES = 200_000


class Package(BaseModel):
    """What an extract job works on: a package below the library's directory."""

    root: Path
    name: str


class Library(BaseModel):
    """What is known beforehand about the library as a whole: the names that belong to it."""

    names: list[str]


class Destination(BaseModel):
    """Where the report goes, and the version of the Python it is about."""

    folder: Path
    python: str


class InterruptedRunError(Exception):
    """The job was asked to stop before it was done."""


_package_reports = TypeAdapter(tuple[PackageReport, ...])


def register(app: OpenAgentsApp) -> None:
    """Register the demo's handlers."""
    app.register_handler("extract", extract)
    app.register_handler("totals", totals)
    app.register_handler("imports", imports)
    app.register_handler("rankings", rankings)
    app.register_handler("report", report)


def batch(packages: Mapping[str, int], root: Path, folder: Path, python: str, *, run: str) -> list[BatchJob]:
    """Describe the jobs of a run.

    Args:
        packages: the names of the packages, with the size of their sources in bytes.
        root: the library's directory.
        folder: where the report goes.
        python: the version of the Python it is about.
        run: which run they belong to.
    """
    # here it is the user who ends processes, as often as he likes; no job is to blame for it
    common: JobOptions = {"queue": QUEUE, "metadata": {RUN: run}, "max_recoveries": None}
    retried: JobOptions = {**common, "max_retries": 2, "retry_policy": RETRIES}
    jobs: list[BatchJob] = [
        {
            **retried,
            "name": f"extract {name}",
            "handler": "extract",
            "payload": Package(root=root, name=name),
            "tags": [EXTRACT],
            "priority": JobPriority.HIGH if size >= _LARGE_BYTES else JobPriority.MEDIUM,
        }
        for name, size in packages.items()
    ]
    extracts = range(len(jobs))
    transforms = range(len(jobs), len(jobs) + 3)
    jobs += [
        {**common, "name": "totals", "tags": [TRANSFORM], "dependencies": extracts},
        {
            **common,
            "name": "imports",
            "payload": Library(names=sorted(sys.stdlib_module_names)),
            "tags": [TRANSFORM],
            "dependencies": extracts,
        },
        {**common, "name": "rankings", "tags": [TRANSFORM], "dependencies": extracts},
    ]
    jobs.append(
        {
            **retried,
            "name": "report",
            "payload": Destination(folder=folder, python=python),
            "tags": [LOAD],
            "dependencies": transforms,
        }
    )
    return jobs


def extract(package: Package, context: JobContext) -> PackageReport:
    """Analyse the source files of a package."""
    files = source_files(package.root, package.name)
    reports: list[tuple[str, FileReport]] = []
    for number, file in enumerate(files):
        if context.cancelled:
            # not `return`: what is returned counts as the whole result
            msg = f"stopped after {number} of {len(files)} files"
            raise InterruptedRunError(msg)
        path = file.relative_to(package.root).as_posix()
        context.set_progress(number / len(files), path)
        reports.append((path, analyse(file.read_bytes(), path)))
    return summarise(package.name, reports)


def totals(context: JobContext) -> Totals:
    """Add up what the extract jobs found."""
    return _combine.totals(_extracted(context))


def imports(library: Library, context: JobContext) -> ImportGraph:
    """Find out who imports whom."""
    return _combine.import_graph(_extracted(context), library.names)


def rankings(context: JobContext) -> Rankings:
    """Rank packages and functions."""
    return _combine.rankings(_extracted(context))


def report(destination: Destination, context: JobContext) -> _report.Files:
    """Write the report, from the three results it depends on."""
    sums, graph, places = context.dependency_results.values()
    whole = Report(
        python=destination.python,
        totals=TypeAdapter(Totals).validate_python(sums),
        imports=TypeAdapter(ImportGraph).validate_python(graph),
        rankings=TypeAdapter(Rankings).validate_python(places),
    )
    try:
        return _report.write(whole, destination.folder)
    except _report.ForeignFileError as exc:
        # a person has to look at it: trying again would not help
        raise NonRetryableError(str(exc)) from exc


def _extracted(context: JobContext) -> tuple[PackageReport, ...]:
    """Read the extract jobs' results, which come as plain JSON values."""
    return _package_reports.validate_python(tuple(context.dependency_results.values()))
