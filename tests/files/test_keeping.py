"""What is in the files is what was stored: after closing, after any death, and for people to read."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from openagents_json.job import JobManager
from openagents_json.job._changes import Cancel, Change, Delete, Finish, Pause, Progress, Query, Recover, Rerun
from openagents_json.job._checks import check_id
from openagents_json.job._record import JobRecord
from openagents_json.job.model import AttemptOutcome, DependencyFailurePolicy, JobPriority, JobStatus
from openagents_json.job.retry import RetryPolicy
from openagents_json.job.storage import FileJobStore, store_from_settings
from openagents_json.job.storage._jobfiles import file_name
from openagents_json.settings import Settings
from openagents_json.testing import ManualClock, StoreDriver, a_claim, a_job, adding
from openagents_json.testing.clock import START
from tests.files._tools import all_jobs, document, job_file, jobs_in, opened, segments, soon_written, store_of

#: Written as this package writes JSON: a durable store may change the spacing, and which characters are escaped.
ODD_JSON = '{"ü":"\u2028 \\n ß 💥","n":[0,-0.0,1.5e-7,12345678901234567890123],"":{"a":[null,true]}}'.encode()


async def make_varied_jobs(driver: StoreDriver) -> None:
    """Make jobs in every state, with every field set in some of them."""
    await driver.add(
        a_job(
            "Full:of-everything_1",
            name="ein name\u2028\n\t\"'/..\\",
            description="üöä 💥",
            handler="do it",
            payload=ODD_JSON,
            metadata=b'{"recovery":"none"}',
            tags=("a", "b", ""),
            priority=JobPriority.CRITICAL,
            batch_id="batch",
            on_dependency_failure=DependencyFailurePolicy.RUN,
            max_retries=3,
            retry_delay=0.1,
            retry_policy=RetryPolicy.exponential(0.5, max_delay=7.25, jitter=0.125),
            timeout=12.5,
            max_recoveries=None,
        )
    )
    await driver.add(a_job("parent"), a_job("child", "parent"), a_job("grandchild", "child", "parent"))
    await driver.add(a_job("idle", queued=False), a_job("later", delay=1000.5), a_job("at", run_at=START))
    await driver.complete("Full:of-everything_1", result=ODD_JSON)
    await driver.add(a_job("nothing"), a_job("failed"), a_job("retried", max_retries=1), a_job("held"))
    await driver.complete("nothing", result=b"null")
    await driver.fail("failed")
    await driver.fail("retried", retry_in=3.0)
    await driver.add(
        a_job("orphan", max_recoveries=3), a_job("paused"), a_job("cancelled"), a_job("cancelled-child", "cancelled")
    )
    for number in range(2):
        await driver.die_with("orphan", worker_id=f"dead-{number}")
        driver.clock.advance(100.0)
    await driver.do(Pause("paused"))
    await driver.do(Cancel("cancelled", "not wanted"))
    lease = await driver.run("held")
    await driver.do(Progress("held", lease, 0.25, "a quarter"))
    await driver.fail("parent")
    await driver.do(Rerun("parent"))


@pytest.mark.parametrize("ending", ["closed", "died", "died with job files written"])
async def test_jobs_are_found_again_as_they_were(any_directory: Path, ending: str) -> None:
    async with opened(any_directory) as driver:
        await make_varied_jobs(driver)
        if ending.endswith("written"):
            await soon_written(driver)
        before = await all_jobs(store_of(driver))
        if ending.startswith("died"):
            assert await jobs_in(any_directory) == before
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == before
        assert store_of(driver).set_aside == ()


async def test_each_job_is_a_document_for_people(any_directory: Path) -> None:
    async with opened(any_directory) as driver:
        await make_varied_jobs(driver)
        jobs = await all_jobs(store_of(driver))
    files = sorted((any_directory / "jobs").iterdir())
    assert len(files) == len(jobs)
    for path in files:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text)
        assert list(content)[:4] == ["format", "job_id", "name", "status"]
        assert len(text.splitlines()) > 20, "it is indented"
        assert content["status"] == jobs[content["job_id"]].status.value
        assert "unmet" not in content, "what can be derived is not stored"
    done = json.loads((any_directory / "jobs" / "%46ull%3aof-everything_1.json").read_text(encoding="utf-8"))
    assert done["result"] == done["payload"] == json.loads(ODD_JSON)
    assert done["priority"] == "critical"
    assert "💥" in (any_directory / "jobs" / "%46ull%3aof-everything_1.json").read_text(encoding="utf-8")


async def test_a_deleted_job_stays_deleted(any_directory: Path) -> None:
    async with opened(any_directory) as driver:
        await driver.add(a_job("gone"), a_job("stays"))
        await driver.do(Cancel("gone", ""))
        await soon_written(driver)
        assert job_file(any_directory, "gone").exists()
        await driver.do(Delete("gone"))
        assert set(await jobs_in(any_directory)) == {"stays"}
        await soon_written(driver)
        assert not job_file(any_directory, "gone").exists()
        assert set(await jobs_in(any_directory)) == {"stays"}
    async with opened(any_directory) as driver:
        assert set(await all_jobs(store_of(driver))) == {"stays"}


async def test_an_id_may_be_used_again_after_its_job_was_deleted(directory: Path) -> None:
    async with opened(directory) as driver:
        for description in ("first", "second", "third"):
            await driver.add(a_job("job", description=description))
            before = await driver.job("job")
            assert (await jobs_in(directory))["job"] == before
            if description != "second":
                await soon_written(driver)
            if description != "third":
                await driver.do(Cancel("job", ""))
                await driver.do(Delete("job"))
    assert document(directory, "job")["description"] == "third"


async def test_a_commit_of_many_changes_is_one_record(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.register()
        for number in range(3):
            names = [f"job-{number}-{index}" for index in range(100)]
            changes: Sequence[Change] = [
                adding(*(a_job(name) for name in names)),
                *(Pause(name) for name in names[:50]),
            ]
            await driver.apply(*changes, claim=a_claim(number))
            records = b"".join(path.read_bytes() for path in segments(directory)).splitlines()
            assert len(records) == number + 1


async def test_a_refused_change_writes_nothing(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        before = [path.read_bytes() for path in segments(directory)]
        await driver.refusal(Finish("job", "nobody:1", AttemptOutcome.COMPLETED, b"1"))
        await driver.refusal(adding(a_job("job")))
        await driver.apply()
        assert [path.read_bytes() for path in segments(directory)] == before


async def test_files_of_ids_that_differ_only_in_case_have_names_that_differ_in_more(any_directory: Path) -> None:
    names = ["job", "Job", "JOB", "jOb", "a:b", "a.b", "a..b", "A..", "x.json", "x.tmp", "x.json.tmp", "1"]
    names += ["Z" * 64, "z" * 64, "Z:" * 32]
    for name in names:
        check_id(name)
    async with opened(any_directory) as driver:
        await driver.add(*(a_job(name) for name in names))
        before = await all_jobs(store_of(driver))
    assert len({path.name.lower() for path in (any_directory / "jobs").iterdir()}) == len(names)
    assert max(len(path.name) for path in (any_directory / "jobs").iterdir()) < 250
    async with opened(any_directory) as driver:
        assert await all_jobs(store_of(driver)) == before
        assert store_of(driver).set_aside == ()


def test_a_file_name_belongs_to_one_id_only() -> None:
    names = ["a", "A", "%41", "a:", "a%3a", "a.", "a_", "a-"]
    assert len({file_name(name) for name in names}) == len(names)


async def test_the_settings_choose_the_file_store_and_its_directory(directory: Path) -> None:
    settings = Settings()
    settings.job.store_type = "file"
    settings.job.store_path = directory
    async with JobManager(store_from_settings(settings), run_jobs=False) as manager:
        job = await manager.create_job("note", payload={"n": 1})
    assert document(directory, job.job_id)["payload"] == {"n": 1}
    async with JobManager(FileJobStore(str(directory)), run_jobs=False) as manager:
        assert await manager.get_job(job.job_id) == job


async def test_an_add_repeated_after_a_restart_is_answered_as_before(directory: Path) -> None:
    add = adding(a_job("job"), a_job("child", "job"))
    async with opened(directory) as driver:
        first = await driver.do(add)
    async with opened(directory) as driver:
        again = await driver.do(add)
        assert (again.jobs, again.changed) == (first.jobs, False)
        await driver.refusal(replace(add, jobs=adding(a_job("job")).jobs))


async def test_an_outcome_repeated_after_a_restart_is_answered_as_before(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"))
        finish = Finish("job", await driver.run("job"), AttemptOutcome.COMPLETED, b"1")
        await driver.do(finish)
    async with opened(directory) as driver:
        assert not (await driver.do(finish)).changed
        await driver.refusal(replace(finish, lease="somebody:1"))


async def test_who_held_jobs_before_a_restart_is_known_and_can_be_declared_dead(directory: Path) -> None:
    async with opened(directory) as driver:
        await driver.add(a_job("job"), a_job("other"))
        await driver.run("job")
    async with opened(directory) as driver:
        assert [state.worker.worker_id for state in await driver.store.workers()] == ["worker-1"]
        held = await driver.find(Query(held_by="worker-1"))
        assert held == ["job"]
        await driver.do(Recover("worker-1", "it is gone"))
        assert await driver.status("job") is JobStatus.PENDING
        assert await driver.store.workers() == []


async def test_many_generations_of_a_directory_lose_nothing(directory: Path) -> None:
    clock = ManualClock()
    expected: dict[str, JobRecord] = {}
    for number in range(12):
        async with opened(directory, clock=clock) as driver:
            assert await all_jobs(store_of(driver)) == expected
            await driver.add(a_job(f"job-{number}"))
            if number % 3 == 0:
                await soon_written(driver)
            if number:
                await driver.complete(f"job-{number - 1}", result=str(number).encode())
            expected = await all_jobs(store_of(driver))
            assert await jobs_in(directory) == expected
    assert len(segments(directory)) == 1, "what the job files stand for is dropped"
