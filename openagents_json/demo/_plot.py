"""The report as a picture. Needs matplotlib; draws without a display, and in any thread (no pyplot).

Five panels: the largest packages, who imports whom, what is imported most, how size and docstrings go together, and
the longest functions. A panel that has nothing to show says so.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from typing import TYPE_CHECKING

from matplotlib import colormaps, style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, hsv_to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from openagents_json.demo._format import counted, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

    from openagents_json.demo._combine import ImportGraph, Rankings, Report, Row, Totals

_INK, _FAINT, _RULE, _NO_VALUE = "#22303c", "#6b7a87", "#dfe5ea", "#c4ccd3"
_DARK, _LIGHT, _PALE = "#2b6ca3", "#a9cbe6", "#f2c9a1"
_COVERAGE_COLOURS = colormaps["viridis_r"]

_INCHES, _DOTS_PER_INCH = (17, 11), 110
_CIRCLE_BOX = (0.365, 0.335, 0.325, 0.535)
_BARS, _IN_CIRCLE, _PLACES, _FUNCTIONS = 30, 36, 15, 12


def draw(report: Report, *, software: str) -> bytes:
    """Draw the report.

    Args:
        report: what to draw.
        software: the name of the program, for the picture's metadata.

    Returns:
        A PNG picture of 1870 by 1210 pixels.
    """
    # the same picture everywhere, whatever the user's matplotlibrc says
    with style.context("default", after_reset=True):
        figure = Figure(figsize=_INCHES, dpi=_DOTS_PER_INCH, facecolor="white")
        FigureCanvasAgg(figure)
        _largest(figure.add_axes((0.082, 0.05, 0.225, 0.82)), report.totals)
        _circle(figure.add_axes(_CIRCLE_BOX), report.imports)
        _documentation(figure.add_axes((0.365, 0.07, 0.325, 0.205)), report.totals)
        _most_imported(figure.add_axes((0.76, 0.475, 0.225, 0.395)), report.imports)
        _longest_functions(figure.add_axes((0.76, 0.05, 0.225, 0.33)), report.rankings)
        _heading(figure, report)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": software})
    return picture.getvalue()


def _heading(figure: Figure, report: Report) -> None:
    figures = report.totals.figures
    summary = (
        f"{counted(report.totals.packages, 'package')} with {counted(figures.files, 'file')}, "
        f"{counted(figures.lines, 'line')}, {counted(figures.functions, 'function')} "
        f"({figures.async_functions:,} async)"
    )
    if figures.docstring_coverage is not None:
        summary += f"   ·   docstrings on {percent(figures.docstring_coverage)} of what is public"
    if figures.annotation_coverage is not None:
        summary += f"   ·   {percent(figures.annotation_coverage)} of parameters and results annotated"
    title = f"The standard library of Python {report.python}"
    figure.text(0.015, 0.965, title, fontsize=22, fontweight="bold", color=_INK, va="center")
    figure.text(0.015, 0.93, summary, fontsize=11.5, color=_FAINT, va="center")


def _largest(axes: Axes, totals: Totals) -> None:
    """Draw the largest packages as bars, coloured by their docstring coverage."""
    rows = totals.rows[:_BARS]
    colours = [_coverage_colour(row) for row in rows]
    _bars(axes, [row.package for row in rows], [row.figures.lines for row in rows], colours, places=_BARS)
    _title(axes, "Largest packages", "lines; colour: docstrings, grey: none due")
    scale = axes.inset_axes((0.79, 1.035, 0.21, 0.011))
    mappable = ScalarMappable(Normalize(0, 1), _COVERAGE_COLOURS)
    bar = axes.figure.colorbar(
        mappable, cax=scale, orientation="horizontal", ticks=(0, 0.5, 1), format=PercentFormatter(1, decimals=0)
    )
    bar.outline.set_visible(False)
    scale.tick_params(labelsize=8, colors=_FAINT, length=0)


def _circle(axes: Axes, imports: ImportGraph) -> None:
    """Draw the best connected packages on a circle, and a curve for each that imports another on loading."""
    known = [(name, target) for name, targets in imports.edges.items() for target in targets if target in imports.edges]
    degrees = Counter(name for edge in known for name in edge)
    names = sorted(sorted(degrees, key=lambda name: (-degrees[name], name))[:_IN_CIRCLE])
    edges = [(name, target) for name, target in known if name in names and target in names]
    which = f"the {len(names)} best connected, " if len(degrees) > len(names) else ""
    _title(axes, "Who imports whom", f"on loading; {which}a curve in its importer's colour")
    axes.axis("off")
    # as many units in each direction as the panel has room for, so that the circle is round
    height = 2.72 * (_CIRCLE_BOX[3] * _INCHES[1]) / (_CIRCLE_BOX[2] * _INCHES[0])
    axes.set(xlim=(-1.36, 1.36), ylim=(0.05 - height / 2, 0.05 + height / 2))
    if not edges:
        axes.text(0, 0, "no imports among these packages", ha="center", va="center", color=_FAINT)
        return
    angles = {name: math.pi / 2 - 2 * math.pi * number / len(names) for number, name in enumerate(names)}
    hues = {name: hsv_to_rgb((number / len(names), 0.75, 0.78)) for number, name in enumerate(names)}
    for name, target in edges:
        start, end = _on_circle(angles[name], 1), _on_circle(angles[target], 1)
        bend = [(0.25 * x, 0.25 * y) for x, y in (start, end)]
        curve = Curve([start, *bend, end], [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
        axes.add_patch(PathPatch(curve, fill=False, edgecolor=hues[name], linewidth=1.0, alpha=0.5))
    most = max(degrees[name] for name in names)
    for name in names:
        x, y = _on_circle(angles[name], 1)
        axes.scatter(x, y, s=20 + 160 * degrees[name] / most, color=hues[name], edgecolor="white", zorder=3)
        turn = math.degrees(angles[name])
        on_left = math.cos(angles[name]) < -1e-9
        axes.text(
            *_on_circle(angles[name], 1.07),
            name,
            rotation=turn + 180 if on_left else turn,
            rotation_mode="anchor",
            ha="right" if on_left else "left",
            va="center",
            fontsize=9,
            color=_INK,
        )


def _documentation(axes: Axes, totals: Totals) -> None:
    """Draw a dot for each package: its size, and how much of it is documented."""
    rows = [row for row in totals.rows if row.figures.documentable]
    _title(axes, "Size and docstrings", "a dot for each package; area: public names")
    _bare(axes)
    if not rows:
        _nothing(axes)
        return
    sizes = [row.figures.lines for row in rows]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(sizes) < 100 * min(sizes) else (1,)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(-0.08, 1.15)
    axes.margins(x=0.1)
    axes.set_xlabel("lines", color=_FAINT)
    axes.grid(color=_RULE)
    axes.scatter(
        sizes,
        [row.figures.docstring_coverage or 0.0 for row in rows],
        s=[12 + row.figures.documentable / 2 for row in rows],
        color=_DARK,
        alpha=0.45,
        edgecolor="white",
    )
    _name_dots(axes, [(row.figures.lines, row.figures.docstring_coverage or 0.0, row.package) for row in rows])


def _name_dots(axes: Axes, dots: Iterable[tuple[float, float, str]]) -> None:
    """Write names beside dots, the first ones first, wherever none is written yet."""
    axes.get_xlim()  # settles the limits, and with them where the names come to stand
    taken: list[Bbox] = []
    for x, y, name in dots:
        text = axes.annotate(name, (x, y), (4, 3), textcoords="offset points", fontsize=7.5, color=_INK)
        if not axes.bbox.containsx(text.get_window_extent().x1):
            text.set(ha="right", x=-4)
        box = text.get_window_extent()
        if box.padded(5).count_overlaps(taken):
            text.remove()
        else:
            taken.append(box)


def _most_imported(axes: Axes, imports: ImportGraph) -> None:
    """Draw what is imported most as bars of two parts."""
    entries = imports.most_imported[:_PLACES]
    on_loading = [entry.on_loading for entry in entries]
    _title(axes, "Imported most", "by how many packages")
    _bars(axes, [entry.package for entry in entries], on_loading, _DARK, places=_PLACES)
    later = axes.barh(range(len(entries)), [entry.deferred for entry in entries], left=on_loading, color=_LIGHT)
    if entries:
        axes.legend(
            (axes.containers[0], later),
            ("when they are loaded", "only later, as in a function"),
            loc="lower right",
            bbox_to_anchor=(1.02, 0.99),
            frameon=False,
            fontsize=8.5,
            labelcolor=_FAINT,
        )


def _longest_functions(axes: Axes, rankings: Rankings) -> None:
    """Draw the longest functions as bars."""
    functions = rankings.longest_functions[:_FUNCTIONS]
    _title(axes, "Longest functions", "lines")
    _bars(axes, [""] * len(functions), [function.lines for function in functions], _PALE, places=_FUNCTIONS)
    for number, function in enumerate(functions):
        label = f"{function.name}  in {function.file}"
        axes.annotate(label, (0, number), (5, 0), textcoords="offset points", va="center", fontsize=8, color=_INK)


def _bars(
    axes: Axes, labels: Sequence[str], values: Sequence[int], colour: str | Iterable[object], *, places: int
) -> None:
    """Draw horizontal bars, the first on top, as thick as `places` of them can be."""
    _bare(axes)
    if not labels:
        _nothing(axes)
        return
    axes.barh(range(len(labels)), values, color=colour)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(places - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="x", color=_RULE)


def _nothing(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.text(0.5, 0.5, "nothing to show", ha="center", va="center", color=_FAINT, transform=axes.transAxes)


def _bare(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, colors=_INK, labelsize=9)


def _title(axes: Axes, title: str, subtitle: str) -> None:
    axes.annotate(title, (0, 1), (0, 20), "axes fraction", "offset points", fontsize=13, fontweight="bold", color=_INK)
    axes.annotate(subtitle, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=9.5, color=_FAINT)


def _coverage_colour(row: Row) -> object:
    coverage = row.figures.docstring_coverage
    return _NO_VALUE if coverage is None else _COVERAGE_COLOURS(coverage)


def _on_circle(angle: float, radius: float) -> tuple[float, float]:
    return radius * math.cos(angle), radius * math.sin(angle)
