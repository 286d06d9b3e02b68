"""The report as text and as files in a folder; that the plot can be drawn, whatever there is to draw."""

import json
import sys
from pathlib import Path

import pytest

import openagents_json.demo
from openagents_json.demo import _plot
from openagents_json.demo._analysis import PackageReport, analyse, summarise
from openagents_json.demo._combine import Report, import_graph, rankings, totals
from openagents_json.demo._format import counted, percent
from openagents_json.demo._report import ForeignFileError, check_folder, to_text, write


def report_on(*packages: PackageReport) -> Report:
    names = [package.package for package in packages]
    return Report("3.99", totals(packages), import_graph(packages, [*names, "sys"]), rankings(packages))


def package(name: str, source: str) -> PackageReport:
    return summarise(name, [(f"{name}.py", analyse(source.encode(), f"{name}.py"))])


@pytest.fixture
def report() -> Report:
    """A report on three small packages, one of which cannot be parsed."""
    return report_on(
        package("one", "import two, sys\ndef function(a: int) -> int:\n    'It has a docstring.'\n"),
        package("two", "import one\nasync def function(): import sys\n"),
        package("broken", "print 1\n"),
    )


@pytest.fixture
def without_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep matplotlib from being imported."""
    monkeypatch.delattr(openagents_json.demo, "_plot")
    monkeypatch.delitem(sys.modules, _plot.__name__)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_the_text_names_the_figures_and_fits_a_terminal(report: Report) -> None:
    text = to_text(report)
    assert "3 packages and modules, 3 files, 6 lines" in text
    assert "  one, two\n" in text
    assert "Cannot be parsed: 1 file\n  broken.py: " in text
    assert "most async functions: two 1" in text.lower()
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()


def test_the_text_on_nothing_has_no_empty_tables() -> None:
    text = to_text(report_on())
    assert "0 packages and modules" in text
    assert "---" not in text


@pytest.mark.usefixtures("without_plot")
def test_without_matplotlib_the_report_says_how_to_get_the_plot(report: Report, tmp_path: Path) -> None:
    files = write(report, tmp_path)
    assert files.plot is None
    assert 'pip install "openagents-json[demo]"' in files.note
    assert Path(files.text).read_text(encoding="utf-8") == to_text(report)
    assert json.loads(Path(files.json).read_bytes())["totals"]["packages"] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.txt"]


@pytest.mark.usefixtures("without_plot")
def test_the_plot_of_an_earlier_run_does_not_stay_beside_a_new_report(report: Report, tmp_path: Path) -> None:
    (tmp_path / "report.png").write_bytes(b"\x89PNG ... openagents_json.demo ...")
    write(report, tmp_path)
    assert not (tmp_path / "report.png").exists()


def test_a_broken_matplotlib_is_not_called_missing(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(openagents_json.demo, "_plot")
    monkeypatch.setitem(sys.modules, _plot.__name__, None)
    files = write(report, tmp_path)
    assert files.plot is None
    assert files.note.startswith("no plot: matplotlib cannot be imported: ")


@pytest.mark.usefixtures("without_plot")
def test_a_report_takes_the_place_of_an_earlier_one(report: Report, tmp_path: Path) -> None:
    write(report_on(), tmp_path)
    write(report, tmp_path)
    assert "3 packages" in (tmp_path / "report.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["report.txt", "report.png", "report.json"])
def test_a_foreign_file_is_refused_and_left_alone(report: Report, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    with pytest.raises(ForeignFileError, match=rf"{name} exists and is none of this demo's files") as caught:
        write(report, tmp_path)
    assert caught.value.path == tmp_path / name
    assert [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == ["mine"]


def test_a_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    check_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


@pytest.mark.parametrize(
    "packages",
    [
        (),
        (("one", "\n"),),
        (("one", "a = 1\n"),),
        (("one", "import two\n"), ("two", "'It has a docstring.'\n" * 2000)),
        (("_one", "def function(): ...\n"),),
    ],
)
def test_a_plot_can_be_drawn_of_next_to_nothing(packages: tuple[tuple[str, str], ...]) -> None:
    picture = _plot.draw(report_on(*(package(name, source) for name, source in packages)), software="test")
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (None, "-"),
        (0.0, "0%"),
        (0.0001, "0.1%"),
        (0.054, "5.4%"),
        (0.5, "50%"),
        (0.9999, "99.9%"),
        (1.0, "100%"),
    ],
)
def test_percentages_do_not_round_to_none_or_all(fraction: float | None, shown: str) -> None:
    assert percent(fraction) == shown


def test_things_are_counted_in_words() -> None:
    assert (counted(1, "file"), counted(2000, "file"), counted(0, "class", "classes")) == (
        "1 file",
        "2,000 files",
        "0 classes",
    )
