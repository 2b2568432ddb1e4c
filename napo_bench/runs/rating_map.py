"""What another rater would say about a run: the map from one rater's numbers to another's, and mapped runs.

A run's mapped metric is the metric of the mapped sums (`map_sums`). Pairs and answers of one cluster are resampled
together, so one bootstrap gives the interval that contains the sampling of the run's answers and the map's uncertainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.benchmark import Metric
from napo_bench.benchmarks.rated import Steps
from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.core import stats
from napo_bench.runs.enough_ratings import require_levels, require_pairs, require_precision, require_raters
from napo_bench.runs.map_checks import of_models, of_run
from napo_bench.runs.map_sums import MapSums, histogram, mean_count, steps
from napo_bench.runs.ratings import Item, NamedResult, Ratings


@dataclass(frozen=True)
class MappedMetric:
    """One mapped metric of a run.

    Attributes:
        metric: The metric.
        rated: Its value by the first rater.
        value: Its mapped value.
        ci95: 95% interval that contains the sampling of the answers and the uncertainty of the map.
        of_answers: 95% interval of the sampling of the answers alone, as if the map were exact.
        of_map: 95% interval of the uncertainty of the map alone, as if the run had every possible answer.
        n: Number of answers.
        clusters: Number of clusters of these answers.
    """

    metric: Metric
    rated: float
    value: float
    ci95: tuple[float, float]
    of_answers: tuple[float, float]
    of_map: tuple[float, float]
    n: int
    clusters: int

    def to_json(self) -> dict[str, Any]:
        """The mapped metric as a JSON value."""
        return {**asdict(self), "metric": self.metric.key}


@dataclass(frozen=True)
class MappedRun:
    """A run in the numbers of the second rater.

    Attributes:
        name: Name of the run.
        metrics: Its mapped metrics.
        notes: Lines about the limits of the numbers.
    """

    name: str
    metrics: list[MappedMetric]
    notes: list[str]


@dataclass(frozen=True)
class Level:
    """One level of the map.

    Attributes:
        level: Rating, or count, of the first rater: "4", "3 or more".
        pairs: Number of answers with this level that both rated.
        means: Count of the second rater -> its mapped mean.
    """

    level: str
    pairs: float
    means: dict[str, float]


@dataclass(frozen=True)
class RatingMap:
    """A fitted map.

    Attributes:
        first: The rater whose ratings are mapped.
        second: The rater whose numbers are estimated.
        pairs: Number of answers that both rated.
        clusters: Number of clusters of these answers.
        levels: The map, level by level of the first rater's rating.
        runs: The mapped runs.
        precision: Half width of the interval that the map alone may give to the first metric.
    """

    first: str
    second: str
    pairs: int
    clusters: int
    levels: list[Level]
    runs: list[MappedRun]
    precision: float

    def to_json(self) -> dict[str, Any]:
        """The map as a JSON value."""
        return {
            "from": self.first,
            "to": self.second,
            "pairs": self.pairs,
            "clusters": self.clusters,
            "levels": [asdict(level) for level in self.levels],
            "precision": self.precision,
            "runs": [
                {"name": run.name, "metrics": [one.to_json() for one in run.metrics], "notes": run.notes}
                for run in self.runs
            ],
        }


def map_ratings(
    ratings: Ratings, runs: Sequence[NamedResult], first: str, second: str, precision: float | None = None
) -> RatingMap:
    """Fit the map of one rater's ratings onto another's, and map runs.

    Args:
        ratings: Ratings of answers, those of the runs among them.
        runs: Runs with ratings of the first rater.
        first: The rater whose ratings are mapped.
        second: The rater whose numbers are estimated.
        precision: Half width of the 95% interval that the map alone may give to the first metric, in its unit; None
            is the benchmark's own.

    Raises:
        NapoBenchError: a rater has no ratings, or too few answers, or too few answers of a level that a run has, were
            rated by both. The error says how many would do.
    """
    require_raters(ratings, runs, first, second)
    wanted = ratings.rated.precision if precision is None else precision
    pairs = ratings.rated_by(first, second)
    clusters = len({item.cluster for item in pairs})
    require_pairs(ratings, pairs, clusters, (first, second), wanted)
    sums = MapSums(ratings.rated, first, second)
    own = [[item for item in ratings.of_run(run.name) if first in item.by] for run in runs]
    for run, answers in zip(runs, own, strict=True):
        require_levels(sums, pairs, answers, run.name)
    mapped = []
    for run, answers in zip(runs, own, strict=True):
        metrics = _metrics(sums, ratings.benchmark, pairs, answers, run.name, wanted)
        without = len(ratings.of_run(run.name)) - len(answers)
        mapped.append(MappedRun(run.name, metrics, _notes(sums, pairs, answers, metrics, without)))
    return RatingMap(first, second, len(pairs), clusters, _levels(sums, pairs), mapped, wanted)


def mapped_result(found: RatingMap, number: int, ratings: Ratings, source: BenchmarkResult) -> BenchmarkResult:
    """A run's result in the numbers of the second rater, without samples.

    Args:
        found: The map.
        number: Index of the run.
        ratings: The ratings that the map was fitted to.
        source: The run's own result.
    """
    run, rated = found.runs[number], ratings.rated
    rater = ratings.settings.get(found.second) or rated.settings_of(found.second, {})
    kept = {name: value for name, value in source.settings.items() if name not in rated.settings}
    mapped = {"from": found.first, "to": found.second, "ratings": found.pairs, "clusters": found.clusters}
    return BenchmarkResult(
        metrics={one.metric.name: MetricValue(one.value, one.ci95, one.n, one.clusters) for one in run.metrics},
        complete=source.complete,
        notes=[*run.notes, *source.notes],
        doubts=source.doubts,
        settings={**kept, **rater, "mapped": mapped},
        unanswered=source.unanswered,
    )


def _metrics(
    sums: MapSums, benchmark: str, pairs: Sequence[Item], own: Sequence[Item], run: str, precision: float
) -> list[MappedMetric]:
    """The mapped metrics of a run. Raises NapoBenchError if the map is less precise than wanted."""
    known = benchmark_named(benchmark)
    metrics = [metric for name in sums.rated.metrics if (metric := known.metric(name)) is not None]
    pair_rows = [sums.of_pair(item) for item in pairs]
    own_rows = [sums.of_answer(item) for item in own]
    pair_clusters, own_clusters = [item.cluster for item in pairs], [item.cluster for item in own]
    both = stats.by_cluster([*pair_rows, *own_rows], [*pair_clusters, *own_clusters])
    of_pairs, of_own = stats.by_cluster(pair_rows, pair_clusters), stats.by_cluster(own_rows, own_clusters)
    pair_total, own_total = of_pairs.total, of_own.total
    functions = {metric.name: sums.metric(metric) for metric in metrics}
    spans = {metric.name: span for metric in metrics if (span := metric.span(len(of_own))) is not None}
    together = stats.bootstrap_intervals(both, functions, spans=spans)
    of_answers = stats.bootstrap_intervals(of_own, _with(functions, pair_total), spans=spans)
    of_map = stats.bootstrap_intervals(of_pairs, _with(functions, own_total))
    require_precision(sums, metrics[0], of_map[metrics[0].name], len(pairs), run, precision)
    return [
        MappedMetric(
            metric,
            float(metric.function(own_total)),
            float(functions[metric.name]({**pair_total, **own_total})),
            together[metric.name],
            of_answers[metric.name],
            of_map[metric.name],
            len(own),
            len(own_rows),
        )
        for metric in metrics
    ]


def _levels(sums: MapSums, pairs: Sequence[Item]) -> list[Level]:
    """The map as a table, by the levels of the first count with levels. A line is shown by the means of its pairs."""
    total = sums.fitted(pairs)
    shown = next(how for how in sums.rated.predicted.values() if isinstance(how, Steps))
    have = histogram(shown, sums.first, pairs)
    levels = list(have)
    means: dict[str, Any] = {}
    for count, how in sums.rated.predicted.items():
        if isinstance(how, Steps):
            means[count] = steps(how, count, levels, total)
        else:
            at = dict.fromkeys(levels, 0.0)
            for item in pairs:
                for own in item.by[sums.first]:
                    at[shown.level(own)] += mean_count(count, item.by[sums.second]) / len(item.by[sums.first])
            means[count] = [at[level] / have[level] for level in levels]
    return [
        Level(shown.text(level), have[level], {count: float(mean[n]) for count, mean in means.items()})
        for n, level in enumerate(levels)
    ]


def _notes(
    sums: MapSums, pairs: Sequence[Item], own: Sequence[Item], metrics: Sequence[MappedMetric], without: int
) -> list[str]:
    """Lines about the limits of a run's mapped numbers. The first line says that and how they are mapped."""
    clusters = len({item.cluster for item in pairs})
    intervals = ", ".join(f"{one.metric.name} {' to '.join(map(one.metric.format, one.ci95))}" for one in metrics)
    notes = [
        f"mapped from {sums.first} to {sums.second} by {len(pairs)} answers in {clusters} pictures that both rated. "
        f"95% intervals that contain the map's uncertainty: {intervals}. The map assumes that answers with equal "
        f"ratings of {sums.first} get equal ratings of {sums.second} on average, whichever model wrote them"
    ]
    notes += [*of_run(sums, pairs, own), *of_models(sums, pairs)]
    if without:
        notes.append(f"{without} answer{'s' * (without > 1)} without a rating of {sums.first} left out")
    return notes


def _with(functions: Mapping[str, stats.MetricFunction], fixed: stats.Sums) -> dict[str, stats.MetricFunction]:
    """The functions with some of their sums fixed."""

    def one(function: stats.MetricFunction) -> stats.MetricFunction:
        return lambda sums: function({**fixed, **sums})

    return {name: one(function) for name, function in functions.items()}
