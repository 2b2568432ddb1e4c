"""Progress of a command: one protocol for all code that reports progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

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


@contextmanager
def or_bars(progress: Progress | None) -> Iterator[Progress]:
    """The progress itself; if there is none, bars on stderr while the block lasts."""
    if progress is not None:
        yield progress
    else:
        from napo_bench.core.bars import Bars

        with Bars() as bars:
            yield bars
