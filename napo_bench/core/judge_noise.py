"""Intervals of scores that are means over ratings: what is due to the samples, and what is due to the judges.

A score is a mean over answers, judges and repetitions. Three things vary: the pictures, the judges, and the ratings
that one judge gives to one answer. The bootstrap over pictures contains the pictures, and also the ratings, because
every picture comes with its ratings. It does not contain that other judges are stricter or kinder to all answers.
See docs/reports.md for the coverage of the intervals.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from napo_bench.core import stats
from napo_bench.core.counts import Array, CountTable

Interval = tuple[float, float]

_RESAMPLES = 2_000
_CELLS_A_CHUNK = 4_000_000


@dataclass(frozen=True)
class NoiseIntervals:
    """95% intervals of one score.

    Attributes:
        samples: For other pictures, and these judges without the noise of single ratings.
        judge: For these pictures, and other ratings: of other judges if there are several, else of the same judge.
        both: For other pictures and other ratings; contains the two other intervals.
    """

    samples: Interval
    judge: Interval
    both: Interval


def noise_intervals(
    ratings: Sequence[Sequence[Sequence[Mapping[str, float]]]],
    clusters: Sequence[Hashable],
    metrics: Mapping[str, stats.MetricFunction],
    pictures: Mapping[str, Interval],
    ends: Mapping[str, Interval],
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, NoiseIntervals]:
    """The parts of the intervals of scores that are means over several ratings.

    With V_p the variance over resampled pictures, V_r the variance over resampled repetitions, s^2 the variance of the
    judges' scores, and J the number of judges:

    - `samples` is the interval over pictures, narrowed by sqrt(1 - V_r / V_p).
    - `judge` of one judge is the percentile interval over resampled repetitions. For several judges it is Student's t
      over their scores, value +- t(J - 1) s / sqrt(J).
    - `both` of one judge is the interval over pictures. For several judges it is this interval, widened to the variance
      V_p + s^2 / J with Satterthwaite's degrees of freedom.
    - `both` is extended to contain `samples` and `judge`. With few judges, Student's t of the judges alone can be wider
      than the widened interval, which has more degrees of freedom.

    Args:
        ratings: Counts `[J][N][K]` of each judge, answer and repetition.
        clusters: Cluster of each answer.
        metrics: Name -> function of the summed counts.
        pictures: Name -> interval of the bootstrap over pictures.
        ends: Name -> lowest and highest value of the metric.
        seed: Seed of the generator.
        level: Coverage of the intervals, a fraction.

    Returns:
        Name -> intervals; empty if every answer has one rating.
    """
    judges, repeats = len(ratings), max((len(own) for judge in ratings for own in judge), default=0)
    if judges * repeats < 2:
        return {}
    table = CountTable.of([counts for judge in ratings for own in judge for counts in own])
    names = sorted(table.names)
    counts = table.columns(names).reshape(judges, len(ratings[0]), repeats, len(names))
    of_mean = CountTable(names, counts.mean(axis=(0, 2))).by_cluster(clusters)
    generator = np.random.default_rng(seed)
    repeated = _resampled_repeats(counts, generator) if repeats > 1 else None
    found = {}
    for name, metric in metrics.items():
        value = _of(metric, counts.mean(axis=(0, 2)).sum(axis=0), names)
        over_pictures = float(np.var(stats.resampled_together([of_mean], metric, _RESAMPLES, seed)))
        drawn = None if repeated is None else _of_each(metric, repeated, names)
        over_repeats = 0.0 if drawn is None else float(np.var(drawn))
        kept = max(0.0, 1 - over_repeats / over_pictures) ** 0.5 if over_pictures > 0 else 1.0
        judge = both = pictures[name]
        if judges > 1:
            scores = [_of(metric, judge_counts.mean(axis=1).sum(axis=0), names) for judge_counts in counts]
            over_judges = float(np.var(scores, ddof=1)) / judges
            judge = _around(value, _t(judges - 1, level) * over_judges**0.5, ends[name])
            both = _widened(
                value, pictures[name], over_pictures, over_judges, (len(of_mean), judges), level, ends[name]
            )
        elif drawn is not None:
            tail = 50 * (1 - level)
            low, high = np.percentile(drawn, [tail, 100 - tail])
            judge = (float(low), float(high))
        samples = _scaled(value, pictures[name], kept, ends[name])
        found[name] = NoiseIntervals(samples, judge, _envelope(both, samples, judge))
    return found


def _resampled_repeats(counts: Array, generator: np.random.Generator) -> Array:
    """Sums of counts `[B, C]` of resampled repetitions: K - 1 of the K ratings of each judge and answer, drawn with
    replacement. So the variance of the sums is the unbiased estimate, also for two repetitions.

    Args:
        counts: Counts `[J, N, K, C]`.
        generator: Generator.
    """
    judges, answers, repeats, kinds = counts.shape
    rows = counts.reshape(judges * answers, repeats, kinds)
    chunk = max(1, _CELLS_A_CHUNK // (judges * answers * repeats))
    shares, parts = [1 / repeats] * repeats, []
    for start in range(0, _RESAMPLES, chunk):
        size = (min(chunk, _RESAMPLES - start), judges * answers)
        drawn = generator.multinomial(repeats - 1, shares, size=size) / (repeats - 1)
        parts.append(np.tensordot(drawn, rows, axes=([1, 2], [0, 1])) / judges)
    return np.concatenate(parts)


def _of(metric: stats.MetricFunction, sums: Array, names: Sequence[str]) -> float:
    return float(_of_each(metric, sums, names))


def _of_each(metric: stats.MetricFunction, sums: Array, names: Sequence[str]) -> Array:
    """The metric of sums `[..., C]`; sums for which the metric is undefined (0 / 0) are left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.asarray(metric({name: sums[..., index] for index, name in enumerate(names)}), dtype=np.float64)
    return values if values.ndim == 0 else values[np.isfinite(values)]


def _widened(
    value: float,
    pictures: Interval,
    over_pictures: float,
    over_judges: float,
    sizes: tuple[int, int],
    level: float,
    ends: Interval,
) -> Interval:
    """The interval over pictures, widened by the variance over judges."""
    clusters, judges = sizes
    variance = over_pictures + over_judges
    if over_pictures == 0 or variance == 0:
        reach = _t(judges - 1, level) * over_judges**0.5
        return max(ends[0], pictures[0] - reach), min(ends[1], pictures[1] + reach)
    freedom = variance**2 / (over_pictures**2 / max(1, clusters - 1) + over_judges**2 / (judges - 1))
    factor = _t(freedom, level) / NormalDist().inv_cdf((1 + level) / 2) * (variance / over_pictures) ** 0.5
    return _scaled(value, pictures, factor, ends)


def _t(freedom: float, level: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, freedom))


def _around(value: float, reach: float, ends: Interval) -> Interval:
    return max(ends[0], value - reach), min(ends[1], value + reach)


def _envelope(*intervals: Interval) -> Interval:
    """The smallest interval that contains all of these."""
    lows, highs = zip(*intervals, strict=True)
    return min(lows), max(highs)


def _scaled(value: float, interval: Interval, factor: float, ends: Interval) -> Interval:
    """The interval with its distances to the value times a factor."""
    low, high = (value + factor * (end - value) for end in interval)
    return max(ends[0], low), min(ends[1], high)
