"""Processes that run jobs are killed, at every point and at any moment: nothing is lost, and nothing done twice.

Set ``OPENAGENTS_DEATHS`` for more of them than the few hundred that a run of all tests has time for.
"""

import asyncio
import itertools
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openagents_json.job import AttemptOutcome, JobManager
from openagents_json.job._clock import SystemClock
from openagents_json.job._record import RECOVERY_HISTORY
from openagents_json.job.storage import FileJobStore
from openagents_json.testing import ManualClock
from tests.files._tools import SOON
from tests.files._victim import POINTS, Diary, Order, register_handlers, result_of
from tests.files._witness import KILLED, Victims, Witness

#: How many processes are killed in all, about.
DEATHS = int(os.environ.get("OPENAGENTS_DEATHS", "240"))
_AT_POINTS = max(2, DEATHS // 2 // len(POINTS))
_AT_RANDOM = DEATHS - _AT_POINTS * len(POINTS)

#: How many processes run at once, each on a directory of its own.
_AT_ONCE = 2

#: How often a point is passed before the one where a process dies: in one life, and at most.
_PASSED = {"while starting, locked": 1, "while starting, reading": 8, "while starting, all read": 1}


def kill_so_often(
    place: Path, deaths: int, kill: Callable[[Witness, random.Random], bool], *, seed: int, families: int
) -> int:
    """Kill processes so many times, in as many directories as it takes.

    Returns:
        How many directories it took.
    """
    chance, killed = random.Random(seed), 0
    with Victims() as victims:
        for number in itertools.count(1):
            witness = Witness(place / f"{seed}-{number}", victims, families=families)
            while killed + witness.deaths < deaths and kill(witness, chance):
                pass
            witness.finish()
            killed += witness.deaths
            if killed >= deaths:
                return number
    raise AssertionError


@pytest.mark.timeout(120)
@pytest.mark.parametrize("point", POINTS)
def test_a_death_at_any_point_loses_nothing(place: Path, point: str) -> None:
    most = _PASSED.get(point, 12)

    def kill(witness: Witness, chance: random.Random) -> bool:
        if point.startswith("while starting") and witness.deaths % 2 == 0:  # let there be something to start with
            return witness.kill_at("after the job files", chance.randint(1, 12))
        return witness.kill_at(point, chance.randint(1, most))

    kill_so_often(place, _AT_POINTS, kill, seed=1, families=4)


async def test_a_restart_resumes_at_once_and_says_what_happened(place: Path) -> None:
    """No time passes, by any clock that the manager knows: nobody waits for the dead to be silent long enough."""
    (place / "one").mkdir()
    with Victims() as victims:
        status = await asyncio.to_thread(victims.run, Order(str(place / "one"), families=1, point="in a handler"))
        assert status == KILLED
    clock = ManualClock()
    clock.set_wall(SystemClock().now())
    store = FileJobStore(place / "one" / "jobs here", clock=clock)
    async with JobManager(store, clock=clock, retention_days=None) as manager:
        before = {job.job_id: job for job in await manager.list_jobs()}
        register_handlers(manager, Diary(place / "one"))
        interrupted = [job for job in before.values() if RECOVERY_HISTORY in job.metadata]
        assert interrupted
        for job in interrupted:
            (entry,) = job.metadata[RECOVERY_HISTORY]
            assert entry["why"] == "its process does not hold the store any more"
            assert (entry["attempt"], entry["worker_id"]) == (1, job.worker_id)
            assert job.attempts[0].outcome is AttemptOutcome.INTERRUPTED
        for name in ("fetch-0", "count-0"):
            assert (await manager.wait_for_job(name, timeout=SOON)).result == result_of(name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["disk", "tmpfs"])
def test_deaths_at_any_moment_lose_nothing(tmp_path: Path, tmpfs: Path | None, kind: str) -> None:
    if kind == "tmpfs" and tmpfs is None:
        pytest.skip("this machine has no tmpfs")
    place = tmpfs if kind == "tmpfs" and tmpfs is not None else tmp_path

    def kill(witness: Witness, chance: random.Random) -> bool:
        return witness.kill_after(chance.uniform(0.0, 0.15))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        share = -(-_AT_RANDOM // 2 // _AT_ONCE)
        for done in [pool.submit(kill_so_often, place, share, kill, seed=seed, families=8) for seed in range(_AT_ONCE)]:
            done.result()
