"""Workers that die: who says so and when, what becomes of their jobs, and of them if they were alive after all."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from openagents_json.errors import StoreUnavailableError
from openagents_json.job import AttemptOutcome, JobManager, JobStatus, WaitReason
from openagents_json.job._changes import Claim, Finish, Recover, Worker
from openagents_json.job._worker import this_worker
from openagents_json.job.storage import MemoryJobStore
from openagents_json.testing import ManualClock
from tests.engine._handlers import Held, Stubborn
from tests.engine._stores import ScriptedStore, claims
from tests.engine._time import in_time, pass_time, settled, soon
from tests.engine.conftest import Managers

#: What managers promise by default (seconds): not to be silent longer, and to beat this often.
SILENCE_LIMIT = 300
BEAT = 10


class Two:
    """Two managers of one store, each with a held handler; the first can be silenced."""

    def __init__(self, managers: Managers, store: MemoryJobStore, *, deaf: bool = False) -> None:
        self.line = ScriptedStore(store, deaf=deaf)
        self.one = managers(self.line)
        self.two = managers(store)
        self.held_one, self.held_two = Held(), Held()
        self.one.register_handler("work", self.held_one)
        self.two.register_handler("work", self.held_two)

    async def begin(self) -> str:
        """Start both, with a job ``j`` that the first one runs; returns that one's worker id."""
        await self.one.start()
        await self.one.create_job("work", job_id="j", payload="done", auto_start=True)
        await self.held_one.wait_begun("j")
        await self.two.start()
        return (await self.one.get_job("j")).worker_id or ""

    def silence(self) -> None:
        """Let the first one's beats be lost from now on."""
        self.line.take_down("beat", "register", error=lambda: StoreUnavailableError("lost on the way"))


@pytest.fixture
def two(managers: Managers, store: MemoryJobStore) -> Two:
    return Two(managers, store)


@pytest.fixture
def deaf(managers: Managers, store: MemoryJobStore) -> Two:
    """Give two managers of which the first hears no wake-ups."""
    return Two(managers, store, deaf=True)


async def declare_dead(store: MemoryJobStore, worker_id: str, why: str = "said the test") -> None:
    await store.apply([Recover(worker_id, why)])


async def test_silent_workers_job_is_taken_over_when_its_promise_has_expired(two: Two, clock: ManualClock) -> None:
    worker = await two.begin()
    two.silence()

    await pass_time(clock, SILENCE_LIMIT)
    assert two.held_two.begun == [], "it may be silent that long"
    await pass_time(clock, 3 * BEAT)

    assert two.held_two.begun == ["j"]
    job = await two.two.get_job("j")
    assert (job.status, job.attempt, job.worker_id == worker) == (JobStatus.RUNNING, 2, False)
    assert [attempt.outcome for attempt in job.attempts] == [AttemptOutcome.INTERRUPTED]
    history = job.metadata["recovery_history"]
    assert [(entry["worker_id"], entry["attempt"]) for entry in history] == [(worker, 1)]
    assert "it was silent for 3" in history[0]["why"]


async def test_worker_that_beats_is_never_taken_for_dead(two: Two, clock: ManualClock) -> None:
    worker = await two.begin()

    await pass_time(clock, 10 * SILENCE_LIMIT)

    assert (await two.two.get_job("j")).worker_id == worker
    assert two.held_two.begun == []


async def test_sign_of_life_in_the_last_moment_counts(two: Two, clock: ManualClock) -> None:
    worker = await two.begin()
    two.silence()
    await pass_time(clock, SILENCE_LIMIT + BEAT / 2)
    two.line.bring_up()

    await pass_time(clock, SILENCE_LIMIT)

    assert (await two.two.get_job("j")).worker_id == worker


async def test_manager_that_loses_its_job_cancels_its_handler(two: Two, clock: ManualClock) -> None:
    await two.begin()
    two.silence()

    await pass_time(clock, SILENCE_LIMIT + 3 * BEAT)

    assert two.held_one.cancelled == ["j"]


async def test_late_outcome_of_a_manager_declared_dead_is_refused(deaf: Two, clock: ManualClock) -> None:
    await deaf.begin()
    deaf.silence()
    await pass_time(clock, SILENCE_LIMIT + 3 * BEAT)
    assert deaf.held_two.begun == ["j"]
    assert deaf.held_one.cancelled == [], "it has not heard of it"
    before = await deaf.two.get_job("j")

    deaf.held_one.let_go("j")
    await settled()

    assert any(isinstance(change, Finish) for changes, _ in deaf.line.applied for change in changes)
    assert await deaf.two.get_job("j") == before
    deaf.held_two.let_go("j")
    done = await soon(deaf.two.wait_for_job("j"))
    assert (done.status, done.attempt) == (JobStatus.COMPLETED, 2)


async def test_manager_declared_dead_registers_anew_and_goes_on(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    worker = (await manager.get_job("j")).worker_id or ""

    await declare_dead(store, worker)
    await pass_time(clock, BEAT)

    assert (held.begun, held.cancelled) == (["j", "j"], ["j"])
    job = await manager.get_job("j")
    assert (job.attempt, job.worker_id == worker) == (2, False)
    assert [state.worker.worker_id for state in await store.workers()] == [job.worker_id]
    held.let_go()
    assert await soon(manager.run_job("work", payload="goes on")) == "goes on"


async def test_manager_that_learns_of_its_death_by_a_claim_goes_on(deaf: Two, store: MemoryJobStore) -> None:
    worker = await deaf.begin()
    await soon(deaf.two.stop(timeout=0))
    await declare_dead(store, worker)
    await settled()
    assert deaf.held_one.cancelled == []

    await deaf.one.create_job("work", job_id="next", auto_start=True)
    deaf.line.bring_up()

    await deaf.held_one.wait_begun("next")
    assert deaf.held_one.cancelled == ["j"]


async def test_lost_job_does_not_begin_again_here_before_its_old_attempt_has_ended(
    managers: Managers, store: MemoryJobStore, clock: ManualClock, stubborn: Stubborn
) -> None:
    manager = managers()
    manager.register_handler("stubborn", stubborn)
    await manager.create_job("stubborn", job_id="j", payload="done", auto_start=True)
    await settled()
    await declare_dead(store, (await manager.get_job("j")).worker_id or "")
    await pass_time(clock, 60)
    assert stubborn.begun == 1
    assert await manager.get_job_status("j") is JobStatus.PENDING, "others may run it meanwhile"

    stubborn.let_go()
    done = await in_time(clock, manager.wait_for_job("j"))
    assert (done.result, done.attempt, stubborn.begun) == ("done", 2, 2)


async def test_observer_that_could_not_beat_itself_kills_nobody(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    lines = [ScriptedStore(store), ScriptedStore(store)]
    one, two = (managers(line) for line in lines)
    held = Held()
    one.register_handler("work", held)
    await one.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    worker = (await one.get_job("j")).worker_id
    await two.start()
    methods = ("apply", "get", "find", "count", "register", "beat", "workers")
    for line in lines:
        line.take_down(*methods, error=lambda: StoreUnavailableError("the database is away"))
    await pass_time(clock, 2 * SILENCE_LIMIT)

    lines[1].bring_up()  # the observer is the first to be back
    await pass_time(clock, BEAT - 0.5)
    lines[0].bring_up()
    await pass_time(clock, SILENCE_LIMIT)

    assert (await two.get_job("j")).worker_id == worker
    assert held.cancelled == []


async def test_worker_that_stays_silent_after_an_outage_of_all_is_dead_in_the_end(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    lines = [ScriptedStore(store), ScriptedStore(store)]
    one, two = (managers(line) for line in lines)
    held, other = Held(), Held()
    one.register_handler("work", held)
    two.register_handler("work", other)
    await one.create_job("work", job_id="j", auto_start=True)
    await held.wait_begun("j")
    await two.start()
    for line in lines:
        line.take_down("beat", "workers", error=lambda: StoreUnavailableError("the database is away"))
    await pass_time(clock, 2 * SILENCE_LIMIT)

    lines[1].bring_up()
    await pass_time(clock, 4 * BEAT)

    assert other.begun == ["j"]


async def test_worker_that_cannot_beat_claims_nothing(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, producer = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    line.take_down("beat", error=lambda: StoreUnavailableError("lost on the way"))
    await pass_time(clock, BEAT)

    await producer.create_job("work", job_id="j", auto_start=True)
    await pass_time(clock, 3 * BEAT)
    assert held.begun == []

    line.bring_up()
    await pass_time(clock, BEAT)
    assert held.begun == ["j"]


async def test_first_recovery_is_immediate_and_later_ones_back_off(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True, max_recoveries=None)
    await manager.create_job("work", job_id="neighbour", auto_start=True)
    delays: list[float] = []
    for death in range(1, 9):
        await held.wait_begun("j", times=death)
        await declare_dead(store, (await manager.get_job("j")).worker_id or "")
        job = await manager.get_job("j")
        delays.append((job.run_at - clock.now()).total_seconds() if job.run_at else 0.0)
        await pass_time(clock, 100)

    assert delays[0] == 0
    for number, delay in enumerate(delays[1:]):
        longest = min(60, 2**number)
        assert longest / 2 <= delay <= longest, delays


async def test_job_that_kills_its_worker_too_often_fails_and_says_so(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    manager, held = managers(), Held()
    manager.register_handler("work", held)
    await manager.create_job("work", job_id="j", auto_start=True, max_recoveries=2)
    await manager.create_job("work", job_id="dependent", dependencies=["j"], auto_start=True)
    for death in range(1, 4):
        await held.wait_begun("j", times=death)
        await declare_dead(store, (await manager.get_job("j")).worker_id or "", "the machine burnt")
        await pass_time(clock, 100)

    job = await manager.get_job("j")
    assert (job.status, job.attempt, len(job.metadata["recovery_history"])) == (JobStatus.FAILED, 3, 3)
    assert str(job.error) == "TooManyRecoveries: its worker died 3 times in a row, last: the machine burnt"
    assert await manager.get_job_status("dependent") is JobStatus.CANCELLED


async def test_recoveries_count_only_in_a_row(managers: Managers, store: MemoryJobStore, clock: ManualClock) -> None:
    manager, held = managers(), Held()

    @manager.handler
    async def work(context: object) -> None:
        await held(None, context)  # type: ignore[arg-type] # it is a JobContext
        raise ValueError

    await manager.create_job("work", job_id="j", auto_start=True, max_recoveries=1, max_retries=5, retry_delay=10)
    for attempt in (1, 3, 5):
        await held.wait_begun("j", times=attempt)
        await declare_dead(store, (await manager.get_job("j")).worker_id or "")
        await pass_time(clock, 100)
        await held.wait_begun("j", times=attempt + 1)
        held.let_go("j")
        await settled()
        held.hold("j")
        await pass_time(clock, 10)

    assert not (await manager.get_job("j")).status.finished


async def test_paused_job_of_a_dead_worker_stays_paused_and_runs_again_when_resumed(
    two: Two, clock: ManualClock
) -> None:
    await two.begin()
    await two.two.pause_job("j")
    two.silence()
    await pass_time(clock, SILENCE_LIMIT + 3 * BEAT)

    job = await two.two.get_job("j")
    assert (job.status, len(job.metadata["recovery_history"])) == (JobStatus.PAUSED, 1)
    assert two.held_two.begun == []
    assert (await two.two.resume_job("j")).wait_reason is WaitReason.WORKER
    await settled()
    assert two.held_one.begun + two.held_two.begun == ["j", "j"]


async def test_claim_whose_reply_was_lost_is_found_again(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, producer = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    lost = line.fail("apply", StoreUnavailableError("lost reply"), claims, after=True)
    await producer.create_job_batch([{"name": "work", "job_id": f"j{n}"} for n in range(5)], auto_start=True)
    await lost.wait_reached()
    await settled()
    assert held.begun == []
    assert await producer.count_jobs(status="running") == 5

    await pass_time(clock, 1)

    assert sorted(held.begun) == [f"j{n}" for n in range(5)]
    assert (await producer.get_job("j0")).attempt == 1


async def test_claim_that_never_arrived_is_made_again(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, producer = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    line.fail("apply", StoreUnavailableError("lost request"), claims)
    await producer.create_job("work", job_id="j", auto_start=True)

    await pass_time(clock, 1)

    assert held.begun == ["j"]


async def test_repeated_claim_takes_no_more_than_there_are_slots_by_now(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, producer = managers(line, max_concurrent_jobs=1), managers(run_jobs=False)
    manager.register_handler("work", held)
    await producer.create_job("work", job_id="first", auto_start=True)
    await manager.start()
    await held.wait_begun("first")
    await manager.pause_job("first")
    await settled()
    line.fail("apply", StoreUnavailableError("lost request"), claims)
    await producer.create_job("work", job_id="second", auto_start=True)
    await settled()
    await producer.resume_job("first")  # takes the slot while the claim's fate is unknown
    await settled()

    await pass_time(clock, 5)
    await manager.create_job("work", job_id="unrelated")  # a commit that could carry a claim
    await settled()
    assert held.begun == ["first"], "the one slot is taken"

    held.let_go("first")
    await pass_time(clock, 5)
    assert held.begun == ["first", "second"]


@pytest.mark.parametrize("what", ["pause", "cancel"])
async def test_what_another_manager_does_before_a_lost_claim_is_found_again_is_followed(
    managers: Managers, store: MemoryJobStore, clock: ManualClock, what: str
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, other = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    line.fail("apply", StoreUnavailableError("lost reply"), claims, after=True)
    await other.create_job("work", job_id="j", auto_start=True)
    await settled()
    await (other.pause_job("j") if what == "pause" else other.cancel_job("j"))
    held.let_go("j")

    await pass_time(clock, 5)
    assert held.ended == []

    if what == "pause":
        await other.resume_job("j")
        assert (await in_time(clock, other.wait_for_job("j"), at_most=60)).status is JobStatus.COMPLETED


async def test_claim_with_a_lost_reply_is_not_followed_up_after_death(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, producer = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    line.fail("apply", StoreUnavailableError("lost reply"), claims, after=True)
    await producer.create_job("work", job_id="j", auto_start=True)
    await settled()
    await declare_dead(store, (await producer.get_job("j")).worker_id or "")

    await pass_time(clock, BEAT)

    assert held.begun == ["j"]
    assert (await producer.get_job("j")).attempt == 2


async def test_audit_releases_what_its_worker_holds_and_does_not_run(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    manager, held = managers(queues=["mine"]), Held()
    manager.register_handler("work", held)
    await manager.start()
    (state,) = await store.workers()
    worker = state.worker.worker_id
    await manager.create_job("work", job_id="orphan", queue="elsewhere", auto_start=True)
    await store.apply([], claim=Claim(worker, f"{worker}:99999", 1, ("elsewhere",)))
    assert (await manager.get_job("orphan")).worker_id == worker
    await manager.create_job("work", job_id="j", queue="mine", auto_start=True)
    await held.wait_begun("j")

    await pass_time(clock, 15 * BEAT)

    orphan = await manager.get_job("orphan")
    assert (orphan.status, orphan.wait_reason) == (JobStatus.PENDING, WaitReason.WORKER)
    assert orphan.metadata["recovery_history"][0]["why"] == "its worker lost track of it"
    assert (await manager.get_job("j")).attempt == 1
    assert held.cancelled == []


async def test_audit_finds_out_that_a_job_was_cancelled_though_nobody_said_so(deaf: Two, clock: ManualClock) -> None:
    await deaf.begin()
    await deaf.two.cancel_job("j")
    await settled()
    assert deaf.held_one.cancelled == []

    await pass_time(clock, 7 * BEAT)

    assert deaf.held_one.cancelled == ["j"]


async def test_audit_finds_out_that_a_job_was_paused_though_nobody_said_so(deaf: Two, clock: ManualClock) -> None:
    await deaf.begin()
    await deaf.two.pause_job("j")

    await pass_time(clock, 7 * BEAT)
    deaf.held_one.let_go("j")
    await settled()

    assert await deaf.two.get_job_status("j") is JobStatus.PAUSED
    assert deaf.held_one.ended == []


@pytest.mark.parametrize("what", ["pause", "cancel"])
async def test_what_another_manager_does_while_a_claims_reply_is_on_its_way_is_followed(
    managers: Managers, store: MemoryJobStore, what: str
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, other = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    reply = line.hold("apply", claims, after=True)
    await other.create_job("work", job_id="j", auto_start=True)
    await reply.wait_reached()
    await (other.pause_job("j") if what == "pause" else other.cancel_job("j"))
    await settled()

    reply.let_go()
    await settled()
    held.let_go("j")
    await settled()

    assert held.ended == [], "what is paused or cancelled does not go on"
    if what == "pause":
        await other.resume_job("j")
        assert (await soon(other.wait_for_job("j"))).status is JobStatus.COMPLETED


@pytest.mark.parametrize("what", ["pause", "cancel"])
async def test_what_another_manager_does_while_a_repeated_claims_reply_is_on_its_way_is_followed(
    managers: Managers, store: MemoryJobStore, clock: ManualClock, what: str
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, other = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await manager.start()
    await settled()
    line.fail("apply", StoreUnavailableError("lost request"), claims)
    await other.create_job("work", job_id="j", auto_start=True)
    await settled()
    reply = line.hold("apply", claims, after=True)
    await pass_time(clock, 1)
    await reply.wait_reached()
    await (other.pause_job("j") if what == "pause" else other.cancel_job("j"))
    await settled()

    reply.let_go()
    await settled()
    held.let_go("j")
    await settled()

    assert held.ended == []


@pytest.mark.parametrize("what", ["pause", "cancel"])
async def test_what_another_manager_does_before_the_attempt_begins_is_followed(
    managers: Managers, store: MemoryJobStore, what: str
) -> None:
    line, held = ScriptedStore(store), Held()
    manager, other = managers(line), managers(run_jobs=False)
    manager.register_handler("work", held)
    await other.create_job("work", job_id="parent", auto_start=True)
    await manager.start()
    await held.wait_begun("parent")
    reading = line.hold("get", lambda arguments: arguments == (("parent",),))
    await other.create_job("work", job_id="j", dependencies=["parent"], auto_start=True)
    held.let_go("parent")
    await reading.wait_reached()
    await (other.pause_job("j") if what == "pause" else other.cancel_job("j"))
    await settled()

    reading.let_go()
    await settled()

    assert held.begun == ["parent"]
    if what == "pause":
        held.let_go("j")
        await other.resume_job("j")
        assert (await soon(other.wait_for_job("j"))).status is JobStatus.COMPLETED


def started_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", "pass"])


@pytest.fixture
def pids() -> Iterator[dict[str, int]]:
    """Give pids of processes that are gone, each in its way."""
    exited, zombie = started_process(), started_process()
    exited.wait()
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    yield {"it exited": exited.pid, "it is a zombie": zombie.pid, "its pid is another process": os.getpid()}
    zombie.wait()


async def hold_a_job(store: MemoryJobStore, worker: Worker, job_id: str = "j") -> None:
    """Let the store have a job that this worker holds."""
    producer = JobManager(store, run_jobs=False)
    await producer.create_job("work", job_id=job_id, payload="done", auto_start=True)
    await store.register(worker)
    await store.apply([], claim=Claim(worker.worker_id, f"{worker.worker_id}:1", 1, ("default",)))
    assert await producer.get_job_status(job_id) is JobStatus.RUNNING
    await producer.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="it takes /proc to see that a process is gone")
@pytest.mark.parametrize("how", ["it exited", "it is a zombie", "its pid is another process"])
async def test_jobs_of_a_process_that_is_gone_are_recovered_at_once(
    manager: JobManager, store: MemoryJobStore, clock: ManualClock, pids: dict[str, int], how: str
) -> None:
    started = "1" if how == "its pid is another process" else ""
    await hold_a_job(store, replace(this_worker(SILENCE_LIMIT), pid=pids[how], pid_started=started))

    @manager.handler
    async def work(payload: str) -> str:
        return payload

    done = await soon(manager.wait_for_job("j"))
    assert (done.result, done.attempt, clock.monotonic()) == ("done", 2, 0)
    assert done.metadata["recovery_history"][0]["why"].startswith(f"process {pids[how]} on ")


@pytest.mark.skipif(sys.platform != "linux", reason="it takes /proc to see that a process is there")
async def test_jobs_of_a_process_that_lives_are_left_to_it(
    manager: JobManager, store: MemoryJobStore, clock: ManualClock
) -> None:
    await hold_a_job(store, this_worker(SILENCE_LIMIT))
    await manager.start()

    await pass_time(clock, SILENCE_LIMIT)

    assert await manager.get_job_status("j") is JobStatus.RUNNING


async def test_job_of_another_process_is_taken_over_at_once_where_a_store_admits_one_process_only(
    manager: JobManager, store: MemoryJobStore, clock: ManualClock
) -> None:
    other = replace(this_worker(SILENCE_LIMIT), host="another-machine", boot_id="another-boot")
    await hold_a_job(store, other)

    @manager.handler
    async def work(payload: str) -> str:
        return payload

    assert (await soon(manager.wait_for_job("j"))).result == "done"
    assert clock.monotonic() == 0


async def test_recovery_asked_for_watches_a_silent_worker_as_long_as_it_takes(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    worker = this_worker(SILENCE_LIMIT)  # of this very process, which lives: only its silence tells
    await hold_a_job(store, worker)
    viewer = managers(run_jobs=False)
    assert await in_time(clock, viewer.recover_interrupted_jobs()) == []
    await pass_time(clock, SILENCE_LIMIT + 1)
    before = clock.monotonic()

    recovered = await in_time(clock, viewer.recover_interrupted_jobs())

    assert [(job.job_id, job.status) for job in recovered] == [("j", JobStatus.PENDING)]
    assert clock.monotonic() - before == BEAT
    assert await soon(viewer.recover_interrupted_jobs()) == []


async def test_events_tell_of_recoveries(two: Two, clock: ManualClock) -> None:
    told: list[str] = []
    two.two.events.subscribe(lambda event: told.append(event.type.value))
    await two.begin()
    two.silence()
    await pass_time(clock, SILENCE_LIMIT + 3 * BEAT)

    assert told == ["recovered", "started"]


async def test_job_cancelled_and_deleted_by_another_manager_in_one_breath_ends_its_attempt(two: Two) -> None:
    await two.begin()
    await asyncio.gather(two.two.cancel_job("j"), two.two.delete_job("j"))
    await settled()

    assert two.held_one.cancelled == ["j"]


async def test_many_silent_workers_are_recovered_together(
    managers: Managers, store: MemoryJobStore, clock: ManualClock
) -> None:
    for number in range(20):
        worker = replace(this_worker(SILENCE_LIMIT), worker_id=f"silent-{number}")
        await hold_a_job(store, worker, f"j{number}")
    manager, held = managers(max_concurrent_jobs=50), Held()
    held.let_go()
    manager.register_handler("work", held)
    await manager.start()

    await pass_time(clock, SILENCE_LIMIT + 3 * BEAT)

    assert sorted(held.begun) == sorted(f"j{number}" for number in range(20))
    assert len(await store.workers()) == 1


async def test_worker_is_forgotten_when_its_manager_stops(two: Two, store: MemoryJobStore) -> None:
    await two.begin()
    two.held_one.let_go()
    await soon(two.one.wait_for_job("j"))
    assert len(await store.workers()) == 2

    await soon(asyncio.gather(two.one.stop(), two.two.stop()))
    await store.open()
    assert await store.workers() == []
    await store.close()
