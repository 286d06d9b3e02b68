"""Handlers whose going on a test decides."""

import asyncio
import threading

from openagents_json.job import JobContext
from tests.engine._time import SOON, soon


class Held:
    """An async handler that tells when it begins, and waits, at one ``await``, until it is let go.

    Attributes:
        begun: the ids of the jobs that began, in order.
        ended: the ids of the jobs that were let go, in order.
        cancelled: the ids of the jobs that were cancelled meanwhile, in order.
        running: how many are between beginning and end.
        most: the most there ever were at once.
    """

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.most = 0
        self._news = asyncio.Condition()
        self._gates: dict[str, asyncio.Event] = {}
        self._all_let_go = False

    async def __call__(self, payload: object, context: JobContext) -> object:
        job_id = context.job_id
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.append(job_id)
        async with self._news:
            self._news.notify_all()
        try:
            await self._gate(job_id).wait()
        except asyncio.CancelledError:
            self.cancelled.append(job_id)
            raise
        finally:
            self.running -= 1
        self.ended.append(job_id)
        return payload

    async def wait_begun(self, job_id: str, times: int = 1) -> None:
        """Wait until the job has begun, for the n-th time."""
        async with self._news:
            await soon(self._news.wait_for(lambda: self.begun.count(job_id) >= times))

    def let_go(self, *job_ids: str) -> None:
        """Let these jobs end, now or as soon as they begin; all, if none is named."""
        self._all_let_go = self._all_let_go or not job_ids
        for job_id in job_ids or tuple(self._gates):
            self._gate(job_id).set()

    def hold(self, job_id: str) -> None:
        """Hold the job again when it begins once more."""
        self._gate(job_id).clear()

    def _gate(self, job_id: str) -> asyncio.Event:
        gate = self._gates.setdefault(job_id, asyncio.Event())
        if self._all_let_go:
            gate.set()
        return gate


class Stubborn:
    """A handler that swallows every cancellation until it is let go, then returns.

    Attributes:
        begun: how often it began.
        swallowed: how many cancellations it swallowed.
    """

    def __init__(self) -> None:
        self.begun = 0
        self.swallowed = 0
        self._go = asyncio.Event()

    async def __call__(self, payload: object) -> object:
        self.begun += 1
        while not self._go.is_set():
            try:
                await self._go.wait()
            except asyncio.CancelledError:
                self.swallowed += 1
        return payload

    def let_go(self) -> None:
        """Let it return."""
        self._go.set()


class HeldThread:
    """A plain function as a handler, that tells when it begins and waits in its thread until it is let go.

    Attributes:
        runs: how often it began.
        running: how many threads are in it now.
        most: the most there ever were at once.
        heard_cancelled: what its context said about being cancelled when it was let go, each time.
    """

    def __init__(self) -> None:
        self.runs = 0
        self.running = 0
        self.most = 0
        self.heard_cancelled: list[bool] = []
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)
        self._go = threading.Semaphore(0)
        self._count = threading.Lock()

    def __call__(self, payload: object, context: JobContext) -> object:
        with self._count:
            self.runs += 1
            self.running += 1
            self.most = max(self.most, self.running)
        self._loop.call_soon_threadsafe(self._begun.release)
        try:
            assert self._go.acquire(timeout=3 * SOON), "the test never let this thread go"
        finally:
            with self._count:
                self.running -= 1
        self.heard_cancelled.append(context.cancelled)
        return payload

    async def wait_begun(self) -> None:
        """Wait until it has begun once more than this was awaited before."""
        await soon(self._begun.acquire())

    def let_go(self, times: int = 1) -> None:
        """Let that many threads end, now or when they come there."""
        self._go.release(times)
