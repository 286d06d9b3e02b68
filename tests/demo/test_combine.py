"""Totals, the import graph and rankings over several packages."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from openagents_json.demo._analysis import Figures, Function, PackageReport
from openagents_json.demo._combine import import_graph, rankings, totals


def package(
    name: str,
    figures: Figures | None = None,
    *,
    longest: tuple[Function, ...] = (),
    imports: tuple[str, ...] = (),
    deferred: tuple[str, ...] = (),
) -> PackageReport:
    return PackageReport(
        package=name,
        figures=figures or Figures(),
        longest=longest,
        imports=dict.fromkeys(imports, 1),
        deferred=dict.fromkeys(deferred, 1),
        unparsable={},
    )


def test_totals_add_up_and_list_the_largest_first() -> None:
    result = totals([package("a", Figures(files=1, lines=5)), package("b", Figures(files=2, lines=9)), package("c")])
    assert result.packages == 3
    assert result.figures == Figures(files=3, lines=14)
    assert [row.package for row in result.rows] == ["b", "a", "c"]


def test_totals_of_nothing_are_zero() -> None:
    assert totals([]).figures == Figures()


def test_imports_from_outside_the_library_are_left_out() -> None:
    graph = import_graph([package("a", imports=("b", "java", "sys"), deferred=("win32api", "b"))], ["a", "b", "sys"])
    assert graph.edges == {"a": {"b": 1, "sys": 1}}
    assert graph.deferred == {"a": {"b": 1}}


def test_most_imported_counts_packages_of_both_kinds() -> None:
    graph = import_graph(
        [
            package("a", imports=("sys",), deferred=("json",)),
            package("b", imports=("sys", "json"), deferred=()),
            package("c", deferred=("json", "sys")),
            package("json"),
        ],
        ["a", "b", "c", "json", "sys"],
    )
    assert [(entry.package, entry.on_loading, entry.deferred) for entry in graph.most_imported] == [
        ("sys", 2, 1),
        ("json", 1, 2),
    ]
    assert graph.independent == ("c", "json")


def test_a_long_chain_and_a_long_cycle_need_no_deep_recursion() -> None:
    names = [f"p{number:04}" for number in range(3000)]
    chain = [package(name, imports=(following,)) for name, following in itertools.pairwise(names)]
    assert import_graph([*chain, package(names[-1])], names).cycles == ()
    assert import_graph([*chain, package(names[-1], imports=(names[0],))], names).cycles == (tuple(names),)


@given(st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"))))
def test_cycles_are_the_sets_of_packages_that_reach_each_other(edges: set[tuple[str, str]]) -> None:
    names = "abcdef"
    reach = {(a, b) for a, b in edges if a != b}
    for middle, start, end in itertools.product(names, repeat=3):
        if (start, middle) in reach and (middle, end) in reach:
            reach.add((start, end))
    together = {
        tuple(other for other in names if other == name or {(name, other), (other, name)} <= reach) for name in names
    }
    packages = [
        package(name, imports=tuple(target for source, target in edges if source == name != target)) for name in names
    ]
    found = import_graph(packages, names).cycles
    assert set(found) == {group for group in together if len(group) > 1}
    assert [len(group) for group in found] == sorted(map(len, found), reverse=True)


def test_rankings_leave_out_packages_with_too_little_to_judge() -> None:
    result = rankings(
        [
            package("tiny", Figures(documentable=1, documented=1, annotatable=1, annotated=1)),
            package("good", Figures(documentable=100, documented=90, annotatable=100, annotated=10, async_functions=1)),
            package("poor", Figures(documentable=100, documented=10, annotatable=100, annotated=0)),
            package("full", Figures(documentable=50, documented=50, annotatable=50, annotated=50, async_functions=7)),
        ]
    )
    assert [row.package for row in result.best_documented] == ["full", "good", "poor"]
    assert [row.package for row in result.least_documented] == ["poor", "good", "full"]
    assert [row.package for row in result.most_annotated] == ["full", "good"]
    assert [row.package for row in result.most_async] == ["full", "good"]


def test_the_longest_functions_are_those_of_all_packages() -> None:
    short, middle, long = (Function("f", "m.py", line, line) for line in (1, 2, 3))
    result = rankings([package("a", longest=(long, short)), package("b", longest=(middle,))])
    assert result.longest_functions == (long, middle, short)
