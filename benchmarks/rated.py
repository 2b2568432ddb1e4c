"""How the raters of a benchmark are compared and mapped: LLM judges, extractors, and humans."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napo_bench.core.errors import NapoBenchError

if TYPE_CHECKING:
    from napo_bench.benchmarks.result import BenchmarkResult

Counts = Mapping[str, float]
"""The counts of one answer, by one rater."""

Raters = Mapping[str, Mapping[str, Mapping[Hashable, Counts]]]
"""Rater -> id of the sample -> what tells the rater's ratings of one answer apart -> counts.

Two runs can have one rating, because a judge's reply is kept and used again: equal keys are one rating.
"""


@dataclass(frozen=True)
class Steps:
    """A count that another rater's level predicts: one mean for each level, and the means never turn back.

    Attributes:
        by: Count of the first rater, a whole number, whose values are the levels.
        rising: Whether the means rise with the level; else they fall.
        top: Highest level, which also contains every larger number; None if there is no larger number.
    """

    by: str
    rising: bool = True
    top: int | None = None

    def level(self, counts: Counts) -> int:
        """The level of an answer with these counts of the first rater."""
        value = int(counts[self.by])
        return value if self.top is None else min(value, self.top)

    def text(self, level: int) -> str:
        """A level in words."""
        return f"{level} or more" if level == self.top else f"{level}"


@dataclass(frozen=True)
class Line:
    """A count that another rater's count predicts by a straight line that does not fall.

    Attributes:
        by: Count of the first rater.
    """

    by: str


@dataclass(frozen=True)
class Rated:
    """How the ratings of a benchmark are read, compared and mapped.

    Attributes:
        columns: Column of a file of ratings -> lowest and highest whole number; None has no highest.
        counts: Values of the columns -> counts of the answer. Raises ValueError if the values contradict each other.
        rating: Count that `agree` takes as the ordered rating.
        flag: Count that is 1 if the rater says that the answer hallucinates.
        predicted: Count of the second rater -> how the first rater's counts predict it.
        fixed: Counts that are equal for every rater.
        metrics: Metrics that can be mapped. The first one decides whether the ratings are enough.
        precision: Half width of the 95% interval that the map alone may give to the first metric, in its unit.
        settings: Settings of a result that name its raters.
        settings_of: Name of a rater, settings of a result -> the settings that name this rater alone. Empty settings
            are those of a rater who is known from a file of ratings.
        raters: Result of a run -> the ratings in its samples.

    Raises:
        NapoBenchError: there is no metric, no count that is equal for every rater, or no count with levels.
    """

    columns: Mapping[str, tuple[int, int | None]]
    counts: Callable[..., Counts]
    rating: str
    flag: str
    predicted: Mapping[str, Steps | Line]
    fixed: tuple[str, ...]
    metrics: tuple[str, ...]
    precision: float
    settings: tuple[str, ...]
    settings_of: Callable[[str, Mapping[str, Any]], dict[str, Any]]
    raters: Callable[[BenchmarkResult], Raters]

    def __post_init__(self) -> None:
        if not self.metrics or not self.fixed or not any(isinstance(how, Steps) for how in self.predicted.values()):
            raise NapoBenchError(
                "Rated needs a metric, a count that is equal for every rater (fixed), and a count with levels (Steps)."
            )
