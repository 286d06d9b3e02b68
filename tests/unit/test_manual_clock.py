"""Time that a test moves."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from openagents_json.testing import ManualClock
from openagents_json.testing.clock import START


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_time_stands_still_until_it_is_moved(clock: ManualClock) -> None:
    assert (clock.now(), clock.monotonic()) == (START, 0)
    await asyncio.sleep(0)
    assert (clock.now(), clock.monotonic()) == (START, 0)
    clock.advance(2.5)
    assert (clock.now(), clock.monotonic()) == (START + timedelta(seconds=2.5), 2.5)


async def test_the_wall_clock_starts_where_asked_and_is_in_utc() -> None:
    start = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert ManualClock(start).now() == datetime(2030, 1, 1, 10, tzinfo=UTC)
    assert ManualClock(start).now().utcoffset() == timedelta(0)


async def test_timers_run_in_order_each_at_its_own_time(clock: ManualClock) -> None:
    ran: list[tuple[str, float, datetime]] = []

    def timer(name: str, seconds: float) -> None:
        clock.call_later(seconds, lambda: ran.append((name, clock.monotonic(), clock.now())))

    timer("c", 3)
    timer("a", 1)
    timer("b", 2)
    timer("b-too", 2)
    timer("never", 4.000001)
    clock.advance(4)
    assert ran == [
        ("a", 1, START + timedelta(seconds=1)),
        ("b", 2, START + timedelta(seconds=2)),
        ("b-too", 2, START + timedelta(seconds=2)),
        ("c", 3, START + timedelta(seconds=3)),
    ]
    assert (clock.monotonic(), clock.pending) == (4, 1)


async def test_timers_set_by_timers_run_in_the_same_go_when_they_fall_within_it(clock: ManualClock) -> None:
    ran: list[float] = []

    def again() -> None:
        ran.append(clock.monotonic())
        clock.call_later(2, again)

    clock.call_later(2, again)
    clock.advance(7)
    assert ran == [2, 4, 6]
    assert clock.next_timer_in == 1


async def test_a_cancelled_timer_does_not_run(clock: ManualClock) -> None:
    ran: list[str] = []

    def cancel_second() -> None:
        ran.append("first")
        second.cancel()

    first = clock.call_later(1, cancel_second)
    second = clock.call_later(2, lambda: ran.append("second"))
    third = clock.call_later(3, lambda: ran.append("third"))
    third.cancel()
    assert (clock.pending, clock.next_timer_in) == (2, 1)
    clock.advance(5)
    assert ran == ["first"]
    first.cancel()
    assert (clock.pending, clock.next_timer_in) == (0, None)


async def test_a_timer_of_no_time_runs_in_the_event_loop_by_itself(clock: ManualClock) -> None:
    ran = asyncio.Event()
    clock.call_later(0, ran.set)
    assert not ran.is_set()
    await ran.wait()
    cancelled = clock.call_later(-1, lambda: pytest.fail("it was cancelled"))
    cancelled.cancel()
    await asyncio.sleep(0)


async def test_many_small_steps_add_up_exactly(clock: ManualClock) -> None:
    ran: list[str] = []
    clock.call_later(1, lambda: ran.append("due"))
    for _ in range(9):
        clock.advance(0.1)
    clock.advance(0.099999)
    assert ran == []
    clock.advance(0.000001)
    assert ran == ["due"]
    assert clock.now() == START + timedelta(seconds=1)


async def test_the_wall_clock_jumps_alone(clock: ManualClock) -> None:
    ran: list[str] = []
    clock.call_later(5, lambda: ran.append("due"))
    clock.advance(1)
    clock.set_wall(START + timedelta(days=1))
    assert (clock.now(), clock.monotonic()) == (START + timedelta(days=1), 1)
    assert ran == []
    clock.set_wall(START - timedelta(days=1))
    clock.advance(4)
    assert ran == ["due"]
    assert clock.now() == START - timedelta(days=1) + timedelta(seconds=4)


async def test_what_makes_no_sense_is_refused(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)
    naive = START.replace(tzinfo=None)
    with pytest.raises(ValueError, match="naive"):
        clock.set_wall(naive)
    with pytest.raises(ValueError, match="naive"):
        ManualClock(naive)
    assert (clock.now(), clock.monotonic()) == (START, 0)


async def test_waiting_for_an_event_ends_with_the_event_or_with_the_time(clock: ManualClock) -> None:
    event = asyncio.Event()
    waiting = asyncio.create_task(clock.wait(event, 5))
    await clock.wait_for_timers()
    clock.advance(5)
    assert await waiting is False
    waiting = asyncio.create_task(clock.wait(event, 5))
    await clock.wait_for_timers()
    event.set()
    assert await waiting is True
    assert clock.pending == 0


async def test_one_can_wait_until_so_many_wait_for_the_time(clock: ManualClock) -> None:
    async def wait() -> None:
        await clock.wait(asyncio.Event(), 5)

    await clock.wait_for_timers(0)
    reached = asyncio.create_task(clock.wait_for_timers(2))
    first = asyncio.create_task(wait())
    await clock.wait_for_timers(1)
    assert not reached.done()
    second = asyncio.create_task(wait())
    await reached
    assert clock.pending == 2
    given_up = asyncio.create_task(clock.wait_for_timers(9))
    await asyncio.sleep(0)
    given_up.cancel()
    clock.advance(5)
    await asyncio.gather(first, second)
    clock.call_later(1, lambda: None)
    assert given_up.cancelled()


async def test_an_error_in_a_timer_reaches_whoever_moved_the_time(clock: ManualClock) -> None:
    clock.call_later(2, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clock.advance(5)
    assert clock.monotonic() == 2


def test_time_can_be_had_without_pytest_or_hypothesis() -> None:
    probe = """if True:
        import sys
        from openagents_json.testing import FaultyStore, ManualClock, a_job
        heavy = {"pytest", "pytest_asyncio", "hypothesis", "sqlalchemy", "pydantic_settings"} & set(sys.modules)
        assert not heavy, heavy
        import openagents_json.testing as testing
        assert "JobStoreConformance" in dir(testing)
        try:
            testing.Nothing
        except AttributeError as exc:
            assert "Nothing" in str(exc)
        else:
            raise AssertionError
        assert testing.JobStoreConformance.__module__ == "openagents_json.testing.conformance"
        assert "pytest" in sys.modules
    """
    subprocess.run([sys.executable, "-W", "error", "-c", probe], check=True)
