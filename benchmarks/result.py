"""The result of one benchmark: metrics with intervals, what qualifies them, and every sample."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

_COST = re.compile(r"\d+ judge replies, \d+ prompt tokens and \d+ completion tokens$")


@dataclass(frozen=True)
class MetricValue:
    """One number of a benchmark.

    Attributes:
        value: In the benchmark's published unit.
        ci95: 95% bootstrap interval, (low, high), same unit.
        n: Samples that the number speaks of (its denominator in sampling units, not in mentions).
    """

    value: float
    ci95: tuple[float, float]
    n: int


@dataclass
class BenchmarkResult:
    """One benchmark of a run.

    Attributes:
        metrics: Name -> value; the names are those of the design.
        breakdown: Group ("concept/colour", "style/cartoon", "question_type/counting") -> metric -> value.
        complete: False where the scores are over a part of the benchmark.
        notes: One line each: what is missing, which ids, how many empty responses.
        doubts: Why the numbers are no measurement, one line each. A gate refuses to judge such numbers.
        settings: What must be equal for two results to share a row (text pipeline and versions, CHAIR definition,
            judge model, generation profile).
        unanswered: {"sample_id", "reason"} of each prompt that has no answer, or whose answer no judge rates; the
            metrics leave it out.
        samples: One row a sampling unit: {"sample_id", "unit", "counts", ...details for the explorer}.
    """

    metrics: dict[str, MetricValue]
    breakdown: dict[str, dict[str, MetricValue]] = field(default_factory=dict)
    complete: bool = True
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    unanswered: list[dict[str, str]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """What qualifies the numbers: the doubts, and the notes except what a judge cost."""
        return [*self.doubts, *(note for note in self.notes if not _COST.search(note))]
