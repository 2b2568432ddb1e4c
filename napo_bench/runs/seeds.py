"""Several trainings of one method as one result: means over seeds, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.judged import GROUP
from napo_bench.benchmarks.metrics import Metric, table_1_metrics
from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.runs.compare import compare
from napo_bench.runs.result import RunResult


@dataclass(frozen=True)
class Difference:
    """The difference of a method to the base in one metric.

    Attributes:
        metric: The metric.
        base: Value of the base.
        value: Value of the method, the mean over seeds.
        interval: 95% interval of `value - base`. For one seed: paired bootstrap over samples. For several seeds:
            Student's t over the seeds' differences.
    """

    metric: Metric
    base: float
    value: float
    interval: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Whether the method is "better" or "worse"; "open" if the interval contains 0, or no direction is better."""
        low, high = self.interval
        if low <= 0 <= high or self.metric.better is None:
            return "open"
        return "better" if (low > 0) == (self.metric.better == "higher") else "worse"


def pooled(runs: Sequence[RunResult]) -> RunResult:
    """One result for several seeds of a method: the mean of each metric with its interval over seeds (Student's t).

    Args:
        runs: Runs of the seeds, measured in one way. A single run is returned unchanged, with its intervals over
            samples.
    """
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    benchmarks = {
        name: replace(
            result,
            metrics=_means(name, [run.benchmarks[name].metrics for run in runs]),
            breakdown={
                group: _means(name, [run.benchmarks[name].breakdown[group] for run in runs])
                for group in result.breakdown
                if group.startswith(GROUP)
            },
            doubts=list(dict.fromkeys(doubt for run in runs for doubt in run.benchmarks[name].doubts)),
            notes=_notes([run.benchmarks[name] for run in runs]),
            samples=[],
        )
        for name, result in first.benchmarks.items()
    }
    return RunResult(benchmarks, first.provenance)


def differences(base: RunResult, runs: Sequence[RunResult]) -> list[Difference]:
    """The differences of a method to the base in the metrics of Table 1 that both have.

    Args:
        base: Run of the base, with samples.
        runs: Runs of the seeds, with samples.
    """
    by_metric: dict[str, list[tuple[float, float, tuple[float, float]]]] = {}
    for run in runs:
        for row in compare(run, base).metrics:
            paired = row.paired
            by_metric.setdefault(paired.metric.key, []).append((paired.baseline, paired.candidate, paired.interval))
    found = []
    for metric in table_1_metrics():
        if metric.key in by_metric:
            bases, values, intervals = zip(*by_metric[metric.key], strict=True)
            gaps = [value - base for value, base in zip(values, bases, strict=True)]
            interval = intervals[0] if len(gaps) == 1 else t_interval(gaps)
            found.append(Difference(metric, bases[0], fmean(values), interval))
    return found


def _notes(results: Sequence[BenchmarkResult]) -> list[str]:
    """The notes of all trainings without duplicates, each with the trainings that the note is about."""
    notes = []
    for note in dict.fromkeys(note for result in results for note in result.notes):
        about = [str(number) for number, result in enumerate(results, start=1) if note in result.notes]
        prefix = "" if len(about) == len(results) else f"training {', '.join(about)} of {len(results)}: "
        notes.append(prefix + note)
    return [*notes, f"Mean of {len(results)} trainings; intervals are over the trainings"]


def _means(benchmark: str, results: Sequence[Mapping[str, MetricValue]]) -> dict[str, MetricValue]:
    means = {}
    for name, value in results[0].items():
        values = [metrics[name].value for metrics in results]
        low, high = t_interval(values)
        metric = benchmark_named(benchmark).metric(name)
        top = metric.high if metric is not None and metric.high is not None else high
        means[name] = MetricValue(fmean(values), (max(low, 0.0), min(high, top)), value.n, value.clusters)
    return means


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% interval of the mean of two values or more."""
    from scipy.stats import t

    reach = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return fmean(values) - reach, fmean(values) + reach
