"""Power: how many samples and how many trainings find a difference of a wanted size, from the variance of stored runs.

One training is compared with its baseline by the paired interval over samples (`compare`, `gate`), and several
trainings by Student's t over the trainings (`seeds.differences`). A difference is found if its interval excludes 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from napo_bench.benchmarks.metrics import Metric
from napo_bench.benchmarks.result import BenchmarkResult, size_text
from napo_bench.core import stats
from napo_bench.core.counts import CountTable
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.compare import (
    Pairs,
    pair_samples,
    require_no_doubt,
    require_same_data,
    require_same_settings,
    require_stated_values,
)
from napo_bench.runs.result import RunResult

FEWEST_CLUSTERS = 20
"""With fewer clusters the variance over clusters is unknown."""
FEWEST_TRAININGS = 3
"""With fewer trainings the variance between trainings is unknown."""

_TRAININGS = (2, 3, 5, 10, 20)
_MOST_TRAININGS = 1000
_MOST_TIMES = 10_000
_STEPS = 60
_SMALLEST = 1e-9


@dataclass(frozen=True)
class Wanted:
    """The experiment that a user plans.

    Attributes:
        difference: True difference to find, in the metric's unit.
        power: Share of experiments that find the difference, a fraction.
        alpha: Share of experiments that find a difference where there is none, two-sided, a fraction.
    """

    difference: float
    power: float = 0.8
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not (math.isfinite(self.difference) and self.difference > 0):
            raise NapoBenchError(
                f"--difference is {self.difference:g}; a number above 0 is expected.",
                "Give the smallest difference that matters, in the metric's unit: --difference 5",
            )
        if not 0 < self.alpha < 1:
            raise NapoBenchError(
                f"--alpha is {self.alpha:g}; a fraction between 0 and 1 is expected.", "For 5% give --alpha 0.05"
            )
        if not self.alpha < self.power < 1:
            raise NapoBenchError(
                f"--power is {self.power:g}; a fraction between --alpha ({self.alpha:g}) and 1 is expected.",
                "For 80% power give --power 0.8",
            )


@dataclass(frozen=True)
class Spread:
    """How much the difference of a metric to the baseline varies, measured on stored runs.

    Attributes:
        metric: The metric.
        samples: Number of samples that the runs share and that the metric is about.
        clusters: Number of clusters of these samples.
        differences: Difference of each training to the baseline.
        over_samples: Standard deviation of one training's difference over sets of as many samples.
        of_own_samples: The part of `over_samples` that trainings do not share, as a standard deviation.
        between_trainings: Standard deviation of the trainings' differences without `of_own_samples`; None if there are
            fewer than 3 trainings.
    """

    metric: Metric
    samples: int
    clusters: int
    differences: tuple[float, ...]
    over_samples: float
    of_own_samples: float
    between_trainings: float | None

    def power(self, wanted: Wanted, trainings: int, times: float = 1.0, difference: float | None = None) -> float:
        """Share of experiments that find a difference.

        Args:
            wanted: The planned experiment.
            trainings: Number of trainings.
            times: Number of samples, as a multiple of those of the runs.
            difference: True difference; None is the wanted one.
        """
        size = wanted.difference if difference is None else difference
        if trainings == 1:
            variance = max(self.over_samples**2, self._least_variance(size)) / times
            return _power_of_normal(size / math.sqrt(variance), wanted.alpha)
        own = self.of_own_samples**2 / times
        spread = math.sqrt((self.between_trainings or 0.0) ** 2 + own)
        return _power_of_t(size * math.sqrt(trainings) / max(spread, _SMALLEST), trainings - 1, wanted.alpha)

    def times_needed(self, wanted: Wanted, trainings: int) -> float | None:
        """How many times as many samples the wanted power needs; None if 10,000 times as many are too few."""
        return _smallest(lambda times: self.power(wanted, trainings, times) - wanted.power, 1 / self.clusters)

    def trainings_needed(self, wanted: Wanted) -> int | None:
        """The number of trainings, at least 2, that the wanted power needs with the runs' samples; None if 1,000 are
        too few.
        """
        if self.power(wanted, _MOST_TRAININGS) < wanted.power:
            return None
        low, high = 1, _MOST_TRAININGS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.power(wanted, middle) >= wanted.power else (middle, high)
        return high

    def detects(self, wanted: Wanted, trainings: int) -> float | None:
        """The smallest difference that the runs' samples find with the wanted power; None if that is more than the
        metric's range.
        """
        high = self.metric.high
        found = _smallest(
            lambda size: self.power(wanted, trainings, difference=size) - wanted.power, self.over_samples * 1e-3
        )
        return found if found is not None and (high is None or found <= high) else None

    def _least_variance(self, size: float) -> float:
        """The smallest variance that a true difference of this size can have with the runs' samples.

        If each sample passes or fails, a difference of 10 points means that 10% of the samples or more change.
        """
        if not self.metric.pass_fail or self.metric.high is None:
            return 0.0
        share = min(size / self.metric.high, 0.5)
        return self.metric.high**2 * share * (1 - share) / self.samples


@dataclass(frozen=True)
class Plan:
    """Power, and what the wanted power needs, for one number of trainings.

    Attributes:
        trainings: Number of trainings.
        power: Power with the runs' samples, a fraction.
        times: Needed samples as a multiple of the runs' samples; None if no number of samples is enough.
        samples: Needed samples.
        clusters: Number of clusters of the needed samples.
        detects: Smallest difference that the runs' samples find with the wanted power, in the metric's unit; None if
            that is more than the metric's range.
    """

    trainings: int
    power: float
    times: float | None
    samples: int | None
    clusters: int | None
    detects: float | None

    @property
    def size(self) -> str:
        """The needed samples, and their clusters if these are fewer: "14216 in 1004"; "none is enough" if there is no
        such number.
        """
        return "none is enough" if self.samples is None else size_text(self.samples, self.clusters)


@dataclass(frozen=True)
class PowerReport:
    """Samples and trainings for a wanted power.

    Attributes:
        wanted: The planned experiment.
        spread: Variance of the difference, measured on the runs.
        baseline: Value of the metric in the baseline.
        plans: A plan for each number of trainings; only for one training if the runs are of fewer than 3 trainings.
        trainings_needed: Number of trainings, at least 2, for the wanted power with the runs' samples; None if it is
            unknown, or more than 1,000.
        notes: Lines about the limits of the numbers.
    """

    wanted: Wanted
    spread: Spread
    baseline: float
    plans: list[Plan]
    trainings_needed: int | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON value."""
        spread = self.spread
        return {
            "metric": spread.metric.key,
            "difference": self.wanted.difference,
            "power": self.wanted.power,
            "alpha": self.wanted.alpha,
            "samples": spread.samples,
            "clusters": spread.clusters,
            "baseline": self.baseline,
            "differences": list(spread.differences),
            "sd_over_samples": spread.over_samples,
            "sd_of_own_samples": spread.of_own_samples,
            "sd_between_trainings": spread.between_trainings,
            "trainings_needed": self.trainings_needed,
            "plans": [
                {
                    "trainings": plan.trainings,
                    "power": plan.power,
                    "times_samples": plan.times,
                    "samples": plan.samples,
                    "clusters": plan.clusters,
                    "detects": plan.detects,
                }
                for plan in self.plans
            ],
            "notes": self.notes,
        }


def plan_power(metric: Metric, baseline: RunResult, trainings: Sequence[RunResult], wanted: Wanted) -> PowerReport:
    """Samples and trainings for a wanted power.

    Args:
        metric: The metric.
        baseline: Run that the trainings are compared with.
        trainings: Runs of the trainings of one method, one for each seed.
        wanted: The planned experiment.

    Raises:
        NapoBenchError: the runs are not comparable or too few, they share fewer than 20 clusters, or they do not
            differ.
    """
    if metric.high is not None and wanted.difference >= metric.high:
        raise NapoBenchError(
            f"--difference is {wanted.difference:g}, but {metric.key} is between 0 and {metric.high:g}.",
            f"Give a number below {metric.high:g}, in the metric's unit.",
        )
    if not trainings:
        raise NapoBenchError(
            "Power needs two runs or more: how much two runs differ on the same samples says how many samples a "
            "difference needs.",
            f"Give the baseline first: napo-bench power --metric {metric.key} --difference "
            f"{wanted.difference:g} BASELINE RUN",
        )
    pairs = _pairs(metric, baseline, trainings)
    spread, value = _spread(metric, pairs)
    notes = []
    counts = [1]
    needed = None
    if spread.between_trainings is None:
        have = f"{len(trainings)} training{'s' * (len(trainings) > 1)}"
        notes.append(
            f"Trainings of other seeds differ too. {have} cannot show how much: give {FEWEST_TRAININGS} runs of "
            "different seeds or more, after the baseline"
        )
    else:
        needed = spread.trainings_needed(wanted)
        counts += sorted({*_TRAININGS, *([needed] if needed else [])})
        low, high = _interval_of_sd(len(trainings))
        notes.append(
            f"The standard deviation over {len(trainings)} trainings is uncertain: the true one is {low:.2f} to "
            f"{high:.1f} times as large, with 95% confidence"
        )
    plans = [_plan(spread, wanted, count) for count in counts]
    return PowerReport(wanted, spread, value, plans, needed, notes)


def _pairs(metric: Metric, baseline: RunResult, trainings: Sequence[RunResult]) -> list[Pairs]:
    """The samples of the metric in each training and the baseline."""
    name = metric.benchmark
    found = []
    old = _measured(metric, baseline, "baseline")
    for number, run in enumerate(trainings, start=1):
        new = _measured(metric, run, f"training {number}")
        require_same_data(name, run, baseline)
        require_same_settings(name, new, old)
        found.append(pair_samples(name, new, old))
    return found


def _measured(metric: Metric, run: RunResult, which: str) -> BenchmarkResult:
    result = run.benchmarks.get(metric.benchmark)
    if result is None or metric.name not in result.metrics:
        there = ", ".join(f"{name}.{value}" for name, one in run.benchmarks.items() for value in one.metrics)
        raise NapoBenchError(
            f"The {which} has no {metric.key}.", f"It has: {there or 'none'}. Evaluate {metric.benchmark} too."
        )
    require_no_doubt(metric.benchmark, result, which)
    require_stated_values(metric.benchmark, result, which)
    return result


def _spread(metric: Metric, pairs: Sequence[Pairs]) -> tuple[Spread, float]:
    """How much the differences vary, and the baseline's value."""
    by_key = [dict(zip(pair.keys, pair.candidate, strict=True)) for pair in pairs]
    old = dict(zip(pairs[0].keys, pairs[0].baseline, strict=True))
    cluster = dict(zip(pairs[0].keys, pairs[0].clusters, strict=True))
    keys = [key for key in old if metric.count in old[key] and all(key in rows for rows in by_key)]
    sides = [[rows[key] for key in keys] for rows in (old, *by_key)]
    clusters = [cluster[key] for key in keys]
    number = len(set(clusters))
    if number < FEWEST_CLUSTERS:
        raise NapoBenchError(
            f"{metric.key}: the runs share {number} pictures; {FEWEST_CLUSTERS} or more are needed to say how much a "
            "difference varies.",
            "Evaluate more of the benchmark.",
        )
    for first in range(1, len(sides)):
        for second in range(first + 1, len(sides)):
            if sides[first] == sides[second]:
                raise NapoBenchError(
                    f"{metric.key}: trainings {first} and {second} have the same result on every sample.",
                    "Give each training once, each with its own seed.",
                )
    summed = [stats.by_cluster(side, clusters) for side in sides]
    totals = [_total(side) for side in summed]
    values = [float(metric.function(total)) for total in totals]
    resampled = stats.resampled_together(summed, metric.function)
    gaps = resampled[:, 1:] - resampled[:, :1]
    if len(gaps) < 2 or not np.isfinite(values).all():
        raise NapoBenchError(f"{metric.key} is undefined on the samples that the runs share.")
    covariance = np.atleast_2d(np.cov(gaps, rowvar=False))
    over_samples = float(np.trace(covariance)) / len(pairs)
    if over_samples <= _SMALLEST:
        raise NapoBenchError(
            f"{metric.key}: the runs have the same result on every sample, so nothing says how much a difference "
            "varies.",
            "Give two runs that differ, for example the base and a trained checkpoint.",
        )
    differences = tuple(value - values[0] for value in values[1:])
    own, between = 0.0, None
    if len(pairs) >= FEWEST_TRAININGS:
        common = float(covariance[~np.eye(len(pairs), dtype=bool)].mean())
        own = max(0.0, over_samples - common)
        between = math.sqrt(max(0.0, float(np.var(differences, ddof=1)) - own))
    spread = Spread(metric, len(keys), number, differences, math.sqrt(over_samples), math.sqrt(own), between)
    return spread, values[0]


def _total(rows: CountTable) -> dict[str, float]:
    return {name: math.fsum(rows.column(name).tolist()) for name in rows.names}


def _plan(spread: Spread, wanted: Wanted, trainings: int) -> Plan:
    times = spread.times_needed(wanted, trainings)
    clusters = samples = None
    if times is not None:
        clusters = max(FEWEST_CLUSTERS, math.ceil(times * spread.clusters))
        samples = math.ceil(clusters * spread.samples / spread.clusters)
    power = spread.power(wanted, trainings)
    return Plan(trainings, power, times, samples, clusters, spread.detects(wanted, trainings))


def _power_of_normal(shift: float, alpha: float) -> float:
    """Power of a two-sided test whose statistic is normal with this mean and variance 1."""
    normal = NormalDist()
    edge = normal.inv_cdf(1 - alpha / 2)
    return normal.cdf(shift - edge) + normal.cdf(-shift - edge)


def _power_of_t(shift: float, freedom: int, alpha: float) -> float:
    """Power of a two-sided t test whose statistic has this noncentrality."""
    from scipy.stats import nct, t

    edge = float(t.ppf(1 - alpha / 2, freedom))
    found = float(nct.sf(edge, freedom, shift) + nct.cdf(-edge, freedom, shift))
    return found if math.isfinite(found) else float(shift > edge)


def _smallest(above: Callable[[float], float], start: float) -> float | None:
    """The smallest number at which a rising function is 0 or more, by bisection; None if the number is too large."""
    low, high = 0.0, start
    while above(high) < 0:
        low, high = high, 2 * high
        if high > _MOST_TIMES:
            return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if above(middle) >= 0 else (middle, high)
    return high


def _interval_of_sd(trainings: int) -> tuple[float, float]:
    """95% interval of the true standard deviation, as multiples of the one of so many trainings."""
    from scipy.stats import chi2

    freedom = trainings - 1
    low, high = (math.sqrt(freedom / float(chi2.ppf(tail, freedom))) for tail in (0.975, 0.025))
    return low, high
