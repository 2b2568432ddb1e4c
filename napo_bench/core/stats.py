"""Confidence intervals and paired tests of benchmark metrics.

Every metric of the project is a function of sums of per-sample counts: CHAIRi is hallucinated mentions over all
mentions, LP a sum of shares over the number of eligible instances. A sample is therefore one row of counts `[K]`, a
bootstrap resample is one vector of K sums, and so is one exchange of the labels of paired samples. See `core/draws.py`.

Answers about one picture depend on each other. Samples of one cluster are therefore added up first (`by_cluster`), and
then whole clusters are resampled or exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from napo_bench.core.counts import Array, CountTable
from napo_bench.core.draws import distinct, distinct_clusters, exchanged, resampled

Sums = Mapping[str, Any]
MetricFunction = Callable[[Sums], Any]

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


def by_cluster(rows: Sequence[Mapping[str, float]], clusters: Sequence[Hashable]) -> CountTable:
    """The summed counts of each cluster, in the order in which the clusters first occur.

    Args:
        rows: Counts of each sample.
        clusters: Cluster of each sample.
    """
    return CountTable.of(rows).by_cluster(clusters)


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
    return _intervals([rows], metrics, resamples, seed, level, spans)


def _intervals(
    sides: Sequence[Sequence[Mapping[str, float]]],
    metrics: Mapping[str, Callable[..., Any]],
    resamples: int,
    seed: int,
    level: float,
    spans: Mapping[str, Span] | None,
) -> dict[str, tuple[float, float]]:
    """BCa intervals of functions of the sums of every side. See `bootstrap_intervals`."""
    names, counts, frequency = distinct_clusters(sides)
    sums = resampled(counts, frequency, resamples, np.random.default_rng(seed))
    total = np.tensordot(frequency, counts, 1)
    intervals = {}
    for name, metric in metrics.items():
        value = float(metric(*_sides(total, names)))
        values = _values(metric, sums, names)
        values = values[np.isfinite(values)]
        if not len(values):
            raise ValueError(f"the metric {name} is defined in no resample of {len(sides[0])} clusters")
        if np.ptp(values) > _NO_WIDTH:
            intervals[name] = _bca(value, values, level)
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
    if not candidate:
        return {}
    gaps = {name: Span(span.low - span.high, span.high - span.low, span.n) for name, span in (spans or {}).items()}
    differences = {name: _difference_of(metric) for name, metric in metrics.items()}
    return _intervals([baseline, candidate], differences, resamples, seed, level, gaps)


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
    names, counts, frequency = distinct_clusters(runs)
    sums = resampled(counts, frequency, resamples, np.random.default_rng(seed))
    values = np.stack([_values(metric, sums[:, [run]], names) for run in range(len(runs))], axis=1)
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
    names, counts, frequency = distinct_clusters([candidate, baseline])
    sums = np.tensordot(frequency, counts, 1)
    gains, frequency = distinct(counts[:, 0] - counts[:, 1], frequency)
    moved = np.any(gains != 0, axis=1)
    gains, frequency = gains[moved], frequency[moved]
    generator = np.random.default_rng(seed)
    moves = exchanged(gains, frequency, permutations, generator)
    permuted_sums = sums + np.stack([-moves, moves], axis=1)
    p_values = {}
    for name, metric in metrics.items():
        difference, permuted = (
            _values(metric, part[..., [0], :], names) - _values(metric, part[..., [1], :], names)
            for part in (sums, permuted_sums)
        )
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


def ratio_interval(top: float, bottom: float, covariance: Array, quantile: float) -> tuple[float, float]:
    """Fieller's interval of top / bottom: the ratios r for which top - r * bottom does not differ from 0.

    A bootstrap of the ratio itself fails if a resample's denominator can be near 0.

    Args:
        top: Estimate of the numerator.
        bottom: Estimate of the denominator.
        covariance: Covariance of the two estimates, `[2, 2]`.
        quantile: Quantile of the estimates' standardized errors, 1.96 for a 95% interval of normal errors.

    Returns:
        (low, high); (-inf, inf) if the denominator does not differ from 0.
    """
    (var_top, both), (_, var_bottom) = covariance * quantile**2
    a, b, c = bottom**2 - var_bottom, top * bottom - both, top**2 - var_top  # the interval is a r^2 - 2 b r + c <= 0
    if a <= 0:
        return -math.inf, math.inf
    reach = math.sqrt(max(b**2 - a * c, 0.0))
    return float((b - reach) / a), float((b + reach) / a)


def unseen_share(n: float, tail: float) -> float:
    """The largest share of a kind of sample that is possible after n samples without that kind, at one-sided error
    `tail`.
    """
    return float(1 - tail ** (1 / n)) if n > 0 else 1.0


def _difference_of(metric: MetricFunction) -> Callable[[Sums, Sums], Any]:
    return lambda baseline, candidate: metric(candidate) - metric(baseline)


def _sides(sums: Array, names: Sequence[str]) -> list[dict[str, Any]]:
    """The summed counts of each side by name, from `[..., S, K]`."""
    return [{name: sums[..., side, index] for index, name in enumerate(names)} for side in range(sums.shape[-2])]


def _values(metric: Callable[..., Any], sums: Array, names: Sequence[str]) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(metric(*_sides(sums, names)), dtype=np.float64)
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
