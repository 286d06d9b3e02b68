"""A batch is stored as a whole or not at all; what is wrong with it is named by its position."""

from typing import Any

import pytest

from openagents_json.errors import DependencyCycleError, InvalidJobError, UnknownDependencyError
from openagents_json.job import BatchJob, JobManager
from tests.api.helpers import call, shown


@pytest.mark.parametrize(
    "specs", ["work", b"work", {"name": "work"}, 7, None, True, {"work"}, iter([{"name": "x"}])], ids=shown
)
async def test_what_is_no_list_of_dicts_is_refused(manager: JobManager, specs: object) -> None:
    with pytest.raises(InvalidJobError, match="must be a list of dicts") as refusal:
        await call(manager.create_job_batch, specs)
    assert refusal.value.field == "specs"
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("specs", [[], ()], ids=shown)
async def test_an_empty_batch_is_refused(manager: JobManager, specs: list[BatchJob]) -> None:
    with pytest.raises(InvalidJobError, match="specs: is empty; a batch needs at least one job"):
        await manager.create_job_batch(specs)
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("spec", ["work", 7, None, ["name"], [("name", "work")], object()], ids=shown)
async def test_a_spec_that_is_no_dict_is_refused(manager: JobManager, spec: object) -> None:
    with pytest.raises(InvalidJobError, match="must be a dict") as refusal:
        await call(manager.create_job_batch, [{"name": "fine"}, spec])
    assert refusal.value.field == "specs[1]"
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("auto_start", [None, 0, 1, "yes", []], ids=shown)
async def test_auto_start_must_be_true_or_false(manager: JobManager, auto_start: object) -> None:
    with pytest.raises(InvalidJobError, match="auto_start: must be True or False") as refusal:
        await call(manager.create_job_batch, [{"name": "fine"}], auto_start=auto_start)
    assert refusal.value.field == "auto_start", "it is an argument of the call, not of a job"
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("index", [3, 4, -1, -3, 10**30])
async def test_a_dependency_outside_the_batch_is_refused(manager: JobManager, index: int) -> None:
    specs: list[BatchJob] = [{"name": "a"}, {"name": "b"}, {"name": "c", "dependencies": [0, index]}]
    with pytest.raises(InvalidJobError, match=rf"must be a position from 0 to 2 or a job id, not {index}") as refusal:
        await manager.create_job_batch(specs)
    assert refusal.value.field == "specs[2].dependencies[1]"
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize("dependency", [True, False, 1.0, "1.5/2", None, b"0", [0]], ids=shown)
async def test_a_dependency_that_is_neither_position_nor_id_is_refused(manager: JobManager, dependency: object) -> None:
    specs = [{"name": "a"}, {"name": "b"}, {"name": "c", "dependencies": [dependency]}]
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job_batch, specs)
    assert refusal.value.field == "specs[2].dependencies[0]"
    assert await manager.count_jobs() == 0


async def test_bytes_are_no_list_of_positions(manager: JobManager) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await call(manager.create_job_batch, [{"name": "a"}, {"name": "b", "dependencies": b"\0"}])
    assert refusal.value.field == "specs[1].dependencies"


async def test_a_position_outside_a_batch_is_refused(manager: JobManager) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        await manager.create_job("work", dependencies=[0])
    assert refusal.value.field == "dependencies[0]"
    assert await manager.count_jobs() == 0


@pytest.mark.parametrize(
    ("specs", "cycle"),
    [
        ([{"name": "a", "job_id": "a", "dependencies": [0]}], ("a", "a")),
        ([{"name": "a", "job_id": "a", "dependencies": ["a"]}], ("a", "a")),
        (
            [
                {"name": "a", "job_id": "a", "dependencies": [2]},
                {"name": "b", "job_id": "b", "dependencies": ["a"]},
                {"name": "c", "job_id": "c", "dependencies": [1]},
            ],
            ("a", "c", "b", "a"),
        ),
    ],
)
async def test_jobs_that_wait_for_each_other_are_refused_with_the_cycle(
    manager: JobManager, specs: list[BatchJob], cycle: tuple[str, ...]
) -> None:
    with pytest.raises(DependencyCycleError, match=r"form a cycle: .* -> ") as refusal:
        await manager.create_job_batch(specs)
    found = refusal.value.cycle
    assert found[0] == found[-1]
    turned = found[found.index("a") : -1] + found[: found.index("a")]
    assert (*turned, "a") == cycle
    assert await manager.count_jobs() == 0


async def test_an_id_given_twice_is_refused(manager: JobManager) -> None:
    specs: list[BatchJob] = [{"name": "a", "job_id": "same"}, {"name": "b"}, {"name": "c", "job_id": "same"}]
    with pytest.raises(InvalidJobError, match="'same' is given twice"):
        await manager.create_job_batch(specs)
    assert await manager.count_jobs() == 0


async def test_an_unknown_dependency_is_refused(manager: JobManager) -> None:
    with pytest.raises(UnknownDependencyError, match="'nobody'"):
        await manager.create_job_batch([{"name": "a"}, {"name": "b", "dependencies": ["nobody"]}])
    assert await manager.count_jobs() == 0


async def test_one_wrong_job_among_many_leaves_none(manager: JobManager) -> None:
    specs: list[Any] = [{"name": f"job {number}"} for number in range(200)]
    specs[150] = {"name": "wrong", "payload": {"items": [1, 2, {"price": float("nan")}]}}
    with pytest.raises(InvalidJobError) as refusal:
        await manager.create_job_batch(specs)
    assert refusal.value.field == "specs[150].payload.items[2].price"
    assert await manager.count_jobs() == 0


async def test_a_batch_leaves_the_callers_specs_alone(manager: JobManager) -> None:
    specs: list[BatchJob] = [{"name": "a"}, {"name": "b", "dependencies": [0], "metadata": {"k": 1}}]
    before = [dict(spec) for spec in specs]
    await manager.create_job_batch(specs)
    assert specs == before


async def test_a_batch_may_mix_positions_and_ids_and_name_a_dependency_twice(manager: JobManager) -> None:
    outside = await manager.create_job("outside", job_id="outside")
    specs: list[BatchJob] = [
        {"name": "last", "job_id": "last", "dependencies": [1, "first", "outside", 1]},
        {"name": "first", "job_id": "first"},
    ]
    batch_id, jobs = await manager.create_job_batch(specs)
    assert [job.job_id for job in jobs] == ["last", "first"]
    assert jobs[0].dependencies == ("first", outside.job_id)
    assert {job.batch_id for job in jobs} == {batch_id}
