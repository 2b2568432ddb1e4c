"""The curves of a panel as line charts: CHAIR and Cover of two runs over the first words and mentions of captions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from napo_bench.runs.panel.rows import Curve

WIDTH, HEIGHT = 250, 150
"""Size of the plot inside a chart's axes, in pixels."""

_STEPS = (1, 2, 5)
_TICKS = 4


@dataclass(frozen=True)
class Tick:
    """A mark of an axis.

    Attributes:
        place: Distance from the axis's low end, in pixels.
        label: Value at the mark.
    """

    place: float
    label: str


@dataclass(frozen=True)
class Chart:
    """A line chart of two runs.

    Attributes:
        label: Label of the measure.
        unit: Unit of the horizontal axis.
        baseline: Points of the baseline's line, in the form of SVG.
        candidate: Points of the candidate's line, in the form of SVG.
        across: Marks of the horizontal axis.
        up: Marks of the vertical axis.
    """

    label: str
    unit: str
    baseline: str
    candidate: str
    across: list[Tick]
    up: list[Tick]


def chart(curve: Curve) -> Chart:
    """The chart of a curve. Both axes start at 0."""
    widest = max(curve.points)
    highest = max(*curve.baseline, *curve.candidate, 1.0)
    across = [Tick(WIDTH * k / widest, f"{k:g}") for k in _ticks(widest)]
    up = [Tick(HEIGHT * value / highest, f"{value:g}") for value in _ticks(highest)]

    def line(values: Sequence[float]) -> str:
        return " ".join(
            f"{WIDTH * k / widest:.1f},{HEIGHT - HEIGHT * value / highest:.1f}"
            for k, value in zip(curve.points, values, strict=True)
        )

    return Chart(curve.label, curve.unit, line(curve.baseline), line(curve.candidate), across, up)


def _ticks(highest: float) -> list[float]:
    """Round values from 0 to at most `highest`, at most five."""
    step = next(step for step in _round_steps() if highest / step <= _TICKS)
    return [number * step for number in range(int(highest / step) + 1)]


def _round_steps() -> Iterator[float]:
    power = 1
    while True:
        yield from (power * step for step in _STEPS)
        power *= 10
