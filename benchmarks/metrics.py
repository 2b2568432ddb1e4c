"""What is known of every metric: its label, its better direction, its range, and its place in the paper's Table 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napo_bench.core.errors import unknown_name
from napo_bench.core.stats import MetricFunction, Span, count_matrix

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """One metric of a benchmark.

    Attributes:
        benchmark: As in a run: "vlind".
        name: As in a run: "cb".
        label: As the paper prints it.
        better: The better direction; None where neither is.
        high: The highest value, None where there is none; the lowest is 0.
        unit: "%" or nothing.
        decimals: Digits after the point, as published.
        in_table: A column of Table 1.
        pass_fail: Each sample passes or fails, and the metric is the share of one of them.
        decides: The metric by which a sample alone counts as right or wrong.
    """

    benchmark: str
    name: str
    label: str
    better: Better | None
    high: float | None = 100.0
    unit: str = "%"
    decimals: int = 1
    in_table: bool = False
    pass_fail: bool = False
    decides: bool = False

    @property
    def key(self) -> str:
        """Benchmark and name: "vlind.cb"."""
        return f"{self.benchmark}.{self.name}"

    @property
    def arrow(self) -> str:
        """The better direction as an arrow."""
        return {"higher": "↑", "lower": "↓", None: ""}[self.better]

    def span(self, n: float) -> Span | None:
        """The metric's range over n samples, for `stats.bootstrap_intervals`; None where it has no end."""
        return None if self.high is None else Span(0.0, self.high, n)

    def format(self, value: float) -> str:
        """The value with the published number of digits."""
        return f"{value:.{self.decimals}f}"


BENCHMARKS = {
    "vlind": "VLind-Bench",
    "object_halbench": "Object HalBench",
    "amber": "AMBER",
    "mmhal": "MMHal-Bench",
}
"""Benchmark -> its name in print, in the order of Table 1."""

METRICS = {
    metric.key: metric
    for metric in (
        Metric("vlind", "ck", "CK", "higher", pass_fail=True),
        Metric("vlind", "vp", "VP", "higher", pass_fail=True),
        Metric("vlind", "cb", "CB", "higher", in_table=True),
        Metric("vlind", "lp", "LP", "higher", in_table=True),
        Metric("vlind", "cb_accuracy", "CB accuracy", "higher", pass_fail=True),
        Metric("vlind", "lp_accuracy", "LP accuracy", "higher", decides=True),
        Metric("object_halbench", "chair_s", "CHAIRs", "lower", in_table=True, pass_fail=True, decides=True),
        Metric("object_halbench", "chair_i", "CHAIRi", "lower", in_table=True),
        Metric("object_halbench", "chair_s_refine", "CHAIRs (refined)", "lower"),
        Metric("object_halbench", "recall", "Object recall", "higher"),
        Metric("object_halbench", "mean_words", "Mean words", None, high=None, unit=""),
        Metric("amber", "chair", "CHAIR", "lower", in_table=True),
        Metric("amber", "cover", "Cover", "higher", in_table=True),
        Metric("amber", "hal", "HalRate", "lower", in_table=True, pass_fail=True, decides=True),
        Metric("amber", "cog", "Cog", "lower", in_table=True),
        Metric("amber", "accuracy", "Accuracy", "higher", pass_fail=True, decides=True),
        Metric("amber", "precision", "Precision", "higher"),
        Metric("amber", "recall", "Recall", "higher"),
        Metric("amber", "f1", "F1", "higher"),
        Metric("amber", "existence_f1", "Existence F1", "higher"),
        Metric("amber", "attribute_f1", "Attribute F1", "higher"),
        Metric("amber", "relation_f1", "Relation F1", "higher"),
        Metric("mmhal", "score", "Score", "higher", high=6.0, unit="", decimals=2, in_table=True),
        Metric(
            "mmhal",
            "hal_rate",
            "HalRate",
            "lower",
            high=1.0,
            unit="",
            decimals=2,
            in_table=True,
            pass_fail=True,
            decides=True,
        ),
        Metric("mmhal", "informativeness", "Informativeness", "higher"),
    )
}
"""Every metric by its key, in the order of Table 1."""

TABLE_1 = tuple(metric for metric in METRICS.values() if metric.in_table)
"""The columns of Table 1."""


def metric_named(key: str, where: str) -> Metric:
    """The metric of a key such as "vlind.cb".

    Args:
        key: Benchmark and metric.
        where: Who asks, for the message.

    Raises:
        NapoBenchError: there is no such metric; the nearest one is named.
    """
    if key not in METRICS:
        raise unknown_name("metric", key, METRICS, where)
    return METRICS[key]


def metric_functions(benchmark: str) -> Mapping[str, tuple[MetricFunction, str]]:
    """Metric -> (function of the summed counts, the count whose sum is its n), from the benchmark's score.py."""
    from napo_bench.benchmarks.amber import score as amber
    from napo_bench.benchmarks.mmhal import score as mmhal
    from napo_bench.benchmarks.object_halbench import score as object_halbench
    from napo_bench.benchmarks.vlind import score as vlind

    found: dict[str, Mapping[str, tuple[MetricFunction, str]]] = {
        "vlind": vlind.METRICS,
        "object_halbench": object_halbench.METRICS,
        "amber": amber.METRICS,
        "mmhal": mmhal.METRICS,
    }
    return found[benchmark]


def sample_values(metric: Metric, rows: Sequence[Mapping[str, float]]) -> list[float | None]:
    """The metric of each sample by itself; None for a sample that it does not speak of.

    Args:
        metric: What to compute.
        rows: Counts of each sample.
    """
    function, count = metric_functions(metric.benchmark)[metric.name]
    names = sorted({name for row in rows for name in row})
    if count not in names:
        return [None] * len(rows)
    counts = count_matrix(rows, names)
    columns = {name: counts[:, index] for index, name in enumerate(names)}
    values: Any = np.broadcast_to(np.asarray(function(columns), dtype=np.float64), (len(rows),))
    return [float(value) if spoken else None for value, spoken in zip(values, columns[count] > 0, strict=True)]
