"""Progress on a terminal: a bar for each stage, with what it is at. Needs rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Column
from typing_extensions import override

from openagents_json.demo._progress import Progress, subject

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from openagents_json.job import Job, JobEvent


class BarProgress(Progress):
    """Bars that fill up as jobs complete, and with the progress of those that run."""

    def __init__(self, totals: Mapping[str, int], stream: TextIO) -> None:
        super().__init__(totals)
        self._bars = Bars(
            TextColumn("{task.description:<9}", style="bold"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[jobs]:>9}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[at]}", style="dim", markup=False, table_column=Column(no_wrap=True, ratio=1)),
            console=Console(file=stream),
            expand=True,
        )
        self._rows = {
            stage: self._bars.add_task(stage, start=False, total=total, jobs=f"0/{total}", at="")
            for stage, total in totals.items()
        }

    @override
    def __enter__(self) -> Self:
        self._bars.start()
        return self

    @override
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for row in self._rows.values():
            self._bars.update(row, at="")
        self._bars.stop()

    @override
    def begin(self, done: Mapping[str, int]) -> None:
        super().begin(done)
        for stage, number in self.done.items():
            self._bars.update(self._rows[stage], completed=number, jobs=f"{number}/{self.totals[stage]}")

    @override
    def note(self, text: str) -> None:
        # the terminal may break a line; what is copied from it, a path say, stays whole
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @override
    def show(self, stage: str, event: JobEvent) -> None:
        row, done, total = self._rows[stage], self.done[stage], self.totals[stage]
        running = [job for job in self.running.values() if job.tags[0] == stage]
        if running:
            self._bars.start_task(row)
        self._bars.update(
            row,
            completed=done + sum(job.progress for job in running),
            jobs=f"{done}/{total}",
            at=", ".join(map(_at, running)),
        )


def _at(job: Job) -> str:
    return f"{subject(job)} {job.progress:.0%}" if job.progress else subject(job)
