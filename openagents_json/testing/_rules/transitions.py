"""The life cycle: every change on a job in every state, what comes of it, and that repeating it changes no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openagents_json.errors import InvalidTransitionError, JobNotFoundError, LeaseLostError, OpenAgentsError
from openagents_json.job._changes import (
    AddDependency,
    Applied,
    Cancel,
    Change,
    Delete,
    Finish,
    Pause,
    Progress,
    Purge,
    Recover,
    Refused,
    Release,
    RemoveDependency,
    Rerun,
    Resume,
    Start,
    Unclaim,
)
from openagents_json.job.model import AttemptOutcome
from openagents_json.testing._rules.base import StoreRules, shown
from openagents_json.testing.builders import BOOM, WORKER, StoreDriver, a_claim, a_job

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openagents_json.job._record import JobRecord

HELD = a_claim(1).lease
FOREIGN = a_claim(2).lease

COMPLETED, FAILED, TIMED_OUT = AttemptOutcome.COMPLETED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT

CHANGES: dict[str, Change] = {
    "start": Start("job"),
    "complete": Finish("job", HELD, COMPLETED, b'"done"'),
    "fail": Finish("job", HELD, FAILED, error=BOOM),
    "time-out": Finish("job", HELD, TIMED_OUT, error=BOOM),
    "retry-at-once": Finish("job", HELD, FAILED, error=BOOM, retry_in=0.0),
    "retry-later": Finish("job", HELD, TIMED_OUT, error=BOOM, retry_in=5.0),
    "complete-as-another": Finish("job", FOREIGN, COMPLETED, b'"stolen"'),
    "fail-as-another": Finish("job", FOREIGN, FAILED, error=BOOM),
    "progress": Progress("job", HELD, 0.5, "half"),
    "progress-as-another": Progress("job", FOREIGN, 0.9, "stolen"),
    "release": Release("job", HELD, "shutdown"),
    "release-as-another": Release("job", FOREIGN, "shutdown"),
    "unclaim": Unclaim("job", HELD),
    "unclaim-as-another": Unclaim("job", FOREIGN),
    "pause": Pause("job"),
    "resume": Resume("job"),
    "cancel": Cancel("job", "no longer needed"),
    "rerun": Rerun("job"),
    "add-dependency": AddDependency("job", "other"),
    "remove-dependency": RemoveDependency("job", "base"),
    "delete": Delete("job"),
    "purge": Purge(0.0, 10),
    "recover": Recover(WORKER, "it died"),
}

# Each state is one in which the contract treats a job differently. What comes of a change there:
#   a status     the job is in it now; with a + it is held by the worker that held it before, else by nobody
#   .            applied without effect
#   !            refused with InvalidTransitionError
#   lost         refused with LeaseLostError
#   gone         it was deleted
TABLE = """
                     unstarted ready     delayed   backing   blocked   running   held      free      completed failed    cancelled
start                pending   .         .         .         .         .         !         !         !         !         !
complete             lost      lost      lost      .         lost      completed completed lost      .         .         lost
fail                 lost      lost      lost      .         lost      failed    failed    lost      .         .         lost
time-out             lost      lost      lost      .         lost      failed    failed    lost      .         .         lost
retry-at-once        lost      lost      lost      .         lost      pending   paused    lost      .         .         lost
retry-later          lost      lost      lost      .         lost      pending   paused    lost      .         .         lost
complete-as-another  lost      lost      lost      lost      lost      lost      lost      lost      lost      lost      lost
fail-as-another      lost      lost      lost      lost      lost      lost      lost      lost      lost      lost      lost
progress             lost      lost      lost      lost      lost      running+  paused+   lost      lost      lost      lost
progress-as-another  lost      lost      lost      lost      lost      lost      lost      lost      lost      lost      lost
release              .         .         .         .         .         pending   paused    .         .         .         .
release-as-another   .         .         .         .         .         .         .         .         .         .         .
unclaim              .         .         .         .         .         pending   paused    .         .         .         .
unclaim-as-another   .         .         .         .         .         .         .         .         .         .         .
pause                paused    paused    paused    paused    paused    paused+   .         .         !         !         !
resume               .         .         .         .         .         .         running+  pending   !         !         !
cancel               cancelled cancelled cancelled cancelled cancelled cancelled cancelled cancelled !         !         .
rerun                !         .         .         .         .         !         !         !         pending   pending   pending
add-dependency       pending   pending   pending   pending   pending   !         !         paused    !         !         !
remove-dependency    pending   pending   pending   pending   pending   !         !         paused    !         !         !
delete               gone      gone      gone      gone      gone      !         !         gone      gone      gone      gone
purge                .         .         .         .         .         .         .         .         gone      gone      gone
recover              .         .         .         .         .         pending   paused    .         .         .         .
"""  # noqa: E501 - a table

#: These leave the job out of their answer: its holder knows it.
SILENT = (Finish, Progress, Release, Unclaim)


async def _held(driver: StoreDriver) -> None:
    await driver.add(a_job("job", "base"))
    assert await driver.claim(a_claim(1)) == ["job"]


async def _unstarted(driver: StoreDriver) -> None:
    await driver.add(a_job("job", "base", queued=False))


async def _ready(driver: StoreDriver) -> None:
    await driver.add(a_job("job", "base"))


async def _delayed(driver: StoreDriver) -> None:
    await driver.add(a_job("job", "base", delay=60.0))


async def _backing(driver: StoreDriver) -> None:
    await _held(driver)
    await driver.do(Finish("job", HELD, FAILED, error=BOOM, retry_in=60.0))


async def _blocked(driver: StoreDriver) -> None:
    await driver.add(a_job("blocker", queued=False), a_job("job", "base", "blocker"))


async def _paused_held(driver: StoreDriver) -> None:
    await _held(driver)
    await driver.do(Pause("job"))


async def _paused_free(driver: StoreDriver) -> None:
    await _ready(driver)
    await driver.do(Pause("job"))


async def _completed(driver: StoreDriver) -> None:
    await _held(driver)
    await driver.do(Finish("job", HELD, COMPLETED, b'"before"'))


async def _failed(driver: StoreDriver) -> None:
    await _held(driver)
    await driver.do(Finish("job", HELD, FAILED, error=BOOM))


async def _cancelled(driver: StoreDriver) -> None:
    await _held(driver)
    await driver.do(Cancel("job", "not needed"))


STATES: dict[str, Callable[[StoreDriver], Awaitable[None]]] = {
    "unstarted": _unstarted,
    "ready": _ready,
    "delayed": _delayed,
    "backing": _backing,
    "blocked": _blocked,
    "running": _held,
    "held": _paused_held,
    "free": _paused_free,
    "completed": _completed,
    "failed": _failed,
    "cancelled": _cancelled,
}


def _cells() -> list[tuple[str, str, str]]:
    header, *rows = [line.split() for line in TABLE.strip().splitlines()]
    assert header == list(STATES), "the table has a column for each state"
    assert [row[0] for row in rows] == list(CHANGES), "the table has a row for each change"
    return [(name, state, cell) for name, *cells in rows for state, cell in zip(header, cells, strict=True)]


async def _in_state(driver: StoreDriver, state: str) -> JobRecord:
    """Bring the job "job" into a state; it depends on "base", which is completed, and not on "other"."""
    await driver.register()
    await driver.add(a_job("base"), a_job("other", queued=False))
    await driver.complete("base")
    await STATES[state](driver)
    driver.clock.advance(1)
    return await driver.job("job")


async def _job_or_none(driver: StoreDriver) -> JobRecord | None:
    return next(iter(await driver.store.get(["job"])), None)


class TransitionRules(StoreRules):
    """Every change on a job in every state."""

    @pytest.mark.parametrize(
        ("change", "state", "expected"),
        [pytest.param(*cell, id=f"{cell[0]}-{cell[1]}") for cell in _cells()],
    )
    async def test_a_change_does_in_a_state_what_the_table_says(
        self, driver: StoreDriver, change: str, state: str, expected: str
    ) -> None:
        before = await _in_state(driver, state)
        answer = (await driver.apply(CHANGES[change])).answers[0]
        after = await _job_or_none(driver)
        match expected:
            case "!":
                assert isinstance(answer, Refused)
                assert type(answer.error) is InvalidTransitionError
                assert (answer.error.job_id, answer.error.status) == ("job", before.status.value)
                assert answer.error.remedy
                assert after == before
            case "lost":
                assert isinstance(answer, Refused)
                assert type(answer.error) is LeaseLostError
                assert after == before
            case ".":
                assert isinstance(answer, Applied)
                assert after == before
                _check_answer(answer, change, after, changed=False)
            case "gone":
                assert isinstance(answer, Applied)
                assert answer.changed
                assert before in answer.jobs
                assert after is None
            case _:
                assert isinstance(answer, Applied)
                assert after is not None
                _check_answer(answer, change, after, changed=True)
                assert after.status.value == expected.removesuffix("+")
                assert after.lease == (before.lease if expected.endswith("+") else None)
                assert after.version > before.version
                assert after.updated_at == driver.store.now() > before.updated_at

    @pytest.mark.parametrize("state", STATES)
    @pytest.mark.parametrize("name", CHANGES)
    async def test_a_change_repeated_gets_the_same_verdict_and_takes_effect_once(
        self, driver: StoreDriver, name: str, state: str
    ) -> None:
        change = CHANGES[name]
        await _in_state(driver, state)
        first = (await driver.apply(change)).answers[0]
        once = await _job_or_none(driver)
        driver.clock.advance(1)
        second = (await driver.apply(change)).answers[0]
        twice = await _job_or_none(driver)
        assert type(second) is type(first)
        if isinstance(second, Refused) and isinstance(first, Refused):
            assert type(second.error) is type(first.error)
            assert second.error.args == first.error.args
        elif isinstance(second, Applied) and name != "progress":
            assert not second.changed or name in {"purge", "recover"}
            if isinstance(change, Finish) and once is not None:
                assert second.at == once.updated_at
        if name == "progress" and once is not None and twice is not None:
            twice = twice._replace(version=once.version, updated_at=once.updated_at)
        assert twice == once

    @pytest.mark.parametrize("name", [name for name in CHANGES if name not in {"delete", "purge", "recover"}])
    async def test_a_change_to_a_job_that_is_not_there_says_so(self, driver: StoreDriver, name: str) -> None:
        change = CHANGES[name]
        answer = (await driver.apply(change)).answers[0]
        if isinstance(change, Finish | Progress):
            _refused_with(answer, LeaseLostError)
        elif isinstance(change, Release | Unclaim):
            assert isinstance(answer, Applied)
            assert shown(answer) == ((), False)  # nothing is held
        else:
            _refused_with(answer, JobNotFoundError)


def _check_answer(answer: Applied, change: str, after: JobRecord | None, *, changed: bool) -> None:
    """Check that a change which applied is answered with the job as it now is, and says whether it changed."""
    if change == "recover":
        assert answer.jobs == ((after,) if changed else ())
    else:
        assert answer.changed is changed
        if changed and after is not None and isinstance(CHANGES[change], SILENT):
            assert answer.at == after.updated_at
        assert answer.jobs == (() if change == "purge" or isinstance(CHANGES[change], SILENT) else (after,))


def _refused_with(answer: object, kind: type[OpenAgentsError]) -> None:
    assert isinstance(answer, Refused)
    assert type(answer.error) is kind
