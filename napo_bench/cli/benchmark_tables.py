"""The tables of a benchmark's result in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from napo_bench.benchmarks.judged import GROUP, about_mean, judges_of, results_by_judge
from napo_bench.cli import console

if TYPE_CHECKING:
    from napo_bench.benchmarks.metrics import Metric
    from napo_bench.benchmarks.result import BenchmarkResult, MetricValue


def print_benchmark(name: str, result: BenchmarkResult) -> None:
    """Print one benchmark's metrics with their intervals, its breakdown, and its notes."""
    from napo_bench.benchmarks import benchmark_named

    benchmark = benchmark_named(name)
    known = {metric.name: metric for metric in benchmark.metrics if metric.name in result.metrics}
    part = "" if result.complete else " (over a part of the benchmark)"
    console.out.print(f"[bold]{escape(benchmark.label)}[/bold]{part}", highlight=False)
    if result.metrics:
        has_noise = any(value.noise for value in result.metrics.values())
        (_print_by_judge if has_noise else _print_metrics)(known, result)
        if any(value.size != str(value.n) for value in result.metrics.values()):
            console.out.print(console.CLUSTERED, highlight=False)
    if groups := {group: values for group, values in result.breakdown.items() if not group.startswith(GROUP)}:
        console.out.print(_breakdown_table(known, groups))
    for doubt in result.doubts:
        console.out.print(f"[red]no measurement[/red] {escape(doubt)}", highlight=False)
    for note in result.notes:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)


def _print_metrics(known: Mapping[str, Metric], result: BenchmarkResult) -> None:
    table = Table()
    table.add_column("metric")
    for heading in ("value", "95% interval", "n"):
        table.add_column(heading, justify="right")
    for metric, value in result.metrics.items():
        table.add_row(
            f"{metric} {known[metric].arrow}",
            known[metric].format(value.value),
            _ends(known[metric], value.ci95),
            value.size,
        )
    console.out.print(table)


def _print_by_judge(known: Mapping[str, Metric], result: BenchmarkResult) -> None:
    """Print the metrics by each judge and of their mean, and what samples and judges each add to the intervals."""
    from napo_bench.engines.judge_options import OF_ALL

    judges = list(judges_of(result.settings))
    rated = dict(zip([*judges, OF_ALL] if len(judges) > 1 else judges, results_by_judge(result), strict=True))
    table = Table(box=None, pad_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column("judge", no_wrap=True)
    for heading in ("value", "95% interval", "samples alone", "judge alone", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metric in result.metrics:
        for number, (judge, one) in enumerate(rated.items()):
            value, noise = one.metrics[metric], one.metrics[metric].noise
            parts = ("", "") if noise is None else (_ends(known[metric], part) for part in (noise.samples, noise.judge))
            label = "" if number else f"{metric} {known[metric].arrow}"
            numbers = (known[metric].format(value.value), _ends(known[metric], value.ci95))
            table.add_row(label, escape(judge), *numbers, *parts, value.size)
    console.print_whole(table)
    console.out.print(
        "95% intervals for other pictures and other ratings, for other pictures alone, and for other ratings alone."
        + (f" {about_mean(len(judges))}" if len(judges) > 1 else ""),
        highlight=False,
    )


def _ends(metric: Metric, interval: tuple[float, float]) -> str:
    return " - ".join(map(metric.format, interval))


def _breakdown_table(known: Mapping[str, Metric], breakdown: Mapping[str, Mapping[str, MetricValue]]) -> Table:
    table = Table()
    table.add_column("group", overflow="fold")
    metrics = [metric for metric in known if any(metric in values for values in breakdown.values())]
    for metric in (*metrics, "n"):
        table.add_column(metric, justify="right")
    for group, values in breakdown.items():
        cells = [known[metric].format(values[metric].value) if metric in values else "" for metric in metrics]
        table.add_row(escape(group), *cells, max(values.values(), key=lambda value: value.n).size)
    return table
