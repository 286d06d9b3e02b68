"""A plan that is dropped leaves the table as it was: what a store does when it cannot persist one."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from openagents_json.job._changes import Add, Cancel, Change, Delete, Finish, Pause, Query, Recover, Resume
from openagents_json.job.model import AttemptOutcome
from openagents_json.job.storage._table import Table
from openagents_json.testing import a_claim, a_job, a_worker, adding
from openagents_json.testing.builders import WORKER
from openagents_json.testing.clock import START

DROPPED: dict[str, Sequence[Change]] = {
    "nothing": [],
    "new-jobs": [adding(a_job("new"), a_job("new-delayed", delay=1.0))],
    "pauses": [Pause("ready"), Pause("delayed")],
    "pauses-undone": [Pause("ready"), Resume("ready"), Pause("delayed"), Resume("delayed")],
    "cancels": [Cancel("ready", "why"), Cancel("delayed", "why"), Cancel("due", "why")],
    "deletes": [Delete("ready"), Delete("delayed"), Delete("due")],
    "outcomes": [Finish("held", a_claim(1).lease, AttemptOutcome.COMPLETED, b"1")],
    "deaths": [Recover(WORKER, "it died")],
}


class Session:
    """A table with jobs in several states, and the moments at which something is done to it."""

    def __init__(self) -> None:
        self.table = Table()
        self.now = START
        for worker_id in (WORKER, "worker-2"):
            self.table.register(a_worker(worker_id), 0.0)
        self.apply(adding(a_job("held")), claim=1)
        self.apply(adding(a_job("child", "held"), a_job("due", delay=5.0), a_job("delayed", delay=50.0)))
        self.apply(adding(a_job("ready"), a_job("mail", name="mail")))
        self.now += timedelta(seconds=10)

    def apply(self, *changes: Change, claim: int | None = None, worker_id: str = WORKER) -> list[str]:
        asked = None if claim is None else a_claim(claim, worker_id=worker_id, exclude_names={"mail"})
        plan = self.table.plan(changes, asked, self.now)
        self.table.install(plan)
        return [] if plan.result.claimed is None else [job.job_id for job in plan.result.claimed.jobs]

    def run_to_the_end(self) -> list[tuple[datetime, list[str]]]:
        """Say which jobs a worker gets, now and as time goes by."""
        got = []
        for number in range(2, 9):
            got.append((self.now, sorted(self.apply(claim=number, worker_id="worker-2"))))
            self.now += timedelta(seconds=10)
        got.append((self.now, [job.job_id for job in self.table.find(Query())]))
        return got


@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.parametrize("worker_id", [None, WORKER, "worker-2"])
def test_a_dropped_plan_leaves_jobs_and_claims_as_they_were(name: str, worker_id: str | None) -> None:
    untouched, session = Session(), Session()
    before = session.table.find(Query())
    claim = None if worker_id is None else a_claim(7, worker_id=worker_id, exclude_jobs={"child"})
    for _ in range(3):
        session.table.abort(session.table.plan(DROPPED[name], claim, session.now))
    assert session.table.find(Query()) == before
    assert session.run_to_the_end() == untouched.run_to_the_end()


def test_a_plan_that_breaks_down_halfway_leaves_the_table_as_it_was() -> None:
    untouched, session = Session(), Session()
    with pytest.raises(AttributeError):
        session.table.plan([Pause("ready"), Add((None,))], a_claim(7), session.now)  # type: ignore[arg-type]
    assert session.run_to_the_end() == untouched.run_to_the_end()
