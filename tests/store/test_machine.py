"""Every store does what a small model of the contract says, whatever program Hypothesis makes up."""

from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from typing_extensions import override

from openagents_json.job._changes import Change, Claim, Result
from openagents_json.job._clock import Clock
from openagents_json.job.storage.base import JobStore
from openagents_json.job.storage.memory import MemoryJobStore
from openagents_json.testing.machine import store_machine

pytestmark = pytest.mark.timeout(300)

PROGRAMS = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class TwiceTriedStore(MemoryJobStore):
    """A store whose every first write fails: its plan is dropped, and made again."""

    @override
    async def apply(self, changes: Sequence[Change], *, claim: Claim | None = None) -> Result:
        self._table.abort(self._table.plan(changes, claim, self._clock.now()))
        return await super().apply(changes, claim=claim)


async def open_again(store: JobStore, _clock: Clock) -> JobStore:
    """Close and open a memory store: its jobs outlive that."""
    await store.close()
    await store.open()
    return store


def test_memory_store_agrees_with_the_model() -> None:
    machine = store_machine(lambda clock: MemoryJobStore(clock=clock), reopen=open_again)
    run_state_machine_as_test(machine, settings=PROGRAMS)


def test_dropped_plan_leaves_no_trace() -> None:
    run_state_machine_as_test(store_machine(lambda clock: TwiceTriedStore(clock=clock)), settings=PROGRAMS)
