"""How far a run is: told to whoever started it, or drawn as bars on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from napo_bench.core.remaining import Remaining

Listener = Callable[[str, int, int], None]
"""Takes a stage ("Answering"), how much of it is done, and how much there is."""


class _Left(TimeRemainingColumn):
    """The time left: of the whole plan beside its bar, and nowhere else if there is a plan."""

    def render(self, task: Task) -> Text:
        if "left" not in task.fields:
            return super().render(task)
        left = task.fields["left"]
        return Text(f"{timedelta(seconds=round(left()))} left" if left else "", style="progress.remaining")


class _Count(MofNCompleteColumn):
    """How much is done of how much; the bar of a plan is of time and has no count."""

    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("left") else super().render(task)


class StageBars(Progress):
    """A listener that draws a bar for each stage; of several processes only the first one's.

    Args:
        console: Where; None is stderr.
        plan: What the stages are part of: a bar of its own, with the one estimate of the time left.
    """

    def __init__(self, console: Console | None = None, plan: Remaining | None = None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), _Count(), TimeElapsedColumn(), _Left())
        super().__init__(*columns, console=console or Console(stderr=True), disable=not processes.is_first())
        self._bars: dict[str, TaskID] = {}
        self._plan = plan
        self._whole = None if plan is None else self.add_task("", total=1.0, left=plan.seconds)

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage not in self._bars:
            self._bars[stage] = self.add_task(stage) if self._plan is None else self.add_task(stage, left=None)
        self.update(self._bars[stage], completed=done, total=total)
        if self._plan is not None and self._whole is not None:
            self._plan.tell(stage, done, total)
            self.update(self._whole, completed=self._plan.share())

    def begin_piece(self, number: int, title: str) -> None:
        """Show that a piece of the plan begins; the bars of the piece before it go."""
        for bar in self._bars.values():
            self.remove_task(bar)
        self._bars.clear()
        if self._plan is not None and self._whole is not None:
            self._plan.begin(number)
            self.update(self._whole, description=title, completed=self._plan.share())


@contextmanager
def listening(listener: Listener | None) -> Iterator[Listener]:
    """The listener; where there is none, bars while the block lasts."""
    if listener is not None:
        yield listener
    else:
        with StageBars() as bars:
            yield bars
