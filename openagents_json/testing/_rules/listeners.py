"""Wake-ups: what listeners hear after changes took effect."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from openagents_json.job._changes import (
    Cancel,
    Change,
    Finish,
    Pause,
    Recover,
    Release,
    RemoveDependency,
    Rerun,
    Resume,
    Start,
    Wakeup,
)
from openagents_json.job.model import AttemptOutcome
from openagents_json.testing._rules.base import StoreRules
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_claim, a_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from openagents_json.job.storage.base import JobStore

#: Seconds in which a wake-up must have come; a store in memory needs none of them.
PATIENCE = 10.0


class Ear:
    """A listener that remembers what it heard and can wait for more."""

    def __init__(self, store: JobStore) -> None:
        self.heard: list[Wakeup] = []
        self._something = asyncio.Event()
        self.close = store.listen(self._listen)

    def _listen(self, wakeup: Wakeup) -> None:
        self.heard.append(wakeup)
        self._something.set()

    async def hear(self, expected: Callable[[Wakeup], bool]) -> Wakeup:
        """Wait for a wake-up of this kind, among those heard since the last `forget`, or to come."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for wakeup in self.heard:
                    if expected(wakeup):
                        return wakeup
                self._something.clear()
                await self._something.wait()

    def forget(self) -> None:
        self.heard.clear()


def _ready(wakeup: Wakeup) -> bool:
    return wakeup.ready


def _due(wakeup: Wakeup) -> bool:
    return wakeup.due_in is not None


def about(*job_ids: str) -> Callable[[Wakeup], bool]:
    """Match a wake-up that tells of changes to these jobs, or to any."""
    return lambda wakeup: wakeup.changed is None or set(job_ids) <= set(wakeup.changed)


class ListenerRules(StoreRules):
    """What listeners hear."""

    async def test_a_job_that_is_ready_at_once_is_heard_of(self, driver: StoreDriver) -> None:
        ear = Ear(driver.store)
        await driver.add(a_job("job"))
        await ear.hear(_ready)

    @pytest.mark.parametrize("name", ["start", "resume", "rerun", "freed", "released", "retried", "died", "met"])
    async def test_a_job_that_becomes_ready_is_heard_of(self, driver: StoreDriver, name: str) -> None:
        await driver.add(a_job("running"), a_job("parent", queued=False))
        lease = await driver.run("running")
        await driver.add(
            a_job("start", queued=False),
            a_job("resume"),
            a_job("rerun", queued=False),
            a_job("freed", "parent"),
            a_job("met", "running"),
        )
        await driver.apply(Pause("resume"), Cancel("rerun", "why"))
        changes: dict[str, Change] = {
            "start": Start("start"),
            "resume": Resume("resume"),
            "rerun": Rerun("rerun"),
            "freed": RemoveDependency("freed", "parent"),
            "released": Release("running", lease, "why"),
            "retried": Finish("running", lease, AttemptOutcome.FAILED, error=BOOM, retry_in=0.0),
            "died": Recover(WORKER, "it died"),
            "met": Finish("running", lease, AttemptOutcome.COMPLETED, b"1"),
        }
        ear = Ear(driver.store)
        await driver.do(changes[name])
        await ear.hear(_ready)

    async def test_the_next_due_time_is_heard_of_when_it_changes(self, driver: StoreDriver) -> None:
        ear = Ear(driver.store)
        await driver.add(a_job("later", delay=20.0))
        assert (await ear.hear(_due)).due_in == pytest.approx(20)
        ear.forget()
        driver.clock.advance(5)
        await driver.add(a_job("soon", delay=7.0), a_job("latest", delay=60.0))
        assert (await ear.hear(_due)).due_in == pytest.approx(7)

    async def test_the_time_of_a_retry_is_heard_of(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        lease = await driver.run("job")
        ear = Ear(driver.store)
        await driver.do(Finish("job", lease, AttemptOutcome.FAILED, error=BOOM, retry_in=3.0))
        assert (await ear.hear(_due)).due_in == pytest.approx(3)

    async def test_the_holder_hears_of_what_others_do_to_its_jobs(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b"))
        await driver.run("a", "b")
        ear = Ear(driver.store)
        changes: list[tuple[Change, str]] = [
            (Pause("a"), "a"),
            (Resume("a"), "a"),
            (Pause("b"), "b"),
            (Cancel("a", "why"), "a"),
            (Recover(WORKER, "it died"), "b"),
        ]
        for change, job_id in changes:
            ear.forget()
            await driver.do(change)
            await ear.hear(about(job_id))

    async def test_outcomes_and_what_follows_from_them_are_heard_of(self, driver: StoreDriver) -> None:
        await driver.add(a_job("a"), a_job("b", "a"), a_job("c", "b"))
        lease = await driver.run("a")
        ear = Ear(driver.store)
        await driver.do(Finish("a", lease, AttemptOutcome.FAILED, error=BOOM))
        await ear.hear(about("a", "b", "c"))
        ear.forget()
        await driver.do(Rerun("a"))
        await ear.hear(about("a", "b", "c"))

    async def test_a_claim_names_no_job(self, driver: StoreDriver) -> None:
        await driver.register()
        await driver.add(a_job("job"))
        ear = Ear(driver.store)
        await driver.claim(a_claim(1))
        await driver.do(Pause("job"))
        await ear.hear(about("job"))
        assert [set(wakeup.changed) for wakeup in ear.heard if wakeup.changed] == [{"job"}]

    async def test_a_listener_finds_the_changes_made(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        ear = Ear(driver.store)
        await driver.do(Cancel("job", "why"))
        await ear.hear(about("job"))
        assert await driver.statuses("job") == {"job": "cancelled"}

    async def test_what_changes_nothing_tells_of_no_job(self, driver: StoreDriver) -> None:
        await driver.add(a_job("job"))
        ear = Ear(driver.store)
        lost = Finish("job", "no:1", AttemptOutcome.COMPLETED, b"1")
        await driver.apply(Cancel("nobody", "why"), Start("job"), Resume("job"), lost)
        await driver.do(Pause("job"))
        await ear.hear(about("job"))
        assert [set(wakeup.changed) for wakeup in ear.heard if wakeup.changed] == [{"job"}]

    async def test_every_listener_hears_everything_until_it_ends(self, driver: StoreDriver) -> None:
        first, second = Ear(driver.store), Ear(driver.store)
        await driver.add(a_job("a"))
        await first.hear(_ready)
        await second.hear(_ready)
        first.close()
        first.forget()
        second.forget()
        await driver.add(a_job("b"))
        await second.hear(_ready)
        assert first.heard == []
        second.close()

    async def test_a_listener_may_end_itself_while_it_is_called(self, driver: StoreDriver) -> None:
        heard: list[str] = []
        ends: dict[str, Callable[[], None]] = {}

        def once(name: str) -> Callable[[Wakeup], None]:
            def listener(_: Wakeup) -> None:
                heard.append(name)
                ends[name]()

            return listener

        for name in ("first", "second"):
            ends[name] = driver.store.listen(once(name))
        ear = Ear(driver.store)
        await driver.add(a_job("a"))
        await ear.hear(_ready)
        ear.forget()
        await driver.add(a_job("b"))
        await ear.hear(_ready)
        assert heard == ["first", "second"]
