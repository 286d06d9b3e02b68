"""When a dependency fails or is cancelled, the dependent follows its own policy, and so on down the line."""

import pytest

from openagents_json.job import EventType, JobManager, JobStatus, WaitReason
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import pass_time, settled, soon


class Switch:
    """A handler that fails until it is mended.

    Attributes:
        broken: whether it fails.
        ran: how often it was tried.
    """

    def __init__(self) -> None:
        self.broken = True
        self.ran = 0

    async def __call__(self) -> str:
        self.ran += 1
        if self.broken:
            msg = "broken"
            raise ValueError(msg)
        return "mended"


@pytest.fixture
async def switch(manager: JobManager) -> Switch:
    switch = Switch()
    manager.register_handler("switch", switch)
    return switch


@pytest.fixture
async def held(manager: JobManager) -> Held:
    held = Held()
    manager.register_handler("work", held)
    held.let_go()
    return held


async def family(manager: JobManager, policy: str, *, grandchild_policy: str = "cancel") -> None:
    """Create parent, child and grandchild, all queued."""
    await manager.create_job("switch", job_id="parent")
    await manager.create_job(
        "work", job_id="child", dependencies=["parent"], on_dependency_failure=policy, auto_start=True
    )
    await manager.create_job(
        "work", job_id="grandchild", dependencies=["child"], on_dependency_failure=grandchild_policy, auto_start=True
    )


async def test_dependents_are_cancelled_all_the_way_down(manager: JobManager, switch: Switch, held: Held) -> None:
    await family(manager, "cancel")
    await manager.start_job("parent")

    child = await soon(manager.wait_for_job("child"))
    grandchild = await soon(manager.wait_for_job("grandchild"))

    assert child.status is grandchild.status is JobStatus.CANCELLED
    assert str(child.error) == "DependencyFailed: dependency 'parent' failed (ValueError: broken)"
    assert str(grandchild.error) == (
        "DependencyFailed: dependency 'child' was cancelled, since 'parent' failed (ValueError: broken)"
    )
    assert child.completed_at == grandchild.completed_at
    assert held.begun == []


async def test_cancelling_a_job_cancels_its_dependents(manager: JobManager, switch: Switch, held: Held) -> None:
    await family(manager, "cancel")

    await manager.cancel_job("parent", "changed my mind")

    child, grandchild = await manager.get_job("child"), await manager.get_job("grandchild")
    assert child.status is grandchild.status is JobStatus.CANCELLED
    assert str(child.error) == "DependencyFailed: dependency 'parent' cancelled (Cancelled: changed my mind)"


async def test_cascade_of_a_thousand_generations_is_told(manager: JobManager, switch: Switch) -> None:
    told: list[str] = []
    manager.events.subscribe(lambda event: told.append(event.job_id), types=[EventType.CANCELLED])
    await manager.create_job("switch", job_id="j0")
    await manager.create_job_batch(
        [{"name": "work", "job_id": f"j{n}", "dependencies": ["j0" if n == 1 else n - 2]} for n in range(1, 1000)],
        auto_start=True,
    )

    await manager.cancel_job("j0")

    assert await manager.count_jobs(status="cancelled") == 1000
    assert told == [f"j{n}" for n in range(1000)]


async def test_running_dependent_is_cancelled_when_its_dependency_runs_again_and_fails(
    manager: JobManager, switch: Switch
) -> None:
    running = Held()
    manager.register_handler("running", running)
    switch.broken = False
    await soon(manager.run_job("switch", job_id="parent"))
    await manager.create_job("running", job_id="child", dependencies=["parent"], auto_start=True)
    await running.wait_begun("child")
    switch.broken = True

    await manager.retry_job("parent")
    await soon(manager.wait_for_job("parent"))
    await settled()

    assert await manager.get_job_status("child") is JobStatus.CANCELLED
    assert running.cancelled == ["child"]


async def test_dependent_that_waits_stays_pending(
    manager: JobManager, clock: ManualClock, switch: Switch, held: Held
) -> None:
    await family(manager, "wait")
    await manager.start_job("parent")
    await soon(manager.wait_for_job("parent"))
    await pass_time(clock, 3600)

    for job_id in ("child", "grandchild"):
        job = await manager.get_job(job_id)
        assert (job.status, job.wait_reason) == (JobStatus.PENDING, WaitReason.DEPENDENCIES)

    switch.broken = False
    await manager.retry_job("parent")
    await soon(manager.wait_for_job("grandchild"))
    assert held.begun == ["child", "grandchild"]


async def test_dependent_that_shall_run_runs(manager: JobManager, switch: Switch, held: Held) -> None:
    await family(manager, "run")
    await manager.start_job("parent")

    assert (await soon(manager.wait_for_job("grandchild"))).status is JobStatus.COMPLETED
    assert held.begun == ["child", "grandchild"]


@pytest.mark.parametrize("how", ["failed", "cancelled"])
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("cancel", (JobStatus.CANCELLED, None)),
        ("wait", (JobStatus.PENDING, WaitReason.DEPENDENCIES)),
        ("run", (JobStatus.PENDING, WaitReason.WORKER)),
    ],
)
async def test_job_created_under_a_parent_that_is_over_follows_its_policy(
    manager: JobManager, switch: Switch, how: str, policy: str, expected: tuple[JobStatus, WaitReason | None]
) -> None:
    await manager.create_job("switch", job_id="parent")
    if how == "failed":
        await manager.start_job("parent")
        await soon(manager.wait_for_job("parent"))
    else:
        await manager.cancel_job("parent")

    created = await manager.create_job(
        "nobody-can", dependencies=["parent"], on_dependency_failure=policy, auto_start=True
    )
    added = await manager.create_job("nobody-can", on_dependency_failure=policy, auto_start=True)
    added = await manager.add_job_dependency(added.job_id, "parent")

    assert (created.status, created.wait_reason) == (added.status, added.wait_reason) == expected
    if policy == "cancel":
        assert str(created.error).startswith(f"DependencyFailed: dependency 'parent' {how}")
        assert (await soon(manager.wait_for_job(created.job_id))).status is JobStatus.CANCELLED


async def test_parent_run_again_brings_its_cancelled_dependents_back(
    manager: JobManager, switch: Switch, held: Held
) -> None:
    await family(manager, "cancel")
    await manager.start_job("parent")
    await soon(manager.wait_for_job("grandchild"))
    switch.broken = False

    await manager.retry_job("parent")

    assert (await soon(manager.wait_for_job("grandchild"))).status is JobStatus.COMPLETED
    assert held.begun == ["child", "grandchild"]
    child = await manager.get_job("child")
    assert (child.error, child.status) == (None, JobStatus.COMPLETED)


async def test_dependent_cancelled_for_a_reason_of_its_own_stays_cancelled(
    manager: JobManager, switch: Switch, held: Held
) -> None:
    await family(manager, "cancel")
    await manager.cancel_job("child", "not this one")
    await manager.start_job("parent")
    await soon(manager.wait_for_job("parent"))
    switch.broken = False

    await manager.retry_job("parent")
    await soon(manager.wait_for_job("parent"))
    await settled()

    child = await manager.get_job("child")
    assert (child.status, str(child.error)) == (JobStatus.CANCELLED, "Cancelled: not this one")
    assert held.begun == []


async def test_dependent_of_two_failed_jobs_comes_back_when_both_run_again(
    manager: JobManager, switch: Switch, held: Held
) -> None:
    for job_id in ("one", "two"):
        await manager.create_job("switch", job_id=job_id)
    await manager.create_job("work", job_id="child", dependencies=["one", "two"], auto_start=True)
    for job_id in ("one", "two"):
        await manager.start_job(job_id)
        await soon(manager.wait_for_job(job_id))
    switch.broken = False

    await manager.retry_job("one")
    await soon(manager.wait_for_job("one"))
    child = await manager.get_job("child")
    assert child.status is JobStatus.CANCELLED
    assert str(child.error).startswith("DependencyFailed: dependency 'two' failed")

    await manager.retry_job("two")
    assert (await soon(manager.wait_for_job("child"))).status is JobStatus.COMPLETED


async def test_dependent_that_was_not_started_comes_back_not_started(manager: JobManager, switch: Switch) -> None:
    await manager.create_job("switch", job_id="parent", auto_start=True)
    await soon(manager.wait_for_job("parent"))
    await manager.create_job("work", job_id="child", dependencies=["parent"])

    await manager.retry_job("parent")

    child = await manager.get_job("child")
    assert (child.status, child.wait_reason) == (JobStatus.PENDING, WaitReason.START)


async def test_retry_that_is_still_to_come_cancels_nobody(
    manager: JobManager, clock: ManualClock, switch: Switch, held: Held
) -> None:
    await manager.create_job("switch", job_id="parent", max_retries=1, retry_delay=30, auto_start=True)
    await manager.create_job("work", job_id="child", dependencies=["parent"], auto_start=True)
    await settled()
    assert (await manager.get_job("child")).wait_reason is WaitReason.DEPENDENCIES
    switch.broken = False

    await pass_time(clock, 30)
    assert await manager.get_job_status("child") is JobStatus.COMPLETED
