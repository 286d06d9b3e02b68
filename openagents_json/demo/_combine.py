"""What the packages say together: totals, who imports whom, rankings. Pure, like `_analysis`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openagents_json.demo._analysis import Figures, Function, PackageReport, longest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

#: How many places a ranking has.
PLACES = 15
#: A coverage is ranked only where it is of at least so many things: one of one is no feat.
_ENOUGH = 20


@dataclass(frozen=True, slots=True)
class Row:
    """A package and its counts."""

    package: str
    figures: Figures


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all packages.

    Attributes:
        packages: how many packages and modules there are.
        figures: the sum of their counts.
        unparsable: files that cannot be parsed, with the reason.
        rows: the counts of each package, most lines first.
    """

    packages: int
    figures: Figures
    unparsable: dict[str, str]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """How often a package is imported by the other ones.

    Attributes:
        package: its name.
        on_loading: how many packages import it when they are loaded.
        deferred: how many others import it only later.
    """

    package: str
    on_loading: int
    deferred: int


@dataclass(frozen=True, slots=True)
class ImportGraph:
    """Who imports whom among the packages of the standard library, those without Python source included.

    Attributes:
        edges: package -> what it imports on loading -> in how many of its files.
        deferred: the same for what it only imports later.
        most_imported: a ranking by importing packages, of both kinds.
        cycles: packages that import each other on loading, directly or not (the strongly connected components of
            more than one), the largest first, names in alphabetical order.
        independent: packages that import nothing on loading.
    """

    edges: dict[str, dict[str, int]]
    deferred: dict[str, dict[str, int]]
    most_imported: tuple[Imported, ...]
    cycles: tuple[tuple[str, ...], ...]
    independent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rankings:
    """Who has the most; best first.

    Attributes:
        longest_functions: by lines.
        best_documented: by docstring coverage, then by size; only where there is enough to document.
        least_documented: the other end of the same.
        most_annotated: by annotation coverage; only where there is enough to annotate and some of it is.
        most_async: by ``async def`` functions; only packages that have some.
    """

    longest_functions: tuple[Function, ...]
    best_documented: tuple[Row, ...]
    least_documented: tuple[Row, ...]
    most_annotated: tuple[Row, ...]
    most_async: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything there is to report.

    Attributes:
        python: the version of the Python whose library it is.
        totals: sums, and the counts of each package.
        imports: who imports whom.
        rankings: who has the most.
    """

    python: str
    totals: Totals
    imports: ImportGraph
    rankings: Rankings


def totals(packages: Sequence[PackageReport]) -> Totals:
    """Add everything up."""
    unparsable: dict[str, str] = {}
    for package in packages:
        unparsable |= package.unparsable
    rows = [Row(package.package, package.figures) for package in packages]
    return Totals(
        packages=len(packages),
        figures=sum((row.figures for row in rows), Figures()),
        unparsable=unparsable,
        rows=_ranked(rows, lambda row: row.figures.lines, places=None),
    )


def import_graph(packages: Sequence[PackageReport], library: Iterable[str]) -> ImportGraph:
    """Build the graph.

    Args:
        packages: what to build it from.
        library: all names that belong to the standard library; imports of others (optional ones, of Java or Windows
            say) are left out.
    """
    known = frozenset(library)
    edges = {package.package: _only(known, package.imports) for package in packages}
    deferred = {package.package: _only(known, package.deferred) for package in packages}
    on_loading = Counter(imported for imports in edges.values() for imported in imports)
    later = Counter(imported for imports in deferred.values() for imported in imports)
    imported = [Imported(name, on_loading[name], later[name]) for name in on_loading | later]
    imported.sort(key=lambda entry: (-entry.on_loading - entry.deferred, -entry.on_loading, entry.package))
    return ImportGraph(
        edges=edges,
        deferred={name: imports for name, imports in deferred.items() if imports},
        most_imported=tuple(imported[:PLACES]),
        cycles=tuple(_cycles(edges)),
        independent=tuple(sorted(name for name, imports in edges.items() if not imports)),
    )


def rankings(packages: Sequence[PackageReport]) -> Rankings:
    """Rank packages and functions."""
    rows = [Row(package.package, package.figures) for package in packages]
    documentable = [row for row in rows if row.figures.documentable >= _ENOUGH]
    annotated = [row for row in rows if row.figures.annotatable >= _ENOUGH and row.figures.annotated]
    functions = longest_first(function for package in packages for function in package.longest)
    return Rankings(
        longest_functions=tuple(functions[:PLACES]),
        best_documented=_ranked(documentable, lambda row: (row.figures.docstring_coverage, row.figures.documentable)),
        least_documented=_ranked(
            documentable, lambda row: (-(row.figures.docstring_coverage or 0.0), row.figures.documentable)
        ),
        most_annotated=_ranked(annotated, lambda row: row.figures.annotation_coverage),
        most_async=_ranked(
            (row for row in rows if row.figures.async_functions), lambda row: row.figures.async_functions
        ),
    )


def _ranked(rows: Iterable[Row], value: Callable[[Row], Any], places: int | None = PLACES) -> tuple[Row, ...]:
    by_name = sorted(rows, key=lambda row: row.package)
    return tuple(sorted(by_name, key=value, reverse=True)[:places])


def _only(names: frozenset[str], imports: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in imports.items() if name in names}


def _cycles(edges: Mapping[str, Mapping[str, int]]) -> list[tuple[str, ...]]:
    """Find the strongly connected components of more than one node, the largest first.

    Tarjan's algorithm (SIAM Journal on Computing 1, 1972), with a stack of its own instead of recursion.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: dict[str, None] = {}
    found: list[tuple[str, ...]] = []
    for start in edges:
        calls = [] if start in index else [(start, iter(edges[start]))]
        while calls:
            node, rest = calls[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                path[node] = None
            following = next((other for other in rest if other in edges), None)
            if following is None:
                calls.pop()
                if calls:
                    low[calls[-1][0]] = min(low[calls[-1][0]], low[node])
                if low[node] == index[node]:
                    found.append(tuple(sorted(_popped_down_to(node, path))))
            elif following not in index:
                calls.append((following, iter(edges[following])))
            elif following in path:
                low[node] = min(low[node], index[following])
    return sorted((component for component in found if len(component) > 1), key=lambda names: (-len(names), names))


def _popped_down_to(node: str, path: dict[str, None]) -> list[str]:
    popped = []
    while node in path:
        popped.append(path.popitem()[0])
    return popped
