"""How far a run is: told to whoever started it, or drawn as bars on stderr."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Listener = Callable[[str, int, int], None]
"""Takes a stage ("Answering"), how much of it is done, and how much there is."""


class StageBars(Progress):
    """A listener that draws a bar for each stage; of several processes only the first one's.

    Args:
        console: Where; None is stderr.
    """

    def __init__(self, console: Console | None = None) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        shown = os.environ.get("RANK", "0") == "0"
        super().__init__(*columns, console=console or Console(stderr=True), disable=not shown)
        self._bars: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage not in self._bars:
            self._bars[stage] = self.add_task(stage)
        self.update(self._bars[stage], completed=done, total=total)

    def forget_stages(self) -> None:
        """Take the bars of the stages away, before another step draws its own."""
        for bar in self._bars.values():
            self.remove_task(bar)
        self._bars.clear()


@contextmanager
def listening(listener: Listener | None) -> Iterator[Listener]:
    """The listener; where there is none, bars while the block lasts."""
    if listener is not None:
        yield listener
    else:
        with StageBars() as bars:
            yield bars
