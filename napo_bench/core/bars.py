"""Bars on stderr that show the progress of a command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from napo_bench.core import processes
from napo_bench.core.progress import NO_VALUES
from napo_bench.core.remaining import Remaining


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


class Bars(Progress):
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
