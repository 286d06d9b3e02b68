"""Programs of their own: they end without `stop()`, and `serve()` ends well on signals."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

#: How long a program may take that should end at once (seconds); only a failing test takes so long.
SOON = 20.0

PRELUDE = """
    import asyncio, sys, threading, time
    from openagents_json.job import JobManager, JobContext
    from openagents_json.job.storage import MemoryJobStore

    manager = JobManager(MemoryJobStore(), shutdown_timeout=600)
    said = lambda *words: print(*words, flush=True)
"""


def program(body: str) -> list[str]:
    return [sys.executable, "-W", "error", "-X", "dev", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(body)]


def run(body: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(program(body), capture_output=True, text=True, timeout=SOON, check=False, env=environment)


ENDINGS = {
    "idle": """
        async def main():
            await manager.create_job("work")
    """,
    "with a job running": """
        @manager.handler
        async def work():
            said("running")
            await asyncio.Event().wait()

        async def main():
            await manager.create_job("work", auto_start=True)
            await asyncio.sleep(0.05)
    """,
    "with a thread blocked for an hour": """
        begun = threading.Event()

        @manager.handler
        def work():
            begun.set()
            time.sleep(3600)

        async def main():
            await manager.create_job("work", auto_start=True)
            while not begun.is_set():
                await asyncio.sleep(0.01)
    """,
    "with a paused job": """
        @manager.handler
        async def work():
            await asyncio.Event().wait()

        async def main():
            job = await manager.create_job("work", auto_start=True)
            await asyncio.sleep(0.05)
            await manager.pause_job(job.job_id)
    """,
    "with somebody waiting": """
        async def main():
            job = await manager.create_job("nobody-can", auto_start=True)
            waiting = asyncio.create_task(manager.wait_for_job(job.job_id))
            await asyncio.sleep(0.05)
    """,
    "with a retry and a due job ahead": """
        @manager.handler
        async def work():
            raise ValueError

        async def main():
            await manager.create_job("work", auto_start=True, max_retries=3, retry_delay=600)
            await manager.create_job("work", auto_start=True, delay=600)
            await asyncio.sleep(0.05)
    """,
    "with an error of its own": """
        async def main():
            await manager.create_job("work")
            sys.exit(0)
    """,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_program_that_forgot_to_stop_ends(ending: str) -> None:
    ended = run(ENDINGS[ending] + "\n        asyncio.run(main())\n        said('ended')\n")

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith("ended\n") or ending == "with an error of its own"
    assert "Traceback" not in ended.stderr, ended.stderr
    assert "never" not in ended.stderr, ended.stderr
    assert "destroyed" not in ended.stderr, ended.stderr


def test_program_with_a_blocked_thread_stops_and_ends() -> None:
    ended = run(
        """
        begun = threading.Event()

        @manager.handler
        def work():
            begun.set()
            time.sleep(3600)

        async def main():
            from openagents_json.settings import settings
            await manager.create_job("work", auto_start=True)
            while not begun.is_set():
                await asyncio.sleep(0.01)
            await manager.stop(timeout=0)

        from openagents_json.settings import settings
        settings.job.cancel_grace = 0.1
        manager = JobManager(MemoryJobStore())
        manager.register_handler("work", work)
        asyncio.run(main())
        said("ended")
        """
    )

    assert (ended.returncode, ended.stdout) == (0, "ended\n"), ended.stderr


class Program:
    """A program that runs, read line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        """Read the next line it says."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SOON):
            return (await self._process.stdout.readline()).decode().strip()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; returns its exit code."""
        async with asyncio.timeout(SOON):
            return await self._process.wait()


@pytest.fixture
async def programs() -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Collect processes, which are killed when the test ends."""
    started: list[asyncio.subprocess.Process] = []
    yield started
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def start(body: str, programs: list[asyncio.subprocess.Process]) -> Program:
    process = await asyncio.create_subprocess_exec(
        *program(body),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    programs.append(process)
    return Program(process)


SERVING = """
    class Announcing(JobManager):
        async def stop(self, timeout=None):
            said("stopping")
            if finishes:
                finish.set()
            await super().stop(timeout)

    manager = Announcing(MemoryJobStore(), shutdown_timeout=600)
    finish = asyncio.Event()

    @manager.handler
    async def work():
        said("running")
        try:
            await finish.wait()
        except asyncio.CancelledError:
            said("interrupted")
            raise

    async def main():
        manager.events.subscribe(lambda event: said(event.type), types=["completed", "released"])
        await manager.create_job("work", auto_start=True)
        await manager.serve()
        said("served")

    asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_running_jobs_finish(
    programs: list[asyncio.subprocess.Process], number: signal.Signals
) -> None:
    serving = await start("    finishes = True" + SERVING, programs)
    assert await serving.line() == "running"

    serving.send(number)

    assert [await serving.line() for _ in range(3)] == ["stopping", "completed", "served"]
    assert await serving.ended() == 0


async def test_second_signal_interrupts_them(programs: list[asyncio.subprocess.Process]) -> None:
    serving = await start("    finishes = False" + SERVING, programs)
    assert await serving.line() == "running"
    serving.send(signal.SIGTERM)
    assert await serving.line() == "stopping"

    serving.send(signal.SIGTERM)

    assert [await serving.line() for _ in range(3)] == ["interrupted", "released", "served"]
    assert await serving.ended() == 0


async def test_signals_are_the_programs_own_again_after_serving(programs: list[asyncio.subprocess.Process]) -> None:
    serving = await start(
        """
        import signal

        async def main():
            before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
            asyncio.get_running_loop().call_later(0.05, signal.raise_signal, signal.SIGTERM)
            await manager.serve()
            said(before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)])

        asyncio.run(main())
        """,
        programs,
    )

    assert await serving.line() == "True"
    assert await serving.ended() == 0
