"""The errors: one base, natural builtins, messages with a remedy, facts as attributes, and pickling."""

import inspect
import pickle

import pytest

from openagents_json import errors
from openagents_json.job import JobError

BUILTINS: dict[type[errors.OpenAgentsError], type[Exception]] = {
    errors.ConfigurationError: ValueError,
    errors.InvalidJobError: ValueError,
    errors.InvalidHandlerError: TypeError,
    errors.JobNotFoundError: LookupError,
    errors.DuplicateJobError: ValueError,
    errors.DependencyError: ValueError,
    errors.UnknownDependencyError: LookupError,
    errors.ManagerStoppedError: RuntimeError,
    errors.StoreUnavailableError: ConnectionError,
}

EXAMPLES: dict[errors.OpenAgentsError, str] = {
    errors.ConfigurationError("x"): "x",
    errors.InvalidJobError("payload.a", "is wrong"): "payload.a: is wrong",
    errors.InvalidHandlerError("x"): "x",
    errors.JobNotFoundError("a1"): "there is no job 'a1'; it may have been deleted",
    errors.DuplicateJobError(
        "a1"
    ): "a job 'a1' exists already; choose another job_id, or leave it out to get a new one",
    errors.InvalidTransitionError("a1", "completed", "pause", "only pending and running jobs can be paused"): (
        "cannot pause job 'a1': it is completed; only pending and running jobs can be paused"
    ),
    errors.JobInUseError("a1", "completed", "b2"): (
        "cannot delete job 'a1': it is completed; unfinished job 'b2' depends on it; delete that first"
    ),
    errors.UnknownDependencyError("a1", "b2"): (
        "job 'a1' depends on 'b2', which does not exist; create that job first"
    ),
    errors.DependencyCycleError(("a", "b", "a")): "the dependencies form a cycle: a -> b -> a; leave one of them out",
    errors.JobFailedError("a1", "failed", JobError("ValueError", "x")): "job 'a1' failed: ValueError: x",
    errors.JobFailedError("a1", "failed"): "job 'a1' failed: no reason was recorded",
    errors.JobCancelledError("a1", "cancelled", JobError("Cancelled", "x")): "job 'a1' was cancelled: Cancelled: x",
    errors.ManagerStoppedError(): "the job manager is stopped; start() it again, or make a new one",
    errors.EventsLostError(7): "the subscriber was 7 events behind and has been dropped; take events faster",
    errors.StoreError("x"): "x",
    errors.StoreUnavailableError("x"): "x",
    errors.StoreClosedError("x"): "x",
    errors.LeaseLostError("a1", "w:1"): (
        "job 'a1' is no longer held under lease 'w:1'; what the worker wrote was refused"
    ),
    errors.WorkerDeadError("w"): "worker 'w' is not registered or was declared dead; register a new one",
    errors.Retry("later", delay=3): "later",
    errors.Retry(): "the handler asked for a retry",
    errors.NonRetryableError("x"): "x",
}


def _all_errors() -> set[type[errors.OpenAgentsError]]:
    return {
        value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, errors.OpenAgentsError)
    }


def test_every_error_has_the_one_base_and_the_builtin_that_is_natural() -> None:
    for class_, builtin in BUILTINS.items():
        assert issubclass(class_, builtin)


@pytest.mark.parametrize(("error", "message"), EXAMPLES.items(), ids=lambda value: type(value).__name__)
def test_an_error_says_what_is_and_what_would_help(error: errors.OpenAgentsError, message: str) -> None:
    assert str(error) == message


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_survives_pickling_with_its_facts(error: errors.OpenAgentsError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_every_error_is_drawn_in_the_tree() -> None:
    for class_ in _all_errors():
        assert f" {class_.__name__}" in f" {errors.__doc__}"


def test_a_long_cycle_is_shortened() -> None:
    cycle = tuple(f"job-{number}" for number in range(1000))
    text = str(errors.DependencyCycleError((*cycle, "job-0")))
    assert len(text) < 300
    assert text.startswith("the dependencies form a cycle: job-0 -> job-1")
    assert "job-999 -> job-0" in text
