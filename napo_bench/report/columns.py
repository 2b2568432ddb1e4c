"""The columns of a table: one for each metric and way of measuring, so that two judges never share a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from napo_bench.benchmarks import all_benchmarks, benchmark_labels
from napo_bench.benchmarks.judged import results_by_judge
from napo_bench.benchmarks.metrics import Metric
from napo_bench.benchmarks.result import BenchmarkResult

UNLIKE = "No published number was measured in this way, so none is comparable."


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        metric: Metric of the column.
        way: Sentence about how every number of the column was measured; "" if there is nothing to say.
        several: Whether the benchmark has columns of several ways.
        marks: Letters of the footnotes that apply to every number of the column.
    """

    metric: Metric
    way: str = ""
    several: bool = False
    marks: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Key of the metric, and the way if the benchmark has several: "mmhal.score [Judged by gpt-4o.]"."""
        return f"{self.metric.key} [{self.way}]" if self.several else self.metric.key


Ways = Mapping[str, Mapping[str, Any]]
"""Benchmark -> way of measuring -> what was measured in this way."""


def ways_of_run(results: Mapping[str, BenchmarkResult]) -> dict[str, dict[str, BenchmarkResult]]:
    """Benchmark with numbers -> way of measuring -> its numbers: one way for each judge, and one for several judges'
    mean.
    """
    known = all_benchmarks()
    return {
        name: {known[name].measured(one.settings): one for one in results_by_judge(result)}
        for name, result in results.items()
        if result.metrics
    }


def columns_of(
    metrics: Sequence[Metric], ours: Iterable[Ways], published: Iterable[Ways], *, all_ways: bool
) -> list[Column]:
    """The columns of a table, without marks.

    Args:
        metrics: Metrics in their order.
        ours: Ways of the user's runs, whose columns are first.
        published: Ways of the published rows.
        all_ways: Whether ways in which no run was measured have columns too.
    """
    of_ours, of_published = _by_benchmark(ours), _by_benchmark(published)
    columns = []
    for benchmark in dict.fromkeys(metric.benchmark for metric in metrics):
        own, others = of_ours.get(benchmark, {}), of_published.get(benchmark, {})
        ways = list({**own, **others} if all_ways or not own else own) or [""]
        columns += [
            Column(metric, way, len(ways) > 1) for way in ways for metric in metrics if metric.benchmark == benchmark
        ]
    return columns


def unlike(ours: Iterable[Ways], published: Iterable[Ways]) -> dict[str, list[str]]:
    """Benchmark with published numbers -> ways of the user's runs in which none of these numbers was measured."""
    of_ours, of_published = _by_benchmark(ours), _by_benchmark(published)
    found = {}
    for benchmark, ways in of_ours.items():
        others = set(of_published.get(benchmark, {})) - {""}
        found[benchmark] = [way for way in ways if way and way not in others] if others else []
    return {benchmark: ways for benchmark, ways in found.items() if ways}


def left_out(columns: Sequence[Column], published: Iterable[Ways]) -> list[str]:
    """A sentence for each benchmark with published numbers of ways that have no column."""
    label_of = benchmark_labels()
    shown = {(column.metric.benchmark, column.way) for column in columns}
    benchmarks = {column.metric.benchmark for column in columns}
    return [
        f"{label_of[benchmark]}: published numbers that were measured in another way have no column here. --paper "
        "shows them, each way in columns of its own."
        for benchmark, ways in _by_benchmark(published).items()
        if benchmark in benchmarks and any((benchmark, way) not in shown for way in ways)
    ]


def marked(columns: Sequence[Column], texts: Mapping[tuple[str, str], tuple[str, ...]]) -> list[Column]:
    """The columns with their marks.

    Args:
        columns: Columns.
        texts: Benchmark and way -> marks.
    """
    return [replace(column, marks=texts.get((column.metric.benchmark, column.way), ())) for column in columns]


def _by_benchmark(rows: Iterable[Ways]) -> dict[str, dict[str, None]]:
    """Benchmark -> the ways of all rows, in the order in which they first occur."""
    found: dict[str, dict[str, None]] = {}
    for row in rows:
        for benchmark, ways in row.items():
            found.setdefault(benchmark, {}).update(dict.fromkeys(ways))
    return found
