"""`FaultyStore`: each fault does what it says and no more; without faults it is the store it wraps."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from typing_extensions import override

from openagents_json.errors import StoreClosedError, StoreUnavailableError
from openagents_json.job._changes import Query, Wakeup
from openagents_json.job._clock import Clock
from openagents_json.job.storage.base import JobStore
from openagents_json.job.storage.memory import MemoryJobStore
from openagents_json.testing import (
    Fault,
    FaultyStore,
    JobStoreConformance,
    ManualClock,
    StoreDriver,
    a_job,
    a_worker,
    adding,
)

LIMIT = 5.0

CALLS: dict[str, Callable[[JobStore], Awaitable[object]]] = {
    "apply": lambda store: store.apply([adding(a_job("job"))]),
    "get": lambda store: store.get([]),
    "find": lambda store: store.find(Query()),
    "count": lambda store: store.count(Query()),
    "register": lambda store: store.register(a_worker()),
    "beat": lambda store: store.beat("worker-1"),
    "unregister": lambda store: store.unregister("worker-1"),
    "workers": lambda store: store.workers(),
}


class TestFaultyStoreInCalmMode(JobStoreConformance):
    @override
    def make_store(self, clock: Clock) -> FaultyStore:
        store = FaultyStore(MemoryJobStore(clock=clock), seed=1, fail_before=0.5, fail_after=0.5, clock=clock)
        store.calm()
        return store


async def opened(clock: ManualClock, *, seed: int = 1, **chances: float) -> tuple[FaultyStore, MemoryJobStore]:
    """Make a faulty store on a memory store, both open; the latter to look behind the former."""
    inner = MemoryJobStore(clock=clock)
    store = FaultyStore(inner, seed=seed, limit=LIMIT, clock=clock, **chances)
    await store.open()
    return store, inner


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_fails_before_takes_no_effect(clock: ManualClock, name: str) -> None:
    store, inner = await opened(clock, fail_before=1.0)
    with pytest.raises(StoreUnavailableError):
        await CALLS[name](store)
    assert await inner.count(Query()) == 0
    assert await inner.workers() == []
    assert store.counts == {Fault.FAILED_BEFORE: 1}


async def test_a_call_that_fails_after_took_effect(clock: ManualClock) -> None:
    store, inner = await opened(clock, fail_after=1.0)
    with pytest.raises(StoreUnavailableError):
        await store.apply([adding(a_job("job"))])
    with pytest.raises(StoreUnavailableError):
        await store.register(a_worker())
    assert await inner.count(Query()) == 1
    assert len(await inner.workers()) == 1
    assert store.counts == {Fault.FAILED_AFTER: 2}


async def test_a_slow_call_answers_a_little_later(clock: ManualClock) -> None:
    store, _ = await opened(clock, slow=1.0)
    begun = asyncio.create_task(store.apply([adding(a_job("job"))]))
    await clock.wait_for_timers()
    assert not begun.done()
    assert clock.next_timer_in is not None
    assert 0 < clock.next_timer_in <= LIMIT / 10
    clock.advance(LIMIT / 10)
    assert len((await begun).answers) == 1
    assert store.counts == {Fault.SLOW: 1}


async def test_a_slow_call_may_take_effect_before_or_after_the_delay(clock: ManualClock) -> None:
    store, inner = await opened(clock, slow=1.0)
    seen = set()
    for number in range(20):
        begun = asyncio.create_task(store.apply([adding(a_job(f"job-{number}"))]))
        await clock.wait_for_timers()
        seen.add(await inner.count(Query()) - number)
        clock.advance(LIMIT)
        await begun
    assert seen == {0, 1}


async def test_a_call_that_hangs_fails_at_its_limit_and_has_happened_or_not(clock: ManualClock) -> None:
    store, inner = await opened(clock, hang=1.0)
    for number in range(20):
        begun = asyncio.create_task(store.apply([adding(a_job(f"job-{number}"))]))
        await clock.wait_for_timers()
        clock.advance(LIMIT - 0.001)
        await asyncio.sleep(0)
        assert not begun.done()
        clock.advance(0.001)
        with pytest.raises(StoreUnavailableError):
            await begun
    happened = await inner.count(Query())
    assert 0 < happened < 20
    assert store.counts == {Fault.HUNG_AFTER: happened, Fault.HUNG_BEFORE: 20 - happened}


async def test_a_caller_who_gives_up_on_a_hanging_call_leaves_no_timer(clock: ManualClock) -> None:
    store, _ = await opened(clock, hang=1.0)
    begun = asyncio.create_task(store.count(Query()))
    await clock.wait_for_timers()
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun
    assert clock.pending == 0


async def outcomes(seed: int, calls: int = 200) -> list[str]:
    store, _ = await opened(ManualClock(), seed=seed, fail_before=0.25, fail_after=0.25)
    seen = []
    for number in range(calls):
        try:
            await store.apply([adding(a_job(f"job-{number}"))])
            seen.append("")
        except StoreUnavailableError as exc:
            seen.append(str(exc))
    assert store.calls == calls
    assert sum(store.counts.values()) == calls - seen.count("")
    return seen


async def test_the_same_seed_does_the_same_to_the_same_calls() -> None:
    assert await outcomes(7) == await outcomes(7)
    assert await outcomes(7) != await outcomes(8)


async def test_faults_are_as_frequent_as_asked_for() -> None:
    seen = await outcomes(3, calls=4000)
    for text in set(seen) - {""}:
        assert 800 < seen.count(text) < 1200
    assert len(set(seen)) == 3


@pytest.mark.parametrize("name", CALLS)
async def test_in_an_outage_every_call_fails_without_effect(clock: ManualClock, name: str) -> None:
    store, inner = await opened(clock)
    store.outage()
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await CALLS[name](store)
    assert await inner.count(Query()) == 0
    assert await inner.workers() == []
    assert store.counts == {Fault.OUTAGE: 3}


async def test_a_store_cannot_be_opened_in_an_outage_and_can_be_closed(clock: ManualClock) -> None:
    store = FaultyStore(MemoryJobStore(clock=clock), seed=1)
    store.outage()
    with pytest.raises(StoreUnavailableError):
        await store.open()
    with pytest.raises(StoreClosedError):
        await store.close()
    store.calm()
    await store.open()
    store.outage()
    await store.close()
    with pytest.raises(StoreClosedError):
        await store.count(Query())


async def test_moods_can_be_changed_at_any_time(clock: ManualClock) -> None:
    store, _ = await opened(clock, fail_before=1.0)
    store.calm()
    assert await store.count(Query()) == 0
    store.outage()
    with pytest.raises(StoreUnavailableError, match="outage"):
        await store.count(Query())
    store.erratic()
    with pytest.raises(StoreUnavailableError, match="before"):
        await store.count(Query())
    assert store.counts == {Fault.OUTAGE: 1, Fault.FAILED_BEFORE: 1}
    assert "erratic" in repr(store)


async def test_wakeups_pass_through_whatever_becomes_of_the_call(clock: ManualClock) -> None:
    store, inner = await opened(clock, fail_after=1.0)
    heard: list[Wakeup] = []
    end = store.listen(heard.append)
    with pytest.raises(StoreUnavailableError):
        await store.apply([adding(a_job("job"))])
    assert [wakeup.ready for wakeup in heard] == [True]
    end()
    await StoreDriver(inner, clock).add(a_job("another"))
    assert len(heard) == 1


async def test_time_and_promises_are_those_of_the_store_within(clock: ManualClock) -> None:
    store, inner = await opened(clock, fail_before=1.0)
    store.outage()
    clock.advance(3)
    assert store.now() == inner.now()
    assert store.traits == inner.traits


def test_chances_that_are_none_are_refused() -> None:
    inner = MemoryJobStore()
    with pytest.raises(ValueError, match="chances"):
        FaultyStore(inner, seed=1, slow=-0.1)
    with pytest.raises(ValueError, match="chances"):
        FaultyStore(inner, seed=1, hang=1.1)
    with pytest.raises(ValueError, match="chances"):
        FaultyStore(inner, seed=1, fail_before=0.6, fail_after=0.6)
