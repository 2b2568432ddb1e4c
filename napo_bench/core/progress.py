"""Progress of a command: one protocol for all code that reports progress, and bars on stderr that show the progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichBars
from rich.text import Text

from napo_bench.core import processes
from napo_bench.core.remaining import Remaining

NO_VALUES: Mapping[str, float] = {}


class Progress(Protocol):
    """The receiver of a command's progress. Only the first process calls the receiver."""

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        """Take the state of a stage.

        Args:
            stage: "Answering", "Training", or the name of a file that is fetched.
            done: Number of questions, steps, rows or bytes.
            total: Total in the same unit; None if unknown.
            values: Last measured values, by name.
        """

    def note(self, text: str, /) -> None:
        """Take one line that the user should see."""


class Silent:
    """A progress that drops everything."""

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        """Drop the state of a stage."""

    def note(self, text: str, /) -> None:
        """Drop a line."""


SILENT = Silent()


class _Left(TimeRemainingColumn):
    """The time left. With a plan, only the plan's bar shows the time left of the whole plan."""

    def render(self, task: Task) -> Text:
        if "left" not in task.fields:
            return super().render(task)
        left = task.fields["left"]
        return Text(f"{timedelta(seconds=round(left()))} left" if left else "", style="progress.remaining")


class _Count(MofNCompleteColumn):
    """The finished and the total amount. The bar of a plan shows time and has no count."""

    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("left") else super().render(task)


class Bars(RichBars):
    """A progress that draws a bar for each stage; of several processes only the first one draws.

    Args:
        console: Console of the bars; None is stderr.
        plan: Plan of all stages, which has its own bar with the one estimate of the time left.
        shown: Name of a value -> short name under which the value is shown beside its bar.

    Attributes:
        last: The last values of the last stage.
    """

    def __init__(
        self, console: Console | None = None, plan: Remaining | None = None, shown: Mapping[str, str] | None = None
    ) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), _Count(), TimeElapsedColumn(), _Left())
        super().__init__(*columns, console=console or Console(stderr=True), disable=not processes.is_first())
        self.last = NO_VALUES
        self._shown = shown or {}
        self._bars: dict[str, TaskID] = {}
        self._plan = plan
        self._whole = None if plan is None else self.add_task("", total=1.0, left=plan.seconds)

    def note(self, text: str, /) -> None:
        """Print one line above the bars."""
        self.console.print(text, markup=False, highlight=False)

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        """Show the progress of a stage."""
        self.last = values
        if stage not in self._bars:
            self._bars[stage] = self.add_task(stage) if self._plan is None else self.add_task(stage, left=None)
        beside = "".join(f"  {short} {values[name]:.3f}" for name, short in self._shown.items() if name in values)
        self.update(self._bars[stage], completed=done, total=total, description=stage + beside)
        if self._plan is not None and self._whole is not None and total is not None:
            self._plan.progress(stage, done, total)
            self.update(self._whole, completed=self._plan.share())

    def begin_piece(self, number: int, title: str) -> None:
        """Show that a piece of the plan begins, and remove the bars of the piece before."""
        for bar in self._bars.values():
            self.remove_task(bar)
        self._bars.clear()
        if self._plan is not None and self._whole is not None:
            self._plan.begin(number)
            self.update(self._whole, description=title, completed=self._plan.share())


@contextmanager
def or_bars(progress: Progress | None) -> Iterator[Progress]:
    """The progress itself; if there is none, bars on stderr while the block lasts."""
    if progress is not None:
        yield progress
    else:
        with Bars() as bars:
            yield bars
