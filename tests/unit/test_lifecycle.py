"""The state machine by itself: pure functions, what they refuse and why, and the waits between recoveries.

What each change leaves on a job is tested on every store, by `JobStoreConformance`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openagents_json.errors import InvalidTransitionError, LeaseLostError
from openagents_json.job import _lifecycle
from openagents_json.job._changes import Cancel, Finish, Progress
from openagents_json.job._record import JobRecord
from openagents_json.job.model import AttemptOutcome, JobError, JobStatus
from openagents_json.testing import a_claim, a_job

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LATER = NOW + timedelta(seconds=10)
HELD = a_claim(1).lease
BOOM = JobError("ValueError", "boom")

PENDING = _lifecycle.new(a_job("job"), 0, NOW)
UNSTARTED = _lifecycle.new(a_job("job", queued=False), 0, NOW)
RUNNING = _lifecycle.claim(PENDING, a_claim(1), NOW)
HELD_PAUSED = _lifecycle.pause(RUNNING, NOW)
PAUSED = _lifecycle.pause(PENDING, NOW)
COMPLETED = _lifecycle.finish(RUNNING, Finish("job", HELD, AttemptOutcome.COMPLETED, b"1"), NOW)
FAILED = _lifecycle.finish(RUNNING, Finish("job", HELD, AttemptOutcome.FAILED, error=BOOM), NOW)
CANCELLED = _lifecycle.cancel(RUNNING, Cancel("job", "why"), NOW)

JOBS = {
    "pending": PENDING,
    "unstarted": UNSTARTED,
    "running": RUNNING,
    "held": HELD_PAUSED,
    "paused": PAUSED,
    "completed": COMPLETED,
    "failed": FAILED,
    "cancelled": CANCELLED,
}

STEPS: dict[str, Callable[[JobRecord], JobRecord | None]] = {
    "start": lambda job: _lifecycle.start(job, LATER),
    "unclaim": lambda job: _lifecycle.unclaim(job, HELD, LATER),
    "finish": lambda job: _lifecycle.finish(job, Finish("job", HELD, AttemptOutcome.COMPLETED, b"1"), LATER),
    "progress": lambda job: _lifecycle.progress(job, Progress("job", HELD, 0.5, ""), LATER),
    "pause": lambda job: _lifecycle.pause(job, LATER),
    "resume": lambda job: _lifecycle.resume(job, LATER),
    "cancel": lambda job: _lifecycle.cancel(job, Cancel("job", "why"), LATER),
    "rerun": lambda job: _lifecycle.rerun(job, 0, LATER),
    "release": lambda job: _lifecycle.release(job, HELD, "why", LATER),
    "edge": lambda job: _lifecycle.refuse_edge_change(job, "add a dependency to"),
    "delete": _lifecycle.refuse_delete,
}

REFUSALS = {
    ("start", "paused"): "cannot start job 'job': it is paused; resume_job() lets it go on",
    ("start", "held"): "cannot start job 'job': it is paused; resume_job() lets it go on",
    ("start", "completed"): "cannot start job 'job': it is completed; retry_job() would run it again",
    ("start", "failed"): "cannot start job 'job': it is failed; retry_job() would run it again",
    ("start", "cancelled"): "cannot start job 'job': it is cancelled; retry_job() would run it again",
    ("pause", "completed"): "cannot pause job 'job': it is completed; only pending and running jobs can be paused",
    ("pause", "failed"): "cannot pause job 'job': it is failed; only pending and running jobs can be paused",
    ("pause", "cancelled"): "cannot pause job 'job': it is cancelled; only pending and running jobs can be paused",
    ("resume", "completed"): "cannot resume job 'job': it is completed; retry_job() would run it again",
    ("resume", "failed"): "cannot resume job 'job': it is failed; retry_job() would run it again",
    ("resume", "cancelled"): "cannot resume job 'job': it is cancelled; retry_job() would run it again",
    ("cancel", "completed"): "cannot cancel job 'job': it is completed; only unfinished jobs can be cancelled",
    ("cancel", "failed"): "cannot cancel job 'job': it is failed; only unfinished jobs can be cancelled",
    ("rerun", "unstarted"): "cannot retry job 'job': it is pending; start_job() queues it",
    ("rerun", "running"): "cannot retry job 'job': it is running; cancel_job() it first",
    ("rerun", "paused"): "cannot retry job 'job': it is paused; cancel_job() it first",
    ("rerun", "held"): "cannot retry job 'job': it is paused; cancel_job() it first",
    ("delete", "running"): "cannot delete job 'job': it is running; cancel_job() it first",
    ("delete", "held"): "cannot delete job 'job': it is paused; cancel_job() it first",
} | {
    ("edge", name): f"cannot add a dependency to job 'job': it is {JOBS[name].status}; "
    "only jobs that wait can change what they depend on"
    for name in ("running", "held", "completed", "failed", "cancelled")
}

LOSERS = {
    "finish": ("pending", "unstarted", "paused", "cancelled"),
    "progress": ("pending", "unstarted", "paused", "completed", "failed", "cancelled"),
}


@pytest.mark.parametrize("state", JOBS)
@pytest.mark.parametrize("step", STEPS)
def test_a_refusal_names_the_job_its_state_and_what_would_work(step: str, state: str) -> None:
    job = JOBS[state]
    if state in LOSERS.get(step, ()):
        with pytest.raises(LeaseLostError) as lost:
            STEPS[step](job)
        assert (lost.value.job_id, lost.value.lease) == ("job", HELD)
    elif (step, state) in REFUSALS:
        with pytest.raises(InvalidTransitionError) as refused:
            STEPS[step](job)
        assert str(refused.value) == REFUSALS[step, state]
    else:
        STEPS[step](job)


@pytest.mark.parametrize("state", JOBS)
@pytest.mark.parametrize("step", ["start", "unclaim", "finish", "pause", "resume", "cancel", "rerun", "release"])
def test_a_step_taken_again_gives_back_the_very_job(step: str, state: str) -> None:
    if (step, state) in REFUSALS or state in LOSERS.get(step, ()):
        return
    once = STEPS[step](JOBS[state])
    assert once is not None
    assert STEPS[step](once) is once


@pytest.mark.parametrize("state", JOBS)
@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_changes_a_job_says_so_in_its_version_and_time(step: str, state: str) -> None:
    job = JOBS[state]
    if (step, state) in REFUSALS or state in LOSERS.get(step, ()):
        return
    after = STEPS[step](job)
    if after is not None and after is not job:
        assert (after.version, after.updated_at) == (job.version + 1, LATER)


@pytest.mark.parametrize(
    ("asked", "ready_at"),
    [
        ({}, NOW),
        ({"queued": False}, None),
        ({"unmet": 1}, None),
        ({"delay": 0.0}, NOW),
        ({"delay": 2.5}, NOW + timedelta(seconds=2.5)),
        ({"run_at": LATER}, LATER),
        ({"run_at": NOW - timedelta(days=1)}, NOW),
        ({"run_at": LATER, "unmet": 2}, None),
    ],
)
def test_a_new_job_is_ready_when_nothing_but_time_stands_in_its_way(
    asked: dict[str, Any], ready_at: datetime | None
) -> None:
    unmet = asked.pop("unmet", 0)
    assert _lifecycle.new(a_job("job", **asked), unmet, NOW).ready_at == ready_at


@given(st.text(min_size=1, max_size=20), st.integers(1, 40))
def test_the_wait_after_a_recovery_lies_within_its_bounds_and_follows_from_the_job(job_id: str, number: int) -> None:
    delay = _lifecycle.recovery_delay(job_id, number)
    longest = 0.0 if number == 1 else min(60.0, 2.0 ** (number - 2))
    assert longest / 2 <= delay <= longest
    assert delay == _lifecycle.recovery_delay(job_id, number)


def test_the_waits_of_different_jobs_are_spread_over_their_bounds() -> None:
    waits = sorted(_lifecycle.recovery_delay(f"job-{number}", 2) for number in range(1000))
    assert waits[0] < 0.51
    assert waits[-1] > 0.99
    assert 0.7 < waits[500] < 0.8


def test_a_job_ended_from_outside_names_who_took_it_along() -> None:
    ended = _lifecycle.end_by(RUNNING, JobStatus.CANCELLED, BOOM, LATER, by="parent")
    assert (ended.status, ended.error, ended.cancelled_by) == (JobStatus.CANCELLED, BOOM, "parent")
    assert [attempt.outcome for attempt in ended.attempts] == [AttemptOutcome.CANCELLED]


def test_a_job_brought_back_keeps_the_time_it_was_asked_to_wait_for() -> None:
    delayed = _lifecycle.new(a_job("job", run_at=LATER), 0, NOW)
    ended = _lifecycle.end_by(delayed, JobStatus.CANCELLED, BOOM, NOW, by="parent")
    assert _lifecycle.revive(ended, 0, NOW, queued=True, run_at=ended.run_at).ready_at == LATER
    assert _lifecycle.rerun(ended, 0, NOW).ready_at == NOW
