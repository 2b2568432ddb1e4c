"""The result of one benchmark: metrics with intervals, notes about them, and every sample."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napo_bench.core.counts import CountTable
from napo_bench.core.errors import NapoBenchError

if TYPE_CHECKING:
    from napo_bench.core.judge_noise import NoiseIntervals

SAMPLES_NOT_PICTURES = "the intervals of an earlier version resample answers, not pictures: they may be too narrow"

_MOST = 1e9  # of a count
_COST = re.compile(r"\d+ judge replies, \d+ prompt tokens and \d+ completion tokens$")


@dataclass(frozen=True)
class MetricValue:
    """One number of a benchmark.

    Attributes:
        value: Value in the benchmark's published unit.
        ci95: 95% bootstrap interval, (low, high), same unit.
        n: Number of samples that the metric covers (the denominator in sampling units, not in mentions).
        clusters: Number of clusters of these samples, which the interval resamples: pictures, if a benchmark asks
            several questions about a picture. None in a run of an earlier version, whose intervals resample samples.
        noise: What samples and judges each add to the interval, if every answer has several ratings; else None. `ci95`
            is then the interval of both.
    """

    value: float
    ci95: tuple[float, float]
    n: int
    clusters: int | None = None
    noise: NoiseIntervals | None = None

    @property
    def size(self) -> str:
        """The number of samples, and of clusters if there are fewer: "14216 in 1004"."""
        return size_text(self.n, self.clusters)


@dataclass
class BenchmarkResult:
    """One benchmark of a run.

    Attributes:
        metrics: Name -> value.
        breakdown: Group ("concept/colour", "style/cartoon", "question_type/counting") -> metric -> value.
        complete: Whether the scores are over the whole benchmark.
        notes: Lines about missing ids, empty responses and other limits.
        doubts: Lines with reasons why the numbers are no measurement. A gate refuses to judge such numbers.
        settings: Settings that must be equal in two comparable results (text pipeline and versions, CHAIR definition,
            judge model, generation profile).
        unanswered: {"sample_id", "reason"} of each prompt without an answer, and of each prompt whose answer no judge
            rates. The metrics leave these prompts out.
        samples: Rows of the sampling units: {"sample_id", "unit", "counts", "image", ...details for the
            explorer}. "cluster" says which samples depend on each other, if it is not the image.
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
    def mapped_from(self) -> str:
        """The rater whose ratings were mapped onto another rater's (`napo-bench judge map`); "" if none were.

        A mapped result has no samples.
        """
        return str(self.settings.get("mapped", {}).get("from", ""))

    @property
    def remarks(self) -> list[str]:
        """Remarks about the numbers: the doubts, and the notes except those about a judge's costs."""
        early = any(value.clusters is None for value in self.metrics.values())
        notes = [note for note in self.notes if not _COST.search(note)]
        return [*self.doubts, *notes, *([SAMPLES_NOT_PICTURES] if early else [])]


def size_text(n: int, clusters: int | None) -> str:
    """A number of samples, and of clusters if there are fewer: "14216 in 1004"."""
    return f"{n}" if clusters in (None, n) else f"{n} in {clusters}"


def counts_of(samples: Sequence[Mapping[str, Any]], where: str) -> CountTable:
    """The counts of the samples of a run.

    Args:
        samples: Samples with "counts".
        where: The run and the benchmark, for the message.

    Raises:
        NapoBenchError: a sample's counts are no numbers from 0 to 10^9 by name.
    """
    rows = [sample["counts"] for sample in samples]
    try:
        table = CountTable.of(rows)
        if not (table.values > _MOST).any() and (table.values >= 0).all():
            return table
    except (AttributeError, TypeError, ValueError, OverflowError):
        pass
    wrong = next(sample for sample in samples if not _are_counts(sample["counts"]))
    raise NapoBenchError(
        f"{where}: the counts of the sample {wrong.get('sample_id')!r} are {wrong['counts']!r:.200}; numbers from 0 to "
        f"{_MOST:,.0f} by name are expected.",
        "The samples file was edited or damaged: score the responses again.",
    )


def _are_counts(counts: Any) -> bool:
    return isinstance(counts, Mapping) and all(
        isinstance(value, (int, float)) and 0 <= value <= _MOST for value in counts.values()
    )


def cluster_of(sample: Mapping[str, Any]) -> str:
    """The cluster of a sample: `cluster`, else its image, else the sample itself.

    Samples of one cluster are resampled together, because their answers depend on each other.
    """
    for name in ("cluster", "image"):
        if sample.get(name):
            return str(sample[name])
    return f"{sample.get('unit', '')} {sample['sample_id']}"
