"""What dependencies mean, and how cycles are found and named."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openagents_json.errors import DependencyCycleError
from openagents_json.job import _graph
from openagents_json.job.model import DependencyFailurePolicy, JobStatus

graphs = st.integers(1, 8).flatmap(
    lambda size: st.dictionaries(
        st.sampled_from([f"job-{number}" for number in range(size)]),
        st.lists(st.sampled_from([f"job-{number}" for number in range(size)]), unique=True),
    )
)


def reaches(graph: Mapping[str, Sequence[str]], start: str, goal: str) -> bool:
    """Tell whether one can go from start to goal along one edge or more."""
    seen: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            waiting += graph.get(name, ())
    return False


def check_cycle(cycle: Sequence[str], graph: Mapping[str, Sequence[str]]) -> None:
    """Check that a cycle goes along edges, comes back to where it began, and passes nobody twice."""
    assert len(cycle) >= 2
    assert cycle[0] == cycle[-1]
    assert len(set(cycle)) == len(cycle) - 1
    for job_id, depends_on in pairwise(cycle):
        assert depends_on in graph[job_id]


@pytest.mark.parametrize("status", JobStatus)
def test_only_a_completed_dependency_is_met_and_under_run_any_that_is_over(status: JobStatus) -> None:
    completed = status is JobStatus.COMPLETED
    over = status.value in {"completed", "failed", "cancelled"}
    assert _graph.is_met(status, DependencyFailurePolicy.CANCEL) is completed
    assert _graph.is_met(status, DependencyFailurePolicy.WAIT) is completed
    assert _graph.is_met(status, DependencyFailurePolicy.RUN) is over


@pytest.mark.parametrize("status", JobStatus)
def test_only_under_cancel_does_a_broken_dependency_take_the_job_along(status: JobStatus) -> None:
    broken = status.value in {"failed", "cancelled"}
    assert _graph.breaks(status, DependencyFailurePolicy.CANCEL) is broken
    assert _graph.breaks(status, DependencyFailurePolicy.WAIT) is False
    assert _graph.breaks(status, DependencyFailurePolicy.RUN) is False


@given(graphs)
def test_a_batch_is_refused_exactly_when_a_job_waits_for_itself(graph: dict[str, list[str]]) -> None:
    if not any(reaches(graph, name, name) for name in graph):
        _graph.refuse_cycle(graph)
        return
    with pytest.raises(DependencyCycleError) as caught:
        _graph.refuse_cycle(graph)
    check_cycle(caught.value.cycle, graph)


@given(graphs, st.data())
def test_an_edge_is_refused_exactly_when_it_closes_a_cycle(graph: dict[str, list[str]], data: st.DataObject) -> None:
    names = sorted({*graph, *(name for names in graph.values() for name in names)}) or ["job-0"]
    job_id, depends_on = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    closes = job_id == depends_on or reaches(graph, depends_on, job_id)
    if not closes:
        _graph.refuse_closing_edge(job_id, depends_on, lambda name: graph.get(name, ()))
        return
    with pytest.raises(DependencyCycleError) as caught:
        _graph.refuse_closing_edge(job_id, depends_on, lambda name: graph.get(name, ()))
    assert caught.value.cycle[:2] == (job_id, depends_on)
    check_cycle(caught.value.cycle, {**graph, job_id: [*graph.get(job_id, ()), depends_on]})


def test_ids_outside_the_batch_are_no_concern() -> None:
    _graph.refuse_cycle({"a": ["b", "elsewhere"], "b": ["elsewhere"]})


def test_long_chains_and_wide_diamonds_are_walked_once() -> None:
    layers = 60
    graph = {f"{layer}-{side}": [f"{layer + 1}-{other}" for other in "ab"] for layer in range(layers) for side in "ab"}
    asked: list[str] = []

    def dependencies_of(name: str) -> list[str]:
        asked.append(name)
        return graph.get(name, [])

    _graph.refuse_closing_edge("new", "0-a", dependencies_of)
    assert len(asked) == len(set(asked)) == 2 * layers + 1
    chain = {f"link-{number}": [f"link-{number + 1}"] for number in range(20_000)}
    _graph.refuse_cycle(chain)
    with pytest.raises(DependencyCycleError) as caught:
        _graph.refuse_closing_edge("link-20000", "link-0", lambda name: chain.get(name, ()))
    assert len(caught.value.cycle) == 20_002
    assert len(str(caught.value)) < 500


def test_a_self_dependency_is_a_cycle_of_one() -> None:
    with pytest.raises(DependencyCycleError) as batch:
        _graph.refuse_cycle({"a": ["a"]})
    with pytest.raises(DependencyCycleError) as edge:
        _graph.refuse_closing_edge("a", "a", lambda _: ())
    assert batch.value.cycle == edge.value.cycle == ("a", "a")
