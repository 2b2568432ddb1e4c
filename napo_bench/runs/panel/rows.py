"""The rows of a panel: measures of two runs, with the paired interval of their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napo_bench.benchmarks.reading import Reading
from napo_bench.core import stats

Counts = dict[str, float]
Pair = tuple[Reading, Reading]
"""The candidate's answer to a question, and the baseline's."""

GAINS, CHOICES, CAPTIONS, CURVES, ALL = "Numbers", "Yes/no answers", "Captions", "Curves of captions", "All answers"
"""Titles of the parts of a panel."""
ALL_CAPTIONS, ALL_CHOICES, ALL_OTHERS = "All captions", "All yes/no answers", "All other answers"
"""Titles of the parts of a benchmark with answers of several kinds."""


@dataclass(frozen=True)
class Measure:
    """A number of a panel.

    Attributes:
        label: Label in tables.
        function: Function of the summed counts of one run.
        unit: "%" or "".
        decimals: Digits after the point.
    """

    label: str
    function: stats.MetricFunction
    unit: str = "%"
    decimals: int = 1


@dataclass(frozen=True)
class PanelRow:
    """A measure of two runs.

    Attributes:
        label: Label of the measure.
        baseline: Value of the baseline.
        candidate: Value of the candidate.
        interval: 95% interval of candidate - baseline.
        decimals: Digits after the point.
    """

    label: str
    baseline: float
    candidate: float
    interval: tuple[float, float]
    decimals: int

    @property
    def difference(self) -> float:
        """Candidate - baseline."""
        return self.candidate - self.baseline

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return not self.interval[0] <= 0 <= self.interval[1]

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """Baseline, candidate, difference and interval of the difference, as text."""
        number = f".{self.decimals}f"
        low, high = (plain_zero(f"{end:+{number}}") for end in self.interval)
        return (
            plain_zero(f"{self.baseline:{number}}"),
            plain_zero(f"{self.candidate:{number}}"),
            plain_zero(f"{self.difference:+{number}}"),
            f"[{low}, {high}]",
        )


@dataclass(frozen=True)
class Part:
    """Measures of one kind of answers.

    Attributes:
        title: Kind of the answers.
        rows: Measures.
    """

    title: str
    rows: list[PanelRow]

    def row(self, label: str) -> PanelRow:
        """The row with this label. Raises KeyError if there is none."""
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(label)


@dataclass(frozen=True)
class Curve:
    """A measure of captions that are cut after k words or k mentions.

    Attributes:
        label: Label of the measure.
        unit: "words" or "mentions".
        points: The numbers k, ascending.
        baseline: Value of the baseline at each point, in percent.
        candidate: Value of the candidate at each point, in percent.
    """

    label: str
    unit: str
    points: tuple[int, ...]
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]


@dataclass(frozen=True)
class Built:
    """What a kind of answers adds to the panel of a benchmark.

    Attributes:
        parts: Measures, by kind of answers.
        sentences: What is left of the gains, in words.
        notes: Measures that are left out, and the reason.
        curves: Curves over the length of captions.
    """

    parts: list[Part] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)


def measured(
    counts: Sequence[tuple[Counts, Counts]], clusters: Sequence[str], measures: Sequence[Measure]
) -> list[PanelRow]:
    """The measures of both runs.

    Args:
        counts: Counts of each answer in the candidate, and in the baseline.
        clusters: Cluster of each answer.
        measures: Measures to compute.
    """
    new, old = (stats.by_cluster([pair[side] for pair in counts], clusters) for side in (0, 1))
    functions = {measure.label: measure.function for measure in measures}
    intervals = stats.paired_intervals(new, old, functions)
    sums = [{name: np.float64(sum(row[name] for row in side)) for name in side[0]} for side in (new, old)]
    return [
        PanelRow(
            measure.label,
            float(measure.function(sums[1])),
            float(measure.function(sums[0])),
            intervals[measure.label],
            measure.decimals,
        )
        for measure in measures
    ]


def share(part: str, whole: str, unit: float = 100.0) -> stats.MetricFunction:
    """Unit * part / whole; 0 if whole is 0."""
    return lambda sums: unit * sums[part] / np.maximum(sums[whole], 1)


def plain_zero(text: str) -> str:
    """The number without the sign of a zero."""
    return text.lstrip("+-") if not text.strip("+-0.") else text
