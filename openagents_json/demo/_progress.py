"""What is shown while the jobs run: plain lines here, bars on a terminal in `_bars`. It only listens to events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TextIO

from typing_extensions import override

from openagents_json.job import EventType

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from openagents_json.job import Job, JobEvent


class Progress(ABC):
    """Follows a run; a context manager, which leaves the terminal as it was.

    Args:
        totals: how many jobs each stage has. A job belongs to the stage that its first tag names.

    Attributes:
        done: how many jobs of each stage have completed.
        begun: whether it is known how many those are.
    """

    def __init__(self, totals: Mapping[str, int]) -> None:
        self.totals = dict(totals)
        self.done = dict.fromkeys(totals, 0)
        self.begun = False
        self.running: dict[str, Job] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def tell(self, event: JobEvent) -> None:
        """Take in what happened to a job; to be subscribed to a manager's events."""
        job = event.job
        stage = job.tags[0] if job.tags else ""
        if stage not in self.totals:
            return
        if event.type in {EventType.STARTED, EventType.PROGRESS}:
            self.running[job.job_id] = job
        else:
            self.running.pop(job.job_id, None)
        if event.type is EventType.COMPLETED:
            self.done[stage] += 1
        elif event.type is EventType.RETRYING:
            self.note(f"{job.name} is tried again: {job.error}")
        self.show(stage, event)

    def begin(self, done: Mapping[str, int]) -> None:
        """Begin with what was done before, in a run that is resumed."""
        self.done.update(done)
        self.begun = True

    @abstractmethod
    def note(self, text: str) -> None:
        """Show a line that stays."""

    @abstractmethod
    def show(self, stage: str, event: JobEvent) -> None:
        """Show how far a stage has come, now that something happened in it."""


class PlainProgress(Progress):
    """A line for about every tenth of a stage: for logs and pipes."""

    def __init__(self, totals: Mapping[str, int], stream: TextIO) -> None:
        super().__init__(totals)
        self._stream = stream

    @override
    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    @override
    def show(self, stage: str, event: JobEvent) -> None:
        if event.type is not EventType.COMPLETED:
            return
        done, total = self.done[stage], self.totals[stage]
        if done * 10 // total > (done - 1) * 10 // total:
            self.note(f"{stage:<9} {done:>4} of {total}, last: {subject(event.job)}")


def subject(job: Job) -> str:
    """Say what a job is about, besides its stage."""
    return job.name.removeprefix(f"{job.tags[0]} ")
