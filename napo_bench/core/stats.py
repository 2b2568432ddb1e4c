"""Confidence intervals and paired tests of benchmark metrics.

Every metric of the project is a function of sums of per-sample counts: CHAIRi is hallucinated mentions over all
mentions, LP a sum of shares over the number of eligible instances. A sample is therefore one row of counts `[K]`, a
bootstrap resample is one vector of K sums, and so is one exchange of the labels of paired samples. Rows that are equal
are interchangeable, so a resample is drawn as one multinomial over the distinct rows: exact, and independent of
how many samples share a row. If few samples share a row, clusters are drawn one by one, which is faster.

Answers about one picture depend on each other. Samples of one cluster are therefore added up first (`by_cluster`), and
then whole clusters are resampled or exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sums = Mapping[str, Any]
MetricFunction = Callable[[Sums], Any]
Array = NDArray[np.float64]

_CELLS_A_CHUNK = 4_000_000
_SHARED = 2  # clusters a distinct row, above which a multinomial draws faster than cluster by cluster
_ROUNDING = 1e-9
_NO_WIDTH = 1e-3  # AMBER's denominators start at 0.001, so a constant 100% still varies by this much


@dataclass(frozen=True)
class Span:
    """Bounds of a metric, for the case that all clusters agree and a resample cannot vary.

    Attributes:
        low: Lowest value of the metric.
        high: Highest value of the metric.
        n: Number of clusters that the metric covers.
    """

    low: float
    high: float
    n: float


def by_cluster(rows: Sequence[Mapping[str, float]], clusters: Sequence[Hashable]) -> list[dict[str, float]]:
    """The summed counts of each cluster, in the order in which the clusters first occur.

    Args:
        rows: Counts of each sample.
        clusters: Cluster of each sample.
    """
    sums: dict[Hashable, dict[str, float]] = {}
    for row, cluster in zip(rows, clusters, strict=True):
        total = sums.setdefault(cluster, {})
        for name, value in row.items():
            total[name] = total.get(name, 0.0) + value
    return list(sums.values())


def count_matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    """The counts of the samples as `[N, K]`; a count that a sample lacks is 0."""
    return np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64).reshape(
        len(rows), len(names)
    )


def bootstrap_intervals(
    rows: Sequence[Mapping[str, float]],
    metrics: Mapping[str, MetricFunction],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    spans: Mapping[str, Span] | None = None,
) -> dict[str, tuple[float, float]]:
    """Bias-corrected and accelerated (BCa) bootstrap intervals of metrics that share their samples.

    If all clusters agree (0% or 100%), every resample is equal and a bootstrap interval has no width. For a metric with
    a span the interval is then the exact bound of a proportion after n equal outcomes: the share of different clusters
    is at most 1 - tail^(1/n), and these clusters may have the metric's lowest or highest value.

    A resample in which a metric is undefined (0 / 0) does not count for that metric.

    Args:
        rows: Counts of each cluster.
        metrics: Name -> function of the summed counts; it must accept arrays `[B]` as sums.
        resamples: Number of resamples.
        seed: Of the generator.
        level: Coverage, a fraction.
        spans: Bounds of metrics, by name; a metric without bounds keeps an interval without width.

    Returns:
        Name -> (low, high), in the metric's unit.

    Raises:
        ValueError: a metric is undefined in every resample.
    """
    if not rows:
        return {}
    names = sorted({name for row in rows for name in row})
    distinct, frequency = _distinct(count_matrix(rows, names))
    sums = _resample(distinct, frequency, resamples, np.random.default_rng(seed))
    total = frequency @ distinct
    intervals = {}
    for name, metric in metrics.items():
        value = float(metric(_columns(total, names)))
        resampled = _values(metric, sums, names)
        resampled = resampled[np.isfinite(resampled)]
        if not len(resampled):
            raise ValueError(f"the metric {name} is defined in no resample of {len(rows)} clusters")
        if np.ptp(resampled) > _NO_WIDTH:
            intervals[name] = _bca(value, resampled, level)
        elif spans is not None and name in spans:
            span = spans[name]
            share = unseen_share(span.n, (1 - level) / 2)
            intervals[name] = (value - share * (value - span.low), value + share * (span.high - value))
        else:
            intervals[name] = (value, value)
    return intervals


def paired_intervals(
    candidate: Sequence[Mapping[str, float]],
    baseline: Sequence[Mapping[str, float]],
    metrics: Mapping[str, MetricFunction],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
    spans: Mapping[str, Span] | None = None,
) -> dict[str, tuple[float, float]]:
    """BCa bootstrap intervals of candidate - baseline, pairs of clusters drawn together.

    Args:
        candidate: Counts of each cluster of the candidate.
        baseline: Counts of the same clusters, in the same order, of the baseline.
        metrics: Name -> function of the summed counts.
        resamples: Number of resamples.
        seed: Of the generator.
        level: Coverage, a fraction.
        spans: Bounds of the metrics (not of their differences), by name.

    Returns:
        Name -> (low, high), in the metric's unit; empty if there are no clusters.
    """
    pairs = [
        {f"candidate {name}": value for name, value in new.items()}
        | {f"baseline {name}": value for name, value in old.items()}
        for new, old in zip(candidate, baseline, strict=True)
    ]
    differences = {name: _difference_of(metric) for name, metric in metrics.items()}
    widths = {name: span.high - span.low for name, span in (spans or {}).items()}
    gaps = {name: Span(-width, width, (spans or {})[name].n) for name, width in widths.items()}
    return bootstrap_intervals(pairs, differences, resamples, seed, level, gaps)


def resampled_together(
    runs: Sequence[Sequence[Mapping[str, float]]], metric: MetricFunction, resamples: int = 10_000, seed: int = 0
) -> Array:
    """A metric of several runs in the same bootstrap resamples, as `[B, R]`.

    A resample in which the metric of a run is undefined (0 / 0) is left out.

    Args:
        runs: Counts of each cluster in each run; the same clusters in the same order.
        metric: Function of the summed counts.
        resamples: Number of resamples.
        seed: Seed of the generator.
    """
    names = sorted({name for rows in runs for row in rows for name in row})
    counts = np.concatenate([count_matrix(rows, names) for rows in runs], axis=1)
    sums = _resample(*_distinct(counts), resamples, np.random.default_rng(seed))
    values = np.stack([_values(metric, part, names) for part in np.split(sums, len(runs), axis=1)], axis=1)
    return values[np.isfinite(values).all(axis=1)]


def permutation_p_values(
    candidate: Sequence[Mapping[str, float]],
    baseline: Sequence[Mapping[str, float]],
    metrics: Mapping[str, MetricFunction],
    permutations: int = 10_000,
    seed: int = 0,
) -> dict[str, float]:
    """Two-sided p-values of paired permutation tests: are the two runs interchangeable?

    In each permutation every pair of clusters exchanges its labels with probability 1/2.

    Args:
        candidate: Counts of each cluster of the candidate.
        baseline: Counts of the same clusters, in the same order, of the baseline.
        metrics: Name -> function of the summed counts.
        permutations: Number of permutations.
        seed: Of the generator.

    Returns:
        Name -> p-value, at least 1 / (permutations + 1).
    """
    names = sorted({name for row in (*candidate, *baseline) for name in row})
    new, old = count_matrix(candidate, names), count_matrix(baseline, names)
    gains, frequency = _distinct(new - old)
    moved = np.any(gains != 0, axis=1)
    gains, frequency = gains[moved], frequency[moved]
    generator = np.random.default_rng(seed)
    parts = [
        generator.binomial(frequency, 0.5, (size, len(frequency))) @ gains for size in _chunks(permutations, gains)
    ]
    exchanged = np.concatenate(parts)
    new_sums, old_sums = new.sum(axis=0), old.sum(axis=0)
    p_values = {}
    for name, metric in metrics.items():
        difference = float(metric(_columns(new_sums, names))) - float(metric(_columns(old_sums, names)))
        permuted = _values(metric, new_sums - exchanged, names) - _values(metric, old_sums + exchanged, names)
        extreme = int(np.count_nonzero(np.abs(permuted) >= abs(difference) - _ROUNDING))
        p_values[name] = (extreme + 1) / (permutations + 1)
    return p_values


def mcnemar(only_candidate: int, only_baseline: int) -> float:
    """Two-sided p-value of the exact McNemar test.

    Args:
        only_candidate: Samples that only the candidate passes.
        only_baseline: Samples that only the baseline passes.
    """
    changed = only_candidate + only_baseline
    ways = tail = 1
    for count in range(1, min(only_candidate, only_baseline) + 1):
        ways = ways * (changed - count + 1) // count
        tail += ways
    return min(1.0, float(2 * tail / 2**changed))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """P-values adjusted for multiple comparisons by Holm's step-down rule."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_value))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def unseen_share(n: float, tail: float) -> float:
    """The largest share of a kind of sample that is possible after n samples without that kind, at one-sided error
    `tail`.
    """
    return float(1 - tail ** (1 / n)) if n > 0 else 1.0


def _difference_of(metric: MetricFunction) -> MetricFunction:
    def difference(sums: Sums) -> Any:
        sides: dict[str, dict[str, Any]] = {"candidate": {}, "baseline": {}}
        for name, column in sums.items():
            side, _, count = name.partition(" ")
            sides[side][count] = column
        return metric(sides["candidate"]) - metric(sides["baseline"])

    return difference


def _distinct(counts: Array) -> tuple[Array, NDArray[np.int64]]:
    rows, frequency = np.unique(counts, axis=0, return_counts=True)
    return rows, frequency


def _chunks(resamples: int, rows: Array) -> Iterator[int]:
    size = max(1, _CELLS_A_CHUNK // max(1, len(rows)))
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _resample(rows: Array, frequency: NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Array:
    n = int(frequency.sum())
    draw = _draw_multinomial if n > _SHARED * len(rows) else _draw_one_by_one
    return np.concatenate([draw(frequency, size, generator) @ rows for size in _chunks(resamples, rows)])


def _draw_multinomial(frequency: NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Array:
    """How often each resample contains each distinct row, `[B, D]`. The cost grows with D."""
    n = int(frequency.sum())
    return generator.multinomial(n, frequency / n, size=resamples).astype(np.float64)


def _draw_one_by_one(frequency: NDArray[np.int64], resamples: int, generator: np.random.Generator) -> Array:
    """As `_draw_multinomial`. The cost grows with n, but a draw costs a fifth of a binomial."""
    row_of = np.repeat(np.arange(len(frequency)), frequency)
    drawn = row_of[generator.integers(0, len(row_of), (resamples, len(row_of)), dtype=np.uint32)]
    drawn += len(frequency) * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * len(frequency))
    return counts.reshape(resamples, len(frequency)).astype(np.float64)


def _columns(sums: Array, names: Sequence[str]) -> dict[str, Any]:
    return {name: sums[..., index] for index, name in enumerate(names)}


def _values(metric: MetricFunction, sums: Array, names: Sequence[str]) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(metric(_columns(sums, names)), dtype=np.float64)
    return np.broadcast_to(values, (len(sums),))


def _bca(value: float, resampled: Array, level: float) -> tuple[float, float]:
    """Efron's BCa interval; the acceleration is a sixth of the skewness of the resampled metric `[B]`.

    For sums this equals the jackknife's acceleration. Unlike the jackknife, this also works for rounded metrics.
    """
    normal = NormalDist()
    below = np.mean(resampled < value - _ROUNDING) + np.mean(np.abs(resampled - value) <= _ROUNDING) / 2
    bias = normal.inv_cdf(float(np.clip(below, 1 / len(resampled), 1 - 1 / len(resampled))))
    centred = resampled - resampled.mean()
    skew = float(np.mean(centred**3) / np.mean(centred**2) ** 1.5) / 6
    percentiles = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        shifted = bias + normal.inv_cdf(tail)
        percentiles.append(100 * normal.cdf(bias + shifted / (1 - skew * shifted)))
    low, high = np.percentile(resampled, percentiles)
    return (float(low), float(high))
