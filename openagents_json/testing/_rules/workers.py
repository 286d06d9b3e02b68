"""Workers: how they become known, stay known, and are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openagents_json.errors import WorkerDeadError
from openagents_json.job._changes import Cancel, Pause, Query, Recover, Release, Worker
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import WORKER, StoreDriver, a_claim, a_job, a_worker

if TYPE_CHECKING:
    from openagents_json.job.storage.base import JobStore
    from openagents_json.testing.clock import ManualClock


class WorkerRules(StoreRules):
    """How workers become known, stay known, and are forgotten."""

    async def test_a_registered_worker_is_listed_with_all_it_said(self, store: JobStore) -> None:
        assert await store.workers() == []
        worker = Worker(
            "0198c6f0-7a5e-7b21-9d3e-d6a1b0c5e9f7",
            silence_limit=299.5,
            host="hôst-1.example.org",
            boot_id="f2b6a3d4-5c1e-4e8a-9b7d-0a1b2c3d4e5f",
            pid_namespace="pid:[4026531836]",
            pid=4_194_304,
            pid_started="123456789.25",
        )
        await store.register(worker)
        await store.register(a_worker("plain"))
        states = {state.worker.worker_id: state for state in await store.workers()}
        assert states[worker.worker_id].worker == worker
        assert states["plain"].worker == Worker("plain", 60.0)
        assert len(states) == 2

    async def test_registering_is_the_first_beat_and_a_repeated_one_another(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        await store.register(a_worker())
        (first,) = await store.workers()
        clock.advance(5)
        await store.register(a_worker())
        (second,) = await store.workers()
        assert first.beats >= 1
        assert second.beats > first.beats
        assert (first.silent_for, second.silent_for) == (0, 0)

    async def test_silence_grows_until_the_next_beat(self, store: JobStore, clock: ManualClock) -> None:
        await store.register(a_worker("beating"))
        await store.register(a_worker("silent"))
        before = {state.worker.worker_id: state.beats for state in await store.workers()}
        clock.advance(40)
        assert await store.beat("beating") is True
        clock.advance(2.5)
        states = {state.worker.worker_id: state for state in await store.workers()}
        assert states["beating"].silent_for == pytest.approx(2.5)
        assert states["silent"].silent_for == pytest.approx(42.5)
        assert states["beating"].beats > before["beating"]
        assert states["silent"].beats == before["silent"]

    async def test_every_beat_counts(self, store: JobStore) -> None:
        await store.register(a_worker())
        seen = [(await store.workers())[0].beats]
        for _ in range(3):
            assert await store.beat(WORKER) is True
            seen.append((await store.workers())[0].beats)
        assert seen == sorted(set(seen))

    async def test_a_silent_worker_lives_until_it_is_declared_dead(
        self, driver: StoreDriver, clock: ManualClock
    ) -> None:
        await driver.add(a_job("job"))
        await driver.run("job")
        clock.advance(10_000)
        assert (await driver.job("job")).worker_id == WORKER
        assert await driver.store.beat(WORKER) is True

    async def test_claims_and_outcomes_are_no_beats(self, driver: StoreDriver, clock: ManualClock) -> None:
        await driver.register()
        (before,) = await driver.store.workers()
        clock.advance(5)
        await driver.claim(a_claim(1))
        (after,) = await driver.store.workers()
        assert after.beats == before.beats
        assert after.silent_for == pytest.approx(5)

    async def test_beats_of_nobody_known_are_answered_so(self, store: JobStore) -> None:
        assert await store.beat("nobody") is False
        assert await store.workers() == []

    async def test_worker_ids_that_differ_in_case_only_are_different_workers(self, store: JobStore) -> None:
        await store.register(a_worker("worker"))
        assert await store.beat("WORKER") is False
        await store.register(a_worker("WORKER"))
        await store.apply([Recover("WORKER", "it died")])
        assert await store.beat("worker") is True

    async def test_an_unregistered_worker_is_forgotten_and_may_come_back(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.store.unregister(WORKER)
        assert await driver.store.workers() == []
        assert await driver.store.beat(WORKER) is False
        assert isinstance((await driver.claimed(a_claim(1))).error, WorkerDeadError)
        await driver.store.unregister(WORKER)
        await driver.register()
        assert await driver.claim(a_claim(2)) == []

    async def test_a_worker_that_holds_jobs_is_not_forgotten(self, driver: StoreDriver) -> None:
        await driver.add(a_job("running"), a_job("paused"))
        lease = await driver.run("running", "paused")
        await driver.do(Pause("paused"))
        await driver.do(Release("running", lease, "why"))
        await driver.store.unregister(WORKER)
        assert await driver.store.beat(WORKER) is True
        assert await driver.find(Query(held_by=WORKER)) == ["paused"]
        await driver.do(Cancel("paused", "why"))
        await driver.store.unregister(WORKER)
        assert await driver.store.beat(WORKER) is False

    async def test_unregistering_nobody_known_does_nothing(self, store: JobStore) -> None:
        await store.register(a_worker())
        await store.unregister("nobody")
        assert [state.worker.worker_id for state in await store.workers()] == [WORKER]
