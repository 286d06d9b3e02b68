"""The errors: each has its place in the tree, says what is and what would help, and survives pickling and copying."""

import copy
import inspect
import pickle
import re

import pytest

from openagents_json import errors
from openagents_json.job.model import JobError

SAMPLES: dict[type[errors.OpenAgentsError], errors.OpenAgentsError] = {
    type(error): error
    for error in [
        errors.OpenAgentsError("text"),
        errors.ConfigurationError("text"),
        errors.InvalidJobError("payload.items[3]", "is nothing; make it something"),
        errors.InvalidHandlerError("text"),
        errors.JobNotFoundError("job-1"),
        errors.DuplicateJobError("job-1"),
        errors.InvalidTransitionError("job-1", "completed", "cancel", "only unfinished jobs can be cancelled"),
        errors.JobInUseError("job-1", "completed", "job-2"),
        errors.DependencyError("text"),
        errors.UnknownDependencyError("job-1", "job-2"),
        errors.DependencyCycleError(("a", "b", "a")),
        errors.JobFailedError("job-1", "failed", JobError("ValueError", "boom")),
        errors.JobCancelledError("job-1", "cancelled"),
        errors.EventsLostError(100),
        errors.ManagerStoppedError(),
        errors.StoreError("text"),
        errors.StoreUnavailableError("text"),
        errors.StoreClosedError("text"),
        errors.StoreLockedError("/where/jobs/are", "process 7"),
        errors.StoreReadOnlyError("text"),
        errors.LeaseLostError("job-1", "worker:1"),
        errors.WorkerDeadError("worker-1"),
        errors.Retry("later", delay=2.5),
        errors.NonRetryableError("text"),
    ]
}

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.OpenAgentsError) and value.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling_and_copying(kind: type[errors.OpenAgentsError]) -> None:
    error = SAMPLES[kind]
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - made just here
    for again in (pickled, copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert again.args == error.args
        assert vars(again) == vars(error)
        assert str(again) == str(error)


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_in_the_tree_that_the_module_draws(kind: type[errors.OpenAgentsError]) -> None:
    line = next(line for line in (errors.__doc__ or "").splitlines() if re.search(rf"\b{kind.__name__}\b", line))
    drawn = re.search(r"\((\w+)\)", line)
    builtins = {base.__name__ for base in kind.__bases__ if base.__module__ == "builtins" and base is not Exception}
    assert drawn is None or drawn.group(1) in builtins


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_keeps_its_facts_and_says_them(kind: type[errors.OpenAgentsError]) -> None:
    error = SAMPLES[kind]
    assert str(error)
    for name, fact in vars(error).items():
        if kind is errors.Retry and name == "delay":
            continue
        shown = " -> ".join(fact) if isinstance(fact, tuple) else str(fact)
        assert fact is None or shown in str(error) or name == "status"


def test_messages_say_what_is_and_what_would_help() -> None:
    assert str(SAMPLES[errors.InvalidTransitionError]) == (
        "cannot cancel job 'job-1': it is completed; only unfinished jobs can be cancelled"
    )
    assert str(SAMPLES[errors.JobInUseError]) == (
        "cannot delete job 'job-1': it is completed; unfinished job 'job-2' depends on it; delete that first"
    )
    assert str(SAMPLES[errors.JobFailedError]) == "job 'job-1' failed: ValueError: boom"
    assert str(SAMPLES[errors.JobCancelledError]) == "job 'job-1' was cancelled: no reason was recorded"
    assert str(SAMPLES[errors.InvalidJobError]) == "payload.items[3]: is nothing; make it something"


def test_a_long_cycle_is_shown_shortened_and_kept_whole() -> None:
    cycle = (*(f"job-{number}" for number in range(100)), "job-0")
    error = errors.DependencyCycleError(cycle)
    assert error.cycle == cycle
    assert "job-0 -> job-1" in str(error)
    assert "job-99 -> job-0" in str(error)
    assert "job-50" not in str(error)


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf")])
def test_a_retry_cannot_be_asked_for_after_no_time_at_all(delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        errors.Retry(delay=delay)


def test_a_retry_may_leave_the_delay_to_the_policy() -> None:
    assert (errors.Retry().delay, errors.Retry(delay=0).delay) == (None, 0)
