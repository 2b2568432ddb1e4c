"""Confidence intervals of benchmark metrics.

Every metric of the project is a function of sums of per-sample counts: CHAIRi is hallucinated mentions over all mentions,
LP a sum of shares over the number of eligible instances. A sample is therefore one row of counts `[K]`, and a bootstrap
resample is one vector of K sums. Rows that are equal are interchangeable, so a resample is drawn as one multinomial
over the distinct rows: exact, and independent of how many samples share a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sums = Mapping[str, Any]
MetricFunction = Callable[[Sums], Any]


def count_matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> NDArray[np.float64]:
    """The counts of the samples as `[N, K]`; a count that a sample lacks is 0."""
    return np.array([[row.get(name, 0.0) for name in names] for row in rows], dtype=np.float64).reshape(
        len(rows), len(names)
    )


def bootstrap_sums(counts: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Sums of counts over bootstrap resamples of the samples.

    Args:
        counts: `[N, K]`, one row a sample (the unit that is drawn with replacement).
        resamples: B.
        seed: Of the generator; the same seed gives the same sums.

    Returns:
        `[B, K]`.
    """
    n = len(counts)
    rows, frequency = np.unique(counts, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(n, frequency / n, size=resamples)
    return np.asarray(draws @ rows, dtype=np.float64)


def bootstrap_intervals(
    rows: Sequence[Mapping[str, float]],
    metrics: Mapping[str, MetricFunction],
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of metrics that share their samples.

    Args:
        rows: One mapping of counts a sample.
        metrics: Name -> function of the summed counts; it must accept arrays `[B]` as sums.
        resamples: Number of resamples.
        seed: Of the generator.
        level: Coverage, a fraction.

    Returns:
        Name -> (low, high), in the metric's unit.
    """
    if not rows:
        return {}
    names = sorted({name for row in rows for name in row})
    sums = bootstrap_sums(count_matrix(rows, names), resamples, seed)
    columns = {name: sums[:, index] for index, name in enumerate(names)}
    tails = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    intervals = {}
    for name, metric in metrics.items():
        low, high = np.percentile(np.broadcast_to(metric(columns), (resamples,)), tails)
        intervals[name] = (float(low), float(high))
    return intervals
