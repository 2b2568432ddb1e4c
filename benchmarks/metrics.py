"""The metrics of all benchmarks, by key, and the value of each single sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napo_bench.benchmarks import all_benchmarks
from napo_bench.benchmarks.benchmark import Better, Metric
from napo_bench.core.counts import CountTable
from napo_bench.core.errors import unknown_name

__all__ = ["Better", "Metric", "all_metrics", "metric_named", "sample_array", "sample_values", "table_1_metrics"]


def all_metrics() -> dict[str, Metric]:
    """Key such as "vlind.cb" -> metric, in the order in which they are printed."""
    return {metric.key: metric for benchmark in all_benchmarks().values() for metric in benchmark.metrics}


def table_1_metrics() -> tuple[Metric, ...]:
    """The columns of Table 1."""
    return tuple(metric for metric in all_metrics().values() if metric.in_table)


def metric_named(key: str, where: str = "") -> Metric:
    """The metric of a key such as "vlind.cb".

    Args:
        key: Benchmark and metric.
        where: File or option with the key, for the message.

    Raises:
        NapoBenchError: there is no such metric. The error names the nearest metric.
    """
    metrics = all_metrics()
    if key not in metrics:
        raise unknown_name("metric", key, metrics, where)
    return metrics[key]


def sample_values(metric: Metric, rows: Sequence[Mapping[str, float]]) -> list[float | None]:
    """The metric of each single sample; None for a sample that the metric does not cover.

    Args:
        metric: Metric to compute.
        rows: Counts of each sample.
    """
    values = sample_array(metric, CountTable.of(rows))
    return [None if math.isnan(value) else value for value in values.tolist()]


def sample_array(metric: Metric, counts: CountTable) -> NDArray[np.float64]:
    """As `sample_values`, `[N]`, with NaN for None."""
    if metric.count not in counts.names:
        return np.full(len(counts), np.nan)
    columns = {name: counts.column(name) for name in counts.names}
    values: Any = np.broadcast_to(np.asarray(metric.function(columns), dtype=np.float64), (len(counts),))
    return np.where(columns[metric.count] > 0, values, np.nan)
