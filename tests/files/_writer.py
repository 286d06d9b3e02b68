"""A process that moves tokens between jobs, one commit a move, as fast as it can, until its standard input ends.

Started as ``python -m tests.files._writer DIRECTORY``; prints a line once the jobs are there. At every moment the
tokens of all jobs add up to the same, as many jobs are paused as at first, and there are as many jobs.
"""

import asyncio
import random
import sys
from itertools import count

from openagents_json.job._changes import Add, Cancel, Change, Delete, Pause, Progress, Resume
from openagents_json.job.storage import FileJobStore, file
from openagents_json.testing import a_claim, a_job, a_worker, adding

#: The tokens of a job are its progress, in hundredths.
HOLDERS = 8
TOKENS = 80
PAUSED = 3
PAUSABLE = 10
FINISHED = 5
ALL = HOLDERS + PAUSABLE + FINISHED


async def main(directory: str) -> None:
    """Move tokens, pauses and finished jobs about."""
    # Segments are dropped all the time.
    file._SEGMENT_SIZE, file._SEGMENT_AGE = 3000, 0.005
    store = FileJobStore(directory)
    await store.open()
    await store.register(a_worker())
    held = {f"holder-{number}": TOKENS // HOLDERS for number in range(HOLDERS)}
    pausable = [f"pausable-{number}" for number in range(PAUSABLE)]
    finished = [f"finished-{number}" for number in range(FINISHED)]
    first: list[Change] = [
        adding(*(a_job(name) for name in held), *(a_job(name, queued=False) for name in (*pausable, *finished))),
        *(Pause(name) for name in pausable[:PAUSED]),
        *(Cancel(name, "") for name in finished),
    ]
    claim = a_claim(1)
    await store.apply(first, claim=claim)
    await store.apply([_tokens(name, claim.lease, number) for name, number in held.items()])
    say("ready")
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    for number in count():
        giver, taker = random.sample(sorted(held), 2)
        moved = random.randint(0, held[giver])
        held[giver] -= moved
        held[taker] += moved
        pausable.append(pausable.pop(random.randrange(PAUSED)))  # the first ones are paused
        finished.append(f"finished-{FINISHED + number}")
        changes: list[Change] = [
            _tokens(giver, claim.lease, held[giver]),
            Resume(pausable[-1]),
            Delete(finished.pop(0)),
            _new(finished[-1]),
            Cancel(finished[-1], ""),
            Pause(pausable[PAUSED - 1]),
            _tokens(taker, claim.lease, held[taker]),
        ]
        await store.apply(changes)
        if ended.done():
            break
    await store.close()
    say(f"{number} moves")


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _tokens(job_id: str, lease: str, number: int) -> Progress:
    return Progress(job_id, lease, number / 100, "")


def _new(job_id: str) -> Add:
    return adding(a_job(job_id, queued=False))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
