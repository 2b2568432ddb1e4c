"""Bars on stderr that show the progress of a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
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
        self._bars: dict[tuple[int | None, str], TaskID] = {}
        self._plan = plan
        self._whole = None if plan is None else self.add_task("", total=1.0, left=plan.seconds)
        self._titles: dict[int, str] = {}
        self._begun = 0

    def note(self, text: str, /) -> None:
        """Print one line above the bars."""
        self.console.print(text, markup=False, highlight=False)

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        """Show the progress of a stage."""
        self._show(None, stage, done, total, values)

    @contextmanager
    def piece(self, number: int, title: str, of: int) -> Iterator[PieceBars]:
        """Show that a piece of the plan runs, in this block. Pieces may run side by side, each in a thread.

        Args:
            number: The piece's number in the plan.
            title: What the piece does.
            of: Number of all pieces.

        Yields:
            The progress of the piece, whose bars disappear at the end.
        """
        assert self._plan is not None
        self._plan.begin(number)
        self._titles[number] = title
        self._begun += 1
        self._tell_titles(of)
        yield PieceBars(self, number)
        self._plan.end(number)
        del self._titles[number]
        for key in [key for key in self._bars if key[0] == number]:
            self.remove_task(self._bars.pop(key))
        self._tell_titles(of)

    def _tell_titles(self, of: int) -> None:
        """Show in the plan's bar which piece runs. Of several pieces each bar shows its own title."""
        assert self._plan is not None and self._whole is not None
        running = list(self._titles.values()) or (["Done"] if self._begun == of else [])
        title = f" [bold]{escape(running[0])}[/bold]" if len(running) == 1 else ""
        self.update(self._whole, description=f"{self._begun}/{of}{title}", completed=self._plan.share())

    def _show(
        self, piece: int | None, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES
    ) -> None:
        """Show the progress of a stage of a piece; None is a command without a plan."""
        self.last = values
        whose = f"{self._titles[piece]}: " if piece is not None and len(self._titles) > 1 else ""
        beside = "".join(f"  {short} {values[name]:.3f}" for name, short in self._shown.items() if name in values)
        key = (piece, stage)
        if key not in self._bars:
            self._bars[key] = self.add_task(stage) if self._plan is None else self.add_task(stage, left=None)
        self.update(self._bars[key], completed=done, total=total, description=escape(whose) + stage + beside)
        if piece is not None and self._plan is not None and self._whole is not None and total is not None:
            self._plan.progress(piece, stage, done, total)
            self.update(self._whole, completed=self._plan.share())


@dataclass(frozen=True)
class PieceBars:
    """The progress of one piece of a plan."""

    bars: Bars
    number: int

    def note(self, text: str, /) -> None:
        """Print one line above the bars."""
        self.bars.note(text)

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        """Show the progress of a stage."""
        self.bars._show(self.number, stage, done, total, values)
