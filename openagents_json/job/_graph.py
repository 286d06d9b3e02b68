"""What dependencies mean: pure functions over ids and states.

A dependency is *met* once its job completed, or, under the policy `run`, once it is over in any way. Under `cancel`
a dependency that fails or is cancelled takes the dependent with it. Hence the invariant every store keeps: an
unfinished job with the policy `cancel` has no failed or cancelled dependency.
"""

from __future__ import annotations

from collections import deque
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from openagents_json.errors import DependencyCycleError
from openagents_json.job.model import DependencyFailurePolicy, JobError, JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from openagents_json.job._record import JobRecord

_BROKEN = frozenset({JobStatus.FAILED, JobStatus.CANCELLED})


def is_met(status: JobStatus, policy: DependencyFailurePolicy) -> bool:
    """Tell whether a dependency in this state no longer holds a job of this policy back."""
    return status is JobStatus.COMPLETED or (policy is DependencyFailurePolicy.RUN and status in _BROKEN)


def breaks(status: JobStatus, policy: DependencyFailurePolicy) -> bool:
    """Tell whether a dependency in this state cancels a job of this policy."""
    return policy is DependencyFailurePolicy.CANCEL and status in _BROKEN


def failure_of(dependency: JobRecord, root: JobRecord) -> JobError:
    """Build the error of a job that is cancelled because `dependency` broke.

    Args:
        dependency: the job it depends on directly.
        root: the job that failed, or was cancelled by somebody, in the first place.
    """
    what = f"dependency {root.job_id!r} {root.status}" if root is dependency else (
        f"dependency {dependency.job_id!r} was cancelled, since {root.job_id!r} {root.status}"
    )  # fmt: skip
    cause = "" if root.error is None else f" ({str(root.error)[:200]})"
    return JobError("DependencyFailed", what + cause)


def refuse_cycle(dependencies: Mapping[str, Iterable[str]]) -> None:
    """Check that jobs which are added together do not wait for each other.

    Args:
        dependencies: for each job, the ids it depends on; ids outside the mapping are no concern here.

    Raises:
        DependencyCycleError: they do; it names the cycle.
    """
    try:
        TopologicalSorter(dependencies).prepare()
    except CycleError as exc:
        cycle: list[str] = exc.args[1]
        # graphlib lists each job before the one that depends on it
        raise DependencyCycleError(tuple(reversed(cycle))) from None


def refuse_closing_edge(job_id: str, depends_on_id: str, dependencies_of: Callable[[str], Iterable[str]]) -> None:
    """Check that the edge `job_id` -> `depends_on_id` closes no cycle.

    Args:
        job_id: the job that shall depend on the other one.
        depends_on_id: the other one.
        dependencies_of: gives the ids a job depends on.

    Raises:
        DependencyCycleError: `depends_on_id` depends on `job_id` already, directly or not; it names the cycle.
    """
    came_from: dict[str, str] = {depends_on_id: job_id}
    frontier = deque([depends_on_id])
    while frontier:
        current = frontier.popleft()
        if current == job_id:
            raise DependencyCycleError(_path_to(job_id, came_from))
        for dependency in dependencies_of(current):
            if dependency not in came_from:
                came_from[dependency] = current
                frontier.append(dependency)


def _path_to(job_id: str, came_from: Mapping[str, str]) -> tuple[str, ...]:
    path = [job_id]
    while True:
        path.append(came_from[path[-1]])
        if path[-1] == job_id:
            return tuple(reversed(path))
