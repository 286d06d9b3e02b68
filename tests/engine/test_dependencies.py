"""A job runs when all it depends on has completed: shapes large and small, edges added and removed, cycles."""

import asyncio
import itertools
from typing import Any

import pytest

from openagents_json.errors import DependencyCycleError
from openagents_json.job import BatchJob, JobContext, JobManager, JobStatus, WaitReason
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held
from tests.engine._time import pass_time, settled, soon
from tests.engine.conftest import Managers

MANY = 1000


class Order:
    """A handler that notes the order in which jobs run."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def __call__(self, payload: object, context: JobContext) -> object:
        self.ran.append(context.job_id)
        return payload


@pytest.fixture
async def order(manager: JobManager) -> Order:
    order = Order()
    manager.register_handler("work", order)
    return order


async def test_diamond_runs_from_top_to_bottom(manager: JobManager, order: Order) -> None:
    batch: list[BatchJob] = [
        {"name": "work", "job_id": "bottom", "dependencies": [1, 2]},
        {"name": "work", "job_id": "left", "dependencies": [3]},
        {"name": "work", "job_id": "right", "dependencies": [3]},
        {"name": "work", "job_id": "top"},
    ]
    await manager.create_job_batch(batch, auto_start=True)

    await soon(manager.wait_for_job("bottom"))
    assert order.ran[0] == "top"
    assert sorted(order.ran[1:3]) == ["left", "right"]
    assert order.ran[3:] == ["bottom"]


async def test_chain_of_a_thousand_runs_in_order(manager: JobManager, order: Order) -> None:
    batch: list[BatchJob] = [{"name": "work", "job_id": "link-0"}]
    batch += [{"name": "work", "job_id": f"link-{n}", "dependencies": [n - 1]} for n in range(1, MANY)]
    await manager.create_job_batch(batch, auto_start=True)

    await soon(manager.wait_for_job(f"link-{MANY - 1}"))
    assert order.ran == [f"link-{n}" for n in range(MANY)]


async def test_one_job_waits_for_a_thousand(managers: Managers) -> None:
    manager, order = managers(max_concurrent_jobs=100), Order()
    manager.register_handler("work", order)
    counted: list[int] = []

    @manager.handler
    async def collect(context: JobContext) -> int:
        counted.append(len(order.ran))
        return sum(context.dependency_results.values())

    batch: list[BatchJob] = [{"name": "work", "payload": n} for n in range(MANY)]
    batch.append({"name": "collect", "job_id": "all", "dependencies": list(range(MANY))})
    await manager.create_job_batch(batch, auto_start=True)

    done = await soon(manager.wait_for_job("all"))
    assert (done.result, counted) == (sum(range(MANY)), [MANY])


async def test_a_thousand_wait_for_one_job(managers: Managers) -> None:
    manager, held = managers(max_concurrent_jobs=100), Held()
    manager.register_handler("work", held)
    batch: list[BatchJob] = [{"name": "work", "job_id": "one"}]
    batch += [{"name": "work", "dependencies": ["one"]} for _ in range(MANY)]
    batch_id, _ = await manager.create_job_batch(
        [{**job, "dependencies": [0]} if n else job for n, job in enumerate(batch)]
    )
    for job in await manager.get_batch_jobs(batch_id):
        await manager.start_job(job.job_id)
    await settled()
    assert held.begun == ["one"]

    held.let_go()
    waits = [manager.wait_for_job(job.job_id) for job in await manager.get_batch_jobs(batch_id)]
    done = await soon(asyncio.gather(*waits))
    assert {job.status for job in done} == {JobStatus.COMPLETED}
    assert len(held.begun) == MANY + 1


async def test_layers_of_a_mesh_wait_for_each_other(manager: JobManager, order: Order) -> None:
    layers, width = 6, 12
    batch: list[BatchJob] = []
    for layer in range(layers):
        for place in range(width):
            above = [(layer - 1) * width + other for other in range(width)] if layer else []
            batch.append({"name": "work", "job_id": f"{layer}-{place}", "dependencies": above})
    _, jobs = await manager.create_job_batch(batch, auto_start=True)

    await soon(asyncio.gather(*(manager.wait_for_job(job.job_id) for job in jobs)))
    ran = [int(job_id.split("-")[0]) for job_id in order.ran]
    assert ran == sorted(ran)
    assert len(ran) == layers * width


async def test_started_job_with_unmet_dependencies_waits_for_them(manager: JobManager, order: Order) -> None:
    await manager.create_job("work", job_id="parent")
    await manager.create_job("work", job_id="child", dependencies=["parent"])

    assert (await manager.start_job("child")).wait_reason is WaitReason.DEPENDENCIES
    await settled()
    assert order.ran == []

    await manager.start_job("parent")
    await soon(manager.wait_for_job("child"))
    assert order.ran == ["parent", "child"]


async def test_job_whose_dependencies_have_completed_already_is_ready(manager: JobManager, order: Order) -> None:
    await soon(manager.run_job("work", job_id="parent"))

    job = await manager.create_job("work", job_id="child", dependencies=["parent"], auto_start=True)

    assert job.wait_reason is WaitReason.WORKER
    await soon(manager.wait_for_job("child"))


async def test_handler_sees_its_dependencies_results_in_the_order_given(manager: JobManager, order: Order) -> None:
    seen: list[tuple[str, Any]] = []

    @manager.handler
    async def collect(context: JobContext) -> None:
        seen.extend(context.dependency_results.items())

    for job_id in ("a", "b", "c", "d"):
        await soon(manager.run_job("work", job_id=job_id, payload={"from": job_id}))
    await soon(manager.run_job("collect", dependencies=["c", "a", "d", "b", "a"]))

    assert seen == [(job_id, {"from": job_id}) for job_id in ("c", "a", "d", "b")]


async def test_dependency_that_did_not_complete_gives_no_result(manager: JobManager, order: Order) -> None:
    seen: list[dict[str, Any]] = []

    @manager.handler
    async def collect(context: JobContext) -> None:
        seen.append(dict(context.dependency_results))

    await manager.create_job("work", job_id="bad")
    await manager.cancel_job("bad")
    await soon(manager.run_job("work", job_id="good", payload=1))
    await soon(manager.run_job("collect", dependencies=["bad", "good"], on_dependency_failure="run"))

    assert seen == [{"bad": None, "good": 1}]


async def test_results_read_by_one_handler_are_its_own(manager: JobManager, order: Order) -> None:
    seen: list[Any] = []

    @manager.handler
    async def spoil(context: JobContext) -> None:
        result = context.dependency_results["parent"]
        seen.append(list(result))
        result.append("spoilt")

    await soon(manager.run_job("work", job_id="parent", payload=[1]))
    for _ in range(2):
        await soon(manager.run_job("spoil", dependencies=["parent"]))

    assert seen == [[1], [1]]


async def test_dependencies_and_dependents_are_listed(manager: JobManager) -> None:
    for job_id in ("a", "b"):
        await manager.create_job("work", job_id=job_id)
    await manager.create_job("work", job_id="first", dependencies=["b", "a"])
    await manager.create_job("work", job_id="second", dependencies=["a"])

    assert [job.job_id for job in await manager.get_dependencies("first")] == ["b", "a"]
    assert [job.job_id for job in await manager.get_dependent_jobs("a")] == ["first", "second"]
    assert await manager.get_dependent_jobs("first") == []


async def test_job_in_a_dependencys_way_can_be_added_later(manager: JobManager, order: Order) -> None:
    await manager.create_job("work", job_id="late-parent")
    await manager.create_job("work", job_id="child", auto_start=True, delay=60)

    changed = await manager.add_job_dependency("child", "late-parent")
    assert (changed.dependencies, changed.wait_reason) == (("late-parent",), WaitReason.DEPENDENCIES)
    await manager.start_job("late-parent")
    await soon(manager.wait_for_job("late-parent"))
    assert (await manager.get_job("child")).wait_reason is WaitReason.TIME


async def test_dependency_added_twice_counts_once(manager: JobManager, order: Order) -> None:
    await manager.create_job("work", job_id="parent")
    await manager.create_job("work", job_id="child")
    await manager.add_job_dependency("child", "parent")
    once = await manager.get_job("child")

    assert await manager.add_job_dependency("child", "parent") == once
    await manager.start_job("child")
    await manager.start_job("parent")
    await soon(manager.wait_for_job("child"))


async def test_removed_dependency_is_not_waited_for(manager: JobManager, order: Order) -> None:
    for job_id in ("a", "b"):
        await manager.create_job("work", job_id=job_id)
    await manager.create_job("work", job_id="child", dependencies=["a", "b"], auto_start=True)

    changed = await manager.remove_job_dependency("child", "a")
    assert (changed.dependencies, changed.wait_reason) == (("b",), WaitReason.DEPENDENCIES)
    changed = await manager.remove_job_dependency("child", "b")
    assert (changed.dependencies, changed.wait_reason) == ((), WaitReason.WORKER)

    await soon(manager.wait_for_job("child"))
    assert await manager.remove_job_dependency("a", "b") == await manager.get_job("a"), "there was none"


async def test_dependency_of_a_paused_job_can_be_changed(manager: JobManager, order: Order) -> None:
    await manager.create_job("work", job_id="parent")
    await manager.create_job("work", job_id="child", auto_start=True, delay=5)
    await manager.pause_job("child")
    await manager.add_job_dependency("child", "parent")

    assert (await manager.resume_job("child")).wait_reason is WaitReason.DEPENDENCIES
    await manager.start_job("parent")
    await soon(manager.wait_for_job("parent"))
    assert (await manager.get_job("child")).wait_reason is WaitReason.TIME


async def test_job_that_backs_off_cannot_run_before_a_dependency_added_meanwhile(
    manager: JobManager, clock: ManualClock
) -> None:
    tries: list[str] = []

    @manager.handler
    async def flaky(context: JobContext) -> None:
        tries.append(context.job_id)
        if len(tries) == 1:
            raise ValueError

    await manager.create_job("flaky", job_id="child", auto_start=True, max_retries=1, retry_delay=10)
    await settled()
    await manager.create_job("flaky", job_id="parent")
    await manager.add_job_dependency("child", "parent")
    await pass_time(clock, 60)
    assert tries == ["child"]

    await manager.start_job("parent")
    await soon(manager.wait_for_job("child"))
    assert tries == ["child", "parent", "child"]


async def test_job_cannot_depend_on_itself(manager: JobManager) -> None:
    await manager.create_job("work", job_id="j")

    with pytest.raises(DependencyCycleError, match="the dependencies form a cycle: j -> j; leave one of them out"):
        await manager.add_job_dependency("j", "j")


async def test_cycle_closed_by_an_edge_is_named(manager: JobManager) -> None:
    await manager.create_job("work", job_id="a")
    await manager.create_job("work", job_id="b", dependencies=["a"])
    await manager.create_job("work", job_id="c", dependencies=["b"])

    with pytest.raises(DependencyCycleError) as caught:
        await manager.add_job_dependency("a", "c")

    assert caught.value.cycle == ("a", "c", "b", "a")
    assert str(caught.value) == "the dependencies form a cycle: a -> c -> b -> a; leave one of them out"
    assert (await manager.get_job("a")).dependencies == ()


async def test_cycle_in_a_batch_is_named_and_nothing_of_it_is_stored(manager: JobManager) -> None:
    batch: list[BatchJob] = [
        {"name": "work", "job_id": "a", "dependencies": [2]},
        {"name": "work", "job_id": "b", "dependencies": ["a"]},
        {"name": "work", "job_id": "c", "dependencies": [1]},
        {"name": "work", "job_id": "bystander"},
    ]
    with pytest.raises(DependencyCycleError) as caught:
        await manager.create_job_batch(batch)

    cycle = caught.value.cycle
    assert cycle[0] == cycle[-1]
    assert sorted(cycle[1:]) == ["a", "b", "c"]
    edges = {"a": "c", "b": "a", "c": "b"}
    assert all(edges[one] == other for one, other in itertools.pairwise(cycle)), cycle
    assert await manager.count_jobs() == 0


async def test_edge_that_closes_no_cycle_may_run_beside_another(manager: JobManager, order: Order) -> None:
    for job_id in ("a", "b", "c"):
        await manager.create_job("work", job_id=job_id)
    await manager.add_job_dependency("c", "a")
    await manager.add_job_dependency("c", "b")
    await manager.add_job_dependency("b", "a")
    for job_id in ("c", "b", "a"):
        await manager.start_job(job_id)

    await soon(manager.wait_for_job("c"))
    assert order.ran == ["a", "b", "c"]


async def test_edge_may_be_turned_round(manager: JobManager, order: Order) -> None:
    await manager.create_job("work", job_id="a")
    await manager.create_job("work", job_id="b", dependencies=["a"])
    await manager.remove_job_dependency("b", "a")
    await manager.add_job_dependency("a", "b")
    await manager.start_job("a")
    await manager.start_job("b")

    await soon(manager.wait_for_job("a"))
    assert order.ran == ["b", "a"]


async def test_dependents_of_a_completed_job_that_runs_again_wait_again(manager: JobManager) -> None:
    held = Held()
    manager.register_handler("work", held)
    held.let_go("parent")
    await soon(manager.run_job("work", job_id="parent"))
    await manager.create_job("work", job_id="child", dependencies=["parent"])
    await manager.create_job("work", job_id="begun", dependencies=["parent"], auto_start=True)
    await held.wait_begun("begun")
    held.hold("parent")

    await manager.retry_job("parent")
    assert (await manager.start_job("child")).wait_reason is WaitReason.DEPENDENCIES
    await settled()
    assert held.begun == ["parent", "begun", "parent"]
    assert await manager.get_job_status("begun") is JobStatus.RUNNING, "what runs goes on"

    held.let_go("parent", "begun", "child")
    await soon(manager.wait_for_job("child"))
    await soon(manager.wait_for_job("begun"))
    assert held.begun == ["parent", "begun", "parent", "child"]
