"""What tests of a store are made of: jobs, claims, workers, and a driver that says briefly what they say often.

`check_consistency` recomputes what a store derives. No pytest here.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from openagents_json.job._changes import (
    Add,
    Applied,
    Change,
    Claim,
    Claimed,
    Finish,
    NewJob,
    Query,
    Recover,
    Refused,
    Worker,
)
from openagents_json.job._record import JobRecord, JobSpec
from openagents_json.job.model import (
    AttemptOutcome,
    DependencyFailurePolicy,
    JobError,
    JobPriority,
    JobStatus,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from openagents_json.errors import OpenAgentsError
    from openagents_json.job._changes import Result
    from openagents_json.job.retry import RetryPolicy
    from openagents_json.job.storage.base import JobStore
    from openagents_json.testing.clock import ManualClock

#: The worker of tests that need only one.
WORKER = "worker-1"

#: An error to fail with.
BOOM = JobError("ValueError", "boom", "Traceback (most recent call last): ...")

_requests = count(1)


def a_job(
    job_id: str,
    *dependencies: str,
    queued: bool = True,
    run_at: datetime | None = None,
    delay: float | None = None,
    name: str = "work",
    description: str = "",
    handler: str | None = None,
    queue: str = "default",
    payload: bytes = b'{"n":1}',
    metadata: bytes = b"{}",
    tags: tuple[str, ...] = (),
    priority: JobPriority = JobPriority.MEDIUM,
    batch_id: str | None = None,
    on_dependency_failure: DependencyFailurePolicy = DependencyFailurePolicy.CANCEL,
    max_retries: int = 0,
    retry_delay: float = 1.0,
    retry_policy: RetryPolicy | None = None,
    timeout: float | None = None,
    max_recoveries: int | None = 5,
) -> NewJob:
    """Build a job to be stored, by default queued and ready. The arguments mean what they mean on `Job`."""
    spec = JobSpec(
        job_id=job_id,
        name=name,
        description=description,
        handler=handler,
        queue=queue,
        payload=payload,
        metadata=metadata,
        tags=tags,
        priority=priority,
        batch_id=batch_id,
        on_dependency_failure=on_dependency_failure,
        max_retries=max_retries,
        retry_delay=retry_delay,
        retry_policy=retry_policy,
        timeout=timeout,
        max_recoveries=max_recoveries,
        request_id="",
    )
    return NewJob(spec, dependencies=dependencies, queued=queued, run_at=run_at, delay=delay)


def adding(*jobs: NewJob, request_id: str | None = None) -> Add:
    """Build one call's `Add` of these jobs; without a `request_id` it gets one that no other call has."""
    stamp = request_id or f"request-{next(_requests)}"
    return Add(tuple(replace(job, spec=job.spec._replace(request_id=stamp)) for job in jobs))


def a_worker(worker_id: str = WORKER, *, silence_limit: float = 60.0) -> Worker:
    """Build a worker to be registered."""
    return Worker(worker_id, silence_limit)


def a_claim(
    number: int,
    *,
    worker_id: str = WORKER,
    limit: int = 100,
    queues: tuple[str, ...] = ("default",),
    min_priority: JobPriority = JobPriority.LOW,
    exclude_handlers: Collection[str] = (),
    exclude_names: Collection[str] = (),
    exclude_jobs: Collection[str] = (),
    repeated: bool = False,
) -> Claim:
    """Build a worker's n-th claim."""
    return Claim(
        worker_id,
        lease=f"{worker_id}:{number}",
        limit=limit,
        queues=queues,
        min_priority=min_priority,
        exclude_handlers=frozenset(exclude_handlers),
        exclude_names=frozenset(exclude_names),
        exclude_jobs=frozenset(exclude_jobs),
        repeated=repeated,
    )


class StoreDriver:
    """Short ways to say what tests of a store say often.

    Attributes:
        store: the store, open.
        clock: the clock it reads.
    """

    def __init__(self, store: JobStore, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock
        self._numbers = count(1001)

    async def apply(self, *changes: Change, claim: Claim | None = None) -> Result:
        """Make the changes in one call."""
        return await self.store.apply(changes, claim=claim)

    async def do(self, change: Change) -> Applied:
        """Make one change that must not be refused."""
        answer = (await self.store.apply([change])).answers[0]
        assert isinstance(answer, Applied), f"{change!r} was refused: {answer!r}"
        return answer

    async def refusal(self, change: Change) -> OpenAgentsError:
        """Ask for one change that must be refused, and say why it was."""
        answer = (await self.store.apply([change])).answers[0]
        assert isinstance(answer, Refused), f"{change!r} was not refused: {answer!r}"
        return answer.error

    async def add(self, *jobs: NewJob) -> tuple[JobRecord, ...]:
        """Store jobs, in one call."""
        return (await self.do(adding(*jobs))).jobs

    async def register(self, *worker_ids: str) -> None:
        """Make workers known; the usual one if none is named."""
        for worker_id in worker_ids or (WORKER,):
            await self.store.register(a_worker(worker_id))

    async def claimed(self, claim: Claim) -> Claimed:
        """Make a claim and nothing else."""
        answer = (await self.store.apply([], claim=claim)).claimed
        assert answer is not None, "the claim was not answered"
        return answer

    async def claim(self, claim: Claim) -> list[str]:
        """Make a claim that must be served, and name what it got, in order."""
        answer = await self.claimed(claim)
        assert answer.error is None, f"{claim!r} was refused: {answer.error!r}"
        return [job.job_id for job in answer.jobs]

    async def run(self, *job_ids: str, worker_id: str = WORKER) -> str:
        """Claim just these jobs, which must be ready.

        Returns:
            The lease they are held under.
        """
        await self.store.register(a_worker(worker_id))
        pending = await self.store.find(Query(statuses=frozenset({JobStatus.PENDING})))
        claim = a_claim(
            next(self._numbers),
            worker_id=worker_id,
            limit=len(job_ids),
            queues=tuple({job.spec.queue: None for job in pending}),
            exclude_jobs={job.job_id for job in pending} - set(job_ids),
        )
        claimed = await self.claim(claim)
        assert set(claimed) == set(job_ids), f"{job_ids!r} should be ready, and the claim got {claimed!r}"
        return claim.lease

    async def complete(self, *job_ids: str, result: bytes = b"null") -> None:
        """Run ready jobs to their successful end."""
        lease = await self.run(*job_ids)
        for job_id in job_ids:
            await self.do(Finish(job_id, lease, AttemptOutcome.COMPLETED, result))

    async def fail(self, *job_ids: str, retry_in: float | None = None) -> None:
        """Run ready jobs to a failure."""
        lease = await self.run(*job_ids)
        for job_id in job_ids:
            await self.do(Finish(job_id, lease, AttemptOutcome.FAILED, error=BOOM, retry_in=retry_in))

    async def die_with(self, *job_ids: str, worker_id: str, why: str = "its worker died") -> Applied:
        """Run ready jobs on a worker of their own, and declare that one dead."""
        await self.run(*job_ids, worker_id=worker_id)
        return await self.do(Recover(worker_id, why))

    async def job(self, job_id: str) -> JobRecord:
        """Read a job that must be there."""
        found = await self.store.get([job_id])
        assert [job.job_id for job in found] == [job_id], f"asked for {job_id!r}, got {found!r}"
        return found[0]

    async def status(self, job_id: str) -> JobStatus:
        """Read the state of a job that must be there."""
        return (await self.job(job_id)).status

    async def statuses(self, *job_ids: str) -> dict[str, str]:
        """Read the states of jobs; those that are not there are left out."""
        return {job.job_id: job.status.value for job in await self.store.get(job_ids)}

    async def find(self, query: Query) -> list[str]:
        """Name the jobs that match, in order."""
        return [job.job_id for job in await self.store.find(query)]


async def check_consistency(store: JobStore) -> None:
    """Assert that what a store derives equals what follows from the jobs it holds, and that no rule is broken.

    Raises:
        AssertionError: it does not; the message names the job and the rule.
    """
    jobs = {job.job_id: job for job in await store.find(Query())}
    for job in jobs.values():
        _check_state(job)
        _check_dependencies(job, jobs)
    assert await store.count(Query()) == len(jobs), "count() disagrees with find()"
    for worker_id in {job.worker_id for job in jobs.values() if job.worker_id is not None}:
        held = {job.job_id for job in jobs.values() if job.lease is not None and job.worker_id == worker_id}
        answer = await store.find(Query(held_by=worker_id))
        assert {job.job_id for job in answer} == held, f"held_by={worker_id!r} disagrees with the jobs"
    for parent in {name for job in jobs.values() for name in job.dependencies}:
        dependents = {job.job_id for job in jobs.values() if parent in job.dependencies}
        answer = await store.find(Query(depends_on=parent))
        assert {job.job_id for job in answer} == dependents, f"depends_on={parent!r} disagrees with the jobs"


def _check_state(job: JobRecord) -> None:
    what = f"job {job.job_id!r} ({job.status})"
    if job.status is JobStatus.RUNNING:
        assert job.lease is not None, f"{what} is held by nobody"
    if job.lease is not None:
        assert job.status in {JobStatus.RUNNING, JobStatus.PAUSED}, f"{what} is held under {job.lease!r}"
        assert job.worker_id is not None, f"{what} is held, and nobody holds it"
    assert (job.completed_at is not None) == job.status.finished, f"{what}: completed_at is {job.completed_at}"
    assert len(job.attempts) <= 50, f"{what} remembers {len(job.attempts)} attempts"
    assert len(job.recovery_history) <= 50, f"{what} remembers {len(job.recovery_history)} recoveries"


def _check_dependencies(job: JobRecord, jobs: dict[str, JobRecord]) -> None:
    what = f"job {job.job_id!r} ({job.status})"
    if job.status.finished:
        assert job.ready_at is None, f"{what} is ready"
        return
    policy = job.spec.on_dependency_failure
    states = [jobs[name].status for name in job.dependencies]
    completed = sum(status is JobStatus.COMPLETED for status in states)
    broken = sum(status in {JobStatus.FAILED, JobStatus.CANCELLED} for status in states)
    met = completed + (broken if policy is DependencyFailurePolicy.RUN else 0)
    unmet = len(states) - met
    assert job.unmet == unmet, f"{what} counts {job.unmet} unmet dependencies, and there are {unmet}"
    if policy is DependencyFailurePolicy.CANCEL:
        assert not broken, f"{what} outlived a dependency that failed"
    may_run = job.status is JobStatus.PENDING and job.queued and unmet == 0
    assert (job.ready_at is not None) == may_run, f"{what}: ready_at is {job.ready_at}"
    if job.ready_at is not None and job.run_at is not None:
        assert job.ready_at >= job.run_at, f"{what} is ready before its time"
