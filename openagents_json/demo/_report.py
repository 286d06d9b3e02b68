"""The report: as text, as JSON, and as files in a folder. The plot itself is drawn by `_plot`."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic_core
from typing_extensions import override

from openagents_json._version import __version__
from openagents_json.demo._format import counted, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from openagents_json.demo._combine import ImportGraph, Rankings, Report, Row, Totals

#: Stands near the beginning of every file of a report: that is how the demo knows its own files.
MARK = "openagents_json.demo"
#: What `write` makes in its folder.
TEXT, PLOT, JSON = "report.txt", "report.png", "report.json"

#: Says which run was shown last. It is hidden: for the demo itself.
_SHOWN = f".{MARK}"

HOW_TO_PLOT = 'no plot: matplotlib is not installed; pip install "openagents-json[demo]"'

_WIDTH = 100


class ForeignFileError(FileExistsError):
    """A file stands where a report would be written, and the demo did not write it.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    @override
    def __str__(self) -> str:
        return f"{self.path} exists and is none of this demo's files; move it away, or choose another folder"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a report, as absolute paths.

    Attributes:
        text: for reading.
        json: for scripts.
        plot: for looking at; None when it could not be drawn.
        note: why there is no plot; empty when there is one.
        digest: a checksum of their contents.
    """

    text: str
    json: str
    plot: str | None
    note: str
    digest: str

    def unchanged(self) -> bool:
        """Tell whether the files are there as they were written."""
        try:
            return _digest(self.text, self.json, self.plot) == self.digest
        except OSError:
            return False


def check_folder(folder: Path) -> None:
    """Make sure that a report may be written to a folder, which is created where it is missing.

    Raises:
        ForeignFileError: a file that is not the demo's stands in the way.
        OSError: the folder cannot be created or read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TEXT, PLOT, JSON):
        path = folder / name
        if path.is_dir() or (path.exists() and not _is_own(path)):
            raise ForeignFileError(path)


def write(report: Report, folder: Path) -> Files:
    """Write the report to a folder, in place of an earlier one.

    Raises:
        ForeignFileError: a file that is not the demo's stands in the way.
        OSError: it cannot be written.
    """
    check_folder(folder)
    _put(folder / TEXT, to_text(report).encode())
    _put(folder / JSON, pydantic_core.to_json(to_dict(report), indent=1) + b"\n")
    plot, note = folder / PLOT, ""
    try:
        from openagents_json.demo import _plot  # noqa: PLC0415 - needs matplotlib, which may be missing
    except ImportError as exc:
        missing = (exc.name or "matplotlib").partition(".")[0] == "matplotlib"
        note = HOW_TO_PLOT if missing else f"no plot: matplotlib cannot be imported: {exc}"
        # a plot of an earlier run would not fit this report
        plot.unlink(missing_ok=True)
    else:
        _put(plot, _plot.draw(report, software=MARK))
    text, json, drawn = str(folder / TEXT), str(folder / JSON), None if note else str(plot)
    return Files(text, json, drawn, note, _digest(text, json, drawn))


def remember_shown(folder: Path, run: str) -> None:
    """Note which run's report the user has seen, so that the next run begins anew; not worth an error."""
    with contextlib.suppress(OSError):
        _put(folder / _SHOWN, run.encode())


def last_shown(folder: Path) -> str:
    """Read which run's report the user saw last; empty when nothing says."""
    try:
        return (folder / _SHOWN).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def to_dict(report: Report) -> dict[str, Any]:
    """Give the report as plain values, for JSON."""
    return {"generator": MARK, "version": __version__, **asdict(report)}


def to_text(report: Report) -> str:
    """Give the report as text: ASCII, lines of at most 100 characters."""
    sections = (
        _heading(report),
        _largest(report.totals),
        _most_imported(report.imports),
        _cycles(report.imports),
        _longest_functions(report.rankings),
        _short_rankings(report.rankings),
        _unparsable(report.totals),
    )
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _heading(report: Report) -> list[str]:
    figures = report.totals.figures
    title = f"The standard library of Python {report.python}, read by {MARK}"
    packages = counted(report.totals.packages, "package or module", "packages and modules")
    classes = counted(figures.classes, "class", "classes")
    functions = counted(figures.functions, "function or method", "functions and methods")
    documented, annotated = percent(figures.docstring_coverage), percent(figures.annotation_coverage)
    return [
        title,
        "=" * len(title),
        "",
        f"{packages}, {counted(figures.files, 'file')}, {counted(figures.lines, 'line')}",
        f"{classes}, {functions}, {figures.async_functions:,} of them async",
        f"docstrings:  {documented} of {figures.documentable:,} public modules, classes and functions",
        f"annotations: {annotated} of {figures.annotatable:,} parameters and results",
    ]


def _largest(totals: Totals) -> list[str]:
    rows = [
        (
            row.package,
            f"{row.figures.files:,}",
            f"{row.figures.lines:,}",
            f"{row.figures.classes:,}",
            f"{row.figures.functions:,}",
            percent(row.figures.docstring_coverage),
            percent(row.figures.annotation_coverage),
        )
        for row in totals.rows[:15]
    ]
    header = ("Largest packages", "files", "lines", "classes", "functions", "docstrings", "annotated")
    return _table(header, rows)


def _most_imported(imports: ImportGraph) -> list[str]:
    rows = [
        (entry.package, str(entry.on_loading), str(entry.deferred), str(entry.on_loading + entry.deferred))
        for entry in imports.most_imported[:12]
    ]
    return _table(("Most imported, by packages", "on loading", "only later", "together"), rows)


def _cycles(imports: ImportGraph) -> list[str]:
    if not imports.cycles:
        return []
    return ["Import each other on loading", *(f"  {', '.join(names)}" for names in imports.cycles[:8])]


def _longest_functions(rankings: Rankings) -> list[str]:
    rows = [
        (function.name, f"{function.file}:{function.line}", f"{function.lines:,}")
        for function in rankings.longest_functions[:10]
    ]
    return _table(("Longest functions", "", "lines"), rows, left=2)


def _short_rankings(rankings: Rankings) -> list[str]:
    lines = (
        _ranking("Best documented", rankings.best_documented, lambda row: percent(row.figures.docstring_coverage)),
        _ranking("Least documented", rankings.least_documented, lambda row: percent(row.figures.docstring_coverage)),
        _ranking("Most annotated", rankings.most_annotated, lambda row: percent(row.figures.annotation_coverage)),
        _ranking("Most async functions", rankings.most_async, lambda row: str(row.figures.async_functions)),
    )
    return [line for line in lines if line]


def _ranking(title: str, rows: Sequence[Row], value: Callable[[Row], str]) -> str:
    """Put as many places as a line holds behind a title."""
    line = f"{title + ':':<22}"
    for number, row in enumerate(rows[:8]):
        entry = f"{', ' if number else ''}{row.package} {value(row)}"
        if len(line) + len(entry) > _WIDTH:
            break
        line += entry
    return line if rows else ""


def _unparsable(totals: Totals) -> list[str]:
    if not totals.unparsable:
        return []
    shown = [f"  {file}: {reason}"[:_WIDTH] for file, reason in list(totals.unparsable.items())[:10]]
    return [f"Cannot be parsed: {counted(len(totals.unparsable), 'file')}", *shown]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Align columns, the first `left` of them to the left; nothing when there are no rows."""
    lines = [header, *rows]
    if len(lines) == 1:
        return []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return [aligned[0].rstrip(), "-" * len(aligned[0]), *(line.rstrip() for line in aligned[1:])]


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK.encode() in file.read(1024)


def _digest(*paths: str | None) -> str:
    sums = hashlib.blake2b(digest_size=16)
    for path in filter(None, paths):
        sums.update(hashlib.blake2b(Path(path).read_bytes()).digest())
    return sums.hexdigest()


def _put(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a run that is killed leaves no half report."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.replace(path)
