"""Opening and closing, the store's clock, and what outlives a store object where it promises that."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from openagents_json.errors import StoreClosedError, WorkerDeadError
from openagents_json.job._changes import Finish, Pause, Query, Recover, Wakeup
from openagents_json.job.model import AttemptOutcome
from openagents_json.job.storage.base import JobStore, StoreTraits
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import (
    WORKER,
    StoreDriver,
    a_claim,
    a_job,
    a_worker,
    adding,
    check_consistency,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openagents_json.testing.clock import ManualClock

CALLS: dict[str, Callable[[JobStore], Awaitable[object]]] = {
    "apply": lambda store: store.apply([]),
    "claim": lambda store: store.apply([], claim=a_claim(1)),
    "get": lambda store: store.get(["job"]),
    "find": lambda store: store.find(Query()),
    "count": lambda store: store.count(Query()),
    "register": lambda store: store.register(a_worker()),
    "beat": lambda store: store.beat(WORKER),
    "unregister": lambda store: store.unregister(WORKER),
    "workers": lambda store: store.workers(),
}


class LifetimeRules(StoreRules):
    """Opening, closing, and what outlives a store object."""

    async def test_a_store_says_what_it_promises(self, store: JobStore) -> None:
        assert isinstance(store.traits, StoreTraits)

    @pytest.mark.parametrize("name", CALLS)
    async def test_every_call_on_a_store_that_is_not_open_says_so(self, clock: ManualClock, name: str) -> None:
        store = self.make_store(clock)
        with pytest.raises(StoreClosedError):
            await CALLS[name](store)
        await store.open()
        await CALLS[name](store)
        await store.close()
        with pytest.raises(StoreClosedError):
            await CALLS[name](store)

    async def test_a_store_is_open_until_its_last_user_closes_it(self, clock: ManualClock) -> None:
        store = self.make_store(clock)
        await asyncio.gather(store.open(), store.open(), store.open())
        for _ in range(2):
            await store.close()
            assert await store.count(Query()) == 0
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.count(Query())

    async def test_closing_a_store_too_often_is_an_error_and_harmless(self, clock: ManualClock) -> None:
        store = self.make_store(clock)
        with pytest.raises(StoreClosedError):
            await store.close()
        await store.open()
        await store.close()
        with pytest.raises(StoreClosedError):
            await store.close()
        await store.open()
        assert await store.count(Query()) == 0
        await store.close()

    async def test_a_store_can_be_opened_again(self, clock: ManualClock) -> None:
        store = self.make_store(clock)
        for number in range(3):
            await store.open()
            await StoreDriver(store, clock).add(a_job(f"job-{number}"))
            await store.close()

    async def test_listeners_outlive_closing(self, clock: ManualClock) -> None:
        store = self.make_store(clock)
        heard = asyncio.Event()

        def listener(wakeup: Wakeup) -> None:
            if wakeup.ready:
                heard.set()

        end = store.listen(listener)
        await store.open()
        await store.close()
        await store.open()
        await store.apply([adding(a_job("job"))])
        async with asyncio.timeout(10):
            await heard.wait()
        end()
        await store.close()

    async def test_the_time_is_the_clocks_aware_and_in_utc(self, store: JobStore, clock: ManualClock) -> None:
        assert store.now() == clock.now()
        assert store.now().utcoffset() == timedelta(0)
        clock.advance(1.5)
        assert store.now() == clock.now()

    async def test_jobs_outlive_the_object_of_a_durable_store(self, clock: ManualClock) -> None:
        first = self.make_store(clock)
        if not first.traits.durable:
            pytest.skip("the store does not promise it")
        await first.open()
        before = StoreDriver(first, clock)
        await before.add(
            a_job("parent", queued=False),
            a_job("blocked", "parent"),
            a_job("ready", payload=b'{"kept":[1.5,null]}'),
            a_job("delayed", delay=60.0),
            a_job("held"),
            a_job("paused"),
            a_job("orphan"),
            a_job("done"),
            a_job("failed"),
        )
        await before.complete("done", result=b'"r"')
        await before.fail("failed")
        lease = await before.run("held", "paused")
        await before.do(Pause("paused"))
        await before.die_with("orphan", worker_id="dead")
        jobs = await first.find(Query())
        await first.close()

        second = self.make_store(clock)
        await second.open()
        after = StoreDriver(second, clock)
        assert await second.find(Query()) == jobs
        assert await after.find(Query(depends_on="parent")) == ["blocked"]
        assert await second.beat("dead") is False
        if second.traits.shared:  # else no worker of an earlier process can come back
            with pytest.raises(WorkerDeadError):
                await second.register(a_worker("dead"))
        await second.register(a_worker())
        claimed = await after.claimed(a_claim(1))
        assert {job.job_id for job in claimed.jobs} == {"ready", "orphan"}
        assert claimed.next_due_in == pytest.approx(60)
        await after.do(Finish("held", lease, AttemptOutcome.COMPLETED, b"1"))
        await after.do(Recover(WORKER, "it died"))
        assert await after.statuses("held", "paused", "ready") == {
            "held": "completed", "paused": "paused", "ready": "pending",
        }  # fmt: skip
        await check_consistency(second)
        await second.close()

    async def test_a_call_repeated_after_a_restart_has_no_second_effect(self, clock: ManualClock) -> None:
        first = self.make_store(clock)
        if not first.traits.durable:
            pytest.skip("the store does not promise it")
        await first.open()
        before = StoreDriver(first, clock)
        add = adding(a_job("job"))
        await before.do(add)
        lease = await before.run("job")
        done = Finish("job", lease, AttemptOutcome.COMPLETED, b"1")
        await before.do(done)
        await first.close()

        second = self.make_store(clock)
        await second.open()
        after = StoreDriver(second, clock)
        assert not (await after.do(add)).changed
        assert not (await after.do(done)).changed
        assert await after.statuses("job") == {"job": "completed"}
        await second.close()
