"""What part of a training's gains comes without looking: a method beside its control, both against the base."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napo_bench.benchmarks import benchmark_labels
from napo_bench.core import stats
from napo_bench.core.counts import CountTable
from napo_bench.core.names import Control
from napo_bench.runs.compare import pair_samples
from napo_bench.runs.result import RunResult
from napo_bench.runs.seeds import Difference, differences

COMES: dict[Control, str] = {"blind": "comes without looking", "swapped": "comes with the images of other rows"}
"""Control -> how a part of a gain comes that the control has too."""


@dataclass(frozen=True)
class ControlledGain:
    """A gain or loss of a method against the base, and the part of it that the method's control has too.

    Attributes:
        method: Difference of the method to the base.
        control: Difference of the control to the base.
        share: 100 * control's difference / method's difference, in percent, and its 95% interval (Fieller's): for one
            seed over the clusters that all three runs have, for several seeds over the seeds. None if the method's
            difference does not differ from 0, because the share is then undefined.
    """

    method: Difference
    control: Difference
    share: tuple[float, tuple[float, float]] | None

    @property
    def texts(self) -> tuple[str, str]:
        """The method's gain, or its loss, and the control's part of it: "14.0 [11.1, 16.9]", "3.1 [-0.2, 6.4]"."""
        sign = 1 if (self.method.metric.better == "higher") == (self.kind == "gain") else -1
        return _signed(self.method, sign), _signed(self.control, sign)

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the method's difference excludes 0."""
        return self.method.verdict != "open"

    @property
    def kind(self) -> str:
        """Whether the method's difference is a "gain" or a "loss"."""
        return "loss" if self.method.verdict == "worse" else "gain"

    @property
    def label(self) -> str:
        """Benchmark and metric: "AMBER CHAIR"."""
        metric = self.method.metric
        return f"{benchmark_labels()[metric.benchmark]} {metric.label}"

    @property
    def share_text(self) -> str:
        """The share with its interval: "22% [-2, 47]"; in words if it is undefined."""
        if not self.is_clear:
            return "no clear change"
        if self.share is None:
            return "undefined"
        value, (low, high) = self.share
        return f"{value:z.0f}% [{low:z.0f}, {high:z.0f}]"

    def sentence(self, name: str, control: Control) -> str:
        """The part of the gain in words, with the name of the method.

        Example: "Of NaPO's AMBER CHAIR gain of 14.0 [11.1, 16.9], 3.1 [-0.2, 6.4] comes without looking:
        22% [-2, 47]."
        """
        gain, part = self.texts
        share = self.share_text if self.share else f"the share is undefined, because the {self.kind} is near 0"
        return f"Of {name}'s {self.label} {self.kind} of {gain}, {part} {COMES[control]}: {share}."


@dataclass(frozen=True)
class ControlledMethod:
    """A method and its control.

    Attributes:
        name: Name of the method.
        control: Control of the method.
        gains: Differences to the base in the metrics of Table 1.
    """

    name: str
    control: Control
    gains: list[ControlledGain]

    @property
    def sentences(self) -> list[str]:
        """The control's part of every clear gain and loss in words, and the metrics without a clear gain or loss."""
        said = [row.sentence(self.name, self.control) for row in self.gains if row.is_clear]
        if unclear := [row.label for row in self.gains if not row.is_clear]:
            said.append(
                f"{self.name} has no clear gain or loss in {', '.join(unclear)}: the interval of the difference "
                "contains 0, so no part is stated."
            )
        return said

    @property
    def summary(self) -> str:
        """The first clear gain of each benchmark, or else its first clear loss, and the control's part of it."""
        first: dict[str, ControlledGain] = {}
        for row in sorted(self.gains, key=lambda row: row.kind == "loss"):
            if row.is_clear:
                first.setdefault(row.method.metric.benchmark, row)
        if not first:
            return f"{self.name} has no clear gain or loss, so no part is stated."
        parts = [
            f"of the {row.label} {row.kind} of {gain}, {part}" for row in first.values() for gain, part in [row.texts]
        ]
        return f"{self.name}, what {COMES[self.control]}: {'; '.join(parts)}."


@dataclass(frozen=True)
class Arm:
    """The trainings of a method, or of its control.

    Attributes:
        runs: Run of each seed, with samples.
        differences: Differences to the base in the metrics of Table 1.
    """

    runs: Sequence[RunResult]
    differences: Sequence[Difference]

    @classmethod
    def of(cls, base: RunResult, runs: Sequence[RunResult]) -> Self:
        """The arm of these runs against the run of the base."""
        return cls(runs, differences(base, runs))


def controlled_method(name: str, base: RunResult, methods: Arm, controls: Arm) -> ControlledMethod:
    """A method beside its control.

    Args:
        name: Name of the method.
        base: Run of the base, with samples.
        methods: Trainings of the method.
        controls: Trainings of the control, with the same seeds in the same order.

    Raises:
        ValueError: the runs of `controls` are of no control.
    """
    checkpoint = controls.runs[0].provenance.checkpoint
    if checkpoint is None or checkpoint.control is None:
        raise ValueError(f"the runs beside {name} are of no control")
    of_controls = {row.metric: row for row in controls.differences}
    pairs = [(row, of_controls[row.metric]) for row in methods.differences if row.metric in of_controls]
    gains = []
    for method, control in pairs:
        gain = ControlledGain(method, control, None)
        if gain.is_clear:
            share = _share(method, control, *_spread(method, base, methods.runs, controls.runs))
            gain = replace(gain, share=share)
        gains.append(gain)
    return ControlledMethod(name, checkpoint.control, gains)


def _signed(row: Difference, sign: int) -> str:
    digits = f"z.{row.metric.decimals}f"
    low, high = sorted(sign * end for end in row.interval)
    return f"{sign * (row.value - row.base):{digits}} [{low:{digits}}, {high:{digits}}]"


def _share(
    method: Difference, control: Difference, covariance: NDArray[np.float64], quantile: float
) -> tuple[float, tuple[float, float]] | None:
    part, whole = control.value - control.base, method.value - method.base
    low, high = stats.ratio_interval(part, whole, covariance, quantile)
    return (100 * part / whole, (100 * low, 100 * high)) if math.isfinite(low) else None


def _spread(
    row: Difference, base: RunResult, methods: Sequence[RunResult], controls: Sequence[RunResult]
) -> tuple[NDArray[np.float64], float]:
    """Covariance `[2, 2]` of the control's and the method's difference to the base, and the quantile of their errors.

    The differences of one seed vary over clusters, and means over seeds vary over the seeds.
    """
    benchmark, name = row.metric.benchmark, row.metric.name
    if len(methods) == 1:
        counts = _by_cluster(benchmark, controls[0], methods[0], base)
        values = stats.resampled_together(counts, row.metric.function)
        return np.cov(values[:, :2] - values[:, 2:], rowvar=False), NormalDist().inv_cdf(0.975)
    from scipy.stats import t

    seeds = [[run.benchmarks[benchmark].metrics[name].value for run in runs] for runs in (controls, methods)]
    return np.cov(seeds) / len(methods), float(t.ppf(0.975, len(methods) - 1))


def _by_cluster(benchmark: str, *runs: RunResult) -> list[CountTable]:
    """The counts of each cluster in each run, over the samples that all runs have.

    Args:
        benchmark: Name of the benchmark.
        runs: Runs. The last run is paired with each of the others.
    """
    *others, last = (run.benchmarks[benchmark] for run in runs)
    pairs = [pair_samples(benchmark, other, last) for other in others]
    counts = [dict(zip(pair.keys, pair.candidate, strict=True)) for pair in pairs]
    of_last = dict(zip(pairs[0].keys, pairs[0].baseline, strict=True))
    cluster_of = dict(zip(pairs[0].keys, pairs[0].clusters, strict=True))
    shared = [key for key in of_last if all(key in found for found in counts)]
    clusters = [cluster_of[key] for key in shared]
    return [stats.by_cluster([found[key] for key in shared], clusters) for found in (*counts, of_last)]
