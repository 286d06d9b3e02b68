"""What the life-cycle table does not allow is refused; the message names job, state, and what would work."""

from collections.abc import Awaitable, Callable

import pytest

from openagents_json.errors import (
    DuplicateJobError,
    InvalidTransitionError,
    JobInUseError,
    JobNotFoundError,
    UnknownDependencyError,
)
from openagents_json.job import JobManager, JobStatus
from tests.engine._handlers import Held
from tests.engine._time import settled, soon

#: state, action -> the message
REFUSALS = {
    ("completed", "start"): "cannot start job 'j': it is completed; retry_job() would run it again",
    ("failed", "start"): "cannot start job 'j': it is failed; retry_job() would run it again",
    ("cancelled", "start"): "cannot start job 'j': it is cancelled; retry_job() would run it again",
    ("paused", "start"): "cannot start job 'j': it is paused; resume_job() lets it go on",
    ("completed", "pause"): "cannot pause job 'j': it is completed; only pending and running jobs can be paused",
    ("failed", "pause"): "cannot pause job 'j': it is failed; only pending and running jobs can be paused",
    ("cancelled", "pause"): "cannot pause job 'j': it is cancelled; only pending and running jobs can be paused",
    ("completed", "resume"): "cannot resume job 'j': it is completed; retry_job() would run it again",
    ("failed", "resume"): "cannot resume job 'j': it is failed; retry_job() would run it again",
    ("cancelled", "resume"): "cannot resume job 'j': it is cancelled; retry_job() would run it again",
    ("completed", "cancel"): "cannot cancel job 'j': it is completed; only unfinished jobs can be cancelled",
    ("failed", "cancel"): "cannot cancel job 'j': it is failed; only unfinished jobs can be cancelled",
    ("unstarted", "retry"): "cannot retry job 'j': it is pending; start_job() queues it",
    ("running", "retry"): "cannot retry job 'j': it is running; cancel_job() it first",
    ("paused", "retry"): "cannot retry job 'j': it is paused; cancel_job() it first",
    ("running", "delete"): "cannot delete job 'j': it is running; cancel_job() it first",
    ("paused", "delete"): "cannot delete job 'j': it is paused; cancel_job() it first",
    ("running", "depend"): (
        "cannot add a dependency to job 'j': it is running; only jobs that wait can change what they depend on"
    ),
    ("completed", "depend"): (
        "cannot add a dependency to job 'j': it is completed; only jobs that wait can change what they depend on"
    ),
    ("running", "undepend"): (
        "cannot remove a dependency from job 'j': it is running; only jobs that wait can change what they depend on"
    ),
}


def action_on(manager: JobManager, action: str) -> Callable[[], Awaitable[object]]:
    """Give the call that is to be refused."""
    return {
        "start": lambda: manager.start_job("j"),
        "pause": lambda: manager.pause_job("j"),
        "resume": lambda: manager.resume_job("j"),
        "cancel": lambda: manager.cancel_job("j"),
        "retry": lambda: manager.retry_job("j"),
        "delete": lambda: manager.delete_job("j"),
        "depend": lambda: manager.add_job_dependency("j", "other"),
        "undepend": lambda: manager.remove_job_dependency("j", "parent"),
    }[action]


async def bring_to(manager: JobManager, state: str) -> None:
    """Make a job ``j``, with a completed dependency ``parent``, that is in the state."""
    held = Held()
    held.let_go("parent")
    manager.register_handler("work", held)

    @manager.handler
    async def broken() -> None:
        raise ValueError

    await manager.create_job("work", job_id="other")
    await manager.create_job("work", job_id="parent", auto_start=True)
    await soon(manager.wait_for_job("parent"))
    await manager.create_job("broken" if state == "failed" else "work", job_id="j", dependencies=["parent"])
    if state == "unstarted":
        return
    if state == "cancelled":
        await manager.cancel_job("j")
        return
    await manager.start_job("j")
    await settled()
    if state == "completed":
        held.let_go("j")
        await soon(manager.wait_for_job("j"))
    if state == "paused":
        await manager.pause_job("j")


@pytest.mark.parametrize(("state", "action"), REFUSALS)
async def test_refused(manager: JobManager, state: str, action: str) -> None:
    await bring_to(manager, state)
    before = await manager.get_job("j")
    assert state in {before.status.value, "unstarted"}

    with pytest.raises(InvalidTransitionError) as caught:
        await action_on(manager, action)()

    assert str(caught.value) == REFUSALS[state, action]
    assert (caught.value.job_id, caught.value.status) == ("j", before.status)
    assert await manager.get_job("j") == before


@pytest.mark.parametrize("action", ["start", "pause", "resume", "cancel", "retry", "depend", "undepend"])
async def test_job_that_does_not_exist_is_said_not_to(manager: JobManager, action: str) -> None:
    with pytest.raises(JobNotFoundError, match="there is no job 'j'; it may have been deleted"):
        await action_on(manager, action)()


async def test_deleting_a_job_that_does_not_exist_is_no_error(manager: JobManager) -> None:
    assert await manager.delete_job("j") is False


async def test_deleted_job_is_gone(manager: JobManager) -> None:
    job = await manager.create_job("work")

    assert await manager.delete_job(job.job_id) is True
    assert await manager.delete_job(job.job_id) is False
    with pytest.raises(JobNotFoundError):
        await manager.get_job(job.job_id)


async def test_job_that_an_unfinished_one_depends_on_is_not_deleted(manager: JobManager) -> None:
    await manager.create_job("work", job_id="j")
    await manager.create_job("work", job_id="child", dependencies=["j"])

    with pytest.raises(JobInUseError) as caught:
        await manager.delete_job("j")

    message = "cannot delete job 'j': it is pending; unfinished job 'child' depends on it; delete that first"
    assert str(caught.value) == message
    await manager.cancel_job("child")
    assert await manager.delete_job("j") is True


async def test_second_job_of_one_id_is_refused(manager: JobManager) -> None:
    first = await manager.create_job("work", job_id="j", payload=1)

    with pytest.raises(DuplicateJobError, match="a job 'j' exists already; choose another job_id"):
        await manager.create_job("work", job_id="j", payload=2)

    assert await manager.get_job("j") == first


async def test_unknown_dependency_is_refused(manager: JobManager) -> None:
    with pytest.raises(UnknownDependencyError, match="job 'j' depends on 'ghost', which does not exist"):
        await manager.create_job("work", job_id="j", dependencies=["ghost"])

    await manager.create_job("work", job_id="j")
    with pytest.raises(UnknownDependencyError, match="job 'j' depends on 'ghost', which does not exist"):
        await manager.add_job_dependency("j", "ghost")
    assert await manager.get_job_status("j") is JobStatus.PENDING
