"""Two runs over the same samples: which metrics differ by more than chance, and which samples changed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.judged import fingerprints, judges_of, of_judge, without_fingerprints
from napo_bench.benchmarks.metrics import Metric, sample_array
from napo_bench.benchmarks.reading import Reading
from napo_bench.benchmarks.result import SAMPLES_NOT_PICTURES, BenchmarkResult, cluster_of, counts_of, size_text
from napo_bench.core import stats
from napo_bench.core.counts import Array, CountTable
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.garbage import without_collection
from napo_bench.runs.result import RunResult

SampleKey = tuple[str, str]
"""Unit and id of a sample."""

SharedSamples = dict[SampleKey, tuple[Mapping[str, Any], Mapping[str, Any]]]
"""The candidate's sample and the baseline's, by key."""

_PART = 0.005
_STATED_WITHIN = 0.06  # AMBER's published numbers are rounded to one decimal


@dataclass(frozen=True)
class Pairs:
    """The samples that two runs share.

    Attributes:
        keys: Unit and id of each, in the candidate's order.
        candidate: Counts of each in the candidate.
        baseline: Counts of each in the baseline.
        counts: The same counts as tables, of the candidate and of the baseline.
        clusters: Cluster of each. Samples of one cluster depend on each other.
        unshared: Number of samples that only one of the two runs has.
    """

    keys: list[SampleKey]
    candidate: list[Mapping[str, float]]
    baseline: list[Mapping[str, float]]
    counts: tuple[CountTable, CountTable]
    clusters: list[str]
    unshared: int

    @cached_property
    def by_cluster(self) -> tuple[CountTable, CountTable]:
        """The summed counts of each cluster in the candidate, and in the baseline."""
        new, old = (counts.by_cluster(self.clusters) for counts in self.counts)
        return new, old

    def values(self, metric: Metric) -> tuple[Array, Array]:
        """The metric of each sample in the candidate, and in the baseline; NaN where the metric does not cover it."""
        new, old = (sample_array(metric, counts) for counts in self.counts)
        return new, old

    @property
    def are_independent(self) -> bool:
        """Whether every sample is a cluster of its own."""
        return len(set(self.clusters)) == len(self.keys)


@dataclass(frozen=True)
class PairedMetric:
    """One metric of two runs, over the samples that they share.

    Attributes:
        metric: Which.
        candidate: Its value in the candidate.
        baseline: Its value in the baseline.
        interval: 95% interval of candidate - baseline.
        n: Number of samples that the metric covers, in the run with fewer such samples.
        clusters: Number of clusters of these samples, in the run with fewer such clusters.
    """

    metric: Metric
    candidate: float
    baseline: float
    interval: tuple[float, float]
    n: int
    clusters: int

    @property
    def size(self) -> str:
        """The number of samples, and of clusters if there are fewer: "14216 in 1004"."""
        return size_text(self.n, self.clusters)

    @property
    def difference(self) -> float:
        """Candidate - baseline."""
        return self.candidate - self.baseline


@dataclass(frozen=True)
class MetricComparison:
    """A paired metric with the significance of its difference.

    Attributes:
        paired: The two values and their difference with its 95% interval.
        test: "exact McNemar" if every sample passes or fails and is a cluster of its own, else "permutation".
        p_value: Two-sided p-value of the test.
        p_adjusted: P-value adjusted by Holm's rule for all metrics of the comparison.
    """

    paired: PairedMetric
    test: str
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class SampleChange:
    """A sample whose outcome differs between two runs.

    Attributes:
        metric: Metric that decides the sample's outcome.
        unit: Unit of the sample.
        sample_id: Id of the sample.
        baseline: Metric of this sample alone, in the baseline.
        candidate: Metric of this sample alone, in the candidate.
    """

    metric: Metric
    unit: str
    sample_id: str
    baseline: float
    candidate: float

    @property
    def improved(self) -> bool:
        """Whether the candidate is better on the sample."""
        return (self.candidate > self.baseline) == (self.metric.better == "higher")


@dataclass(frozen=True)
class SameAnswers:
    """How many answers of two runs are the same text.

    Attributes:
        answers: Number of answers that both runs have.
        identical: Number of these answers with the same text in both runs.
    """

    answers: int
    identical: int


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        metrics: Metrics in the order of Table 1.
        changes: Samples whose outcome changed.
        same_answers: Benchmark -> how many answers are the same text, if the samples contain the answers.
        notes: What was not compared, the number of compared samples, and the notes of the runs.
    """

    metrics: list[MetricComparison]
    changes: list[SampleChange]
    same_answers: dict[str, SameAnswers]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The comparison as a JSON value."""
        return {
            "metrics": [
                {
                    "metric": row.paired.metric.key,
                    "baseline": row.paired.baseline,
                    "candidate": row.paired.candidate,
                    "difference": row.paired.difference,
                    "ci95": row.paired.interval,
                    "n": row.paired.n,
                    "clusters": row.paired.clusters,
                    "test": row.test,
                    "p_value": row.p_value,
                    "p_value_holm": row.p_adjusted,
                }
                for row in self.metrics
            ],
            "changes": [
                {
                    "metric": change.metric.key,
                    "unit": change.unit,
                    "sample_id": change.sample_id,
                    "baseline": change.baseline,
                    "candidate": change.candidate,
                    "improved": change.improved,
                }
                for change in self.changes
            ],
            "same_answers": {name: asdict(same) for name, same in self.same_answers.items()},
            "notes": self.notes,
        }


def pair_samples(benchmark: str, candidate: BenchmarkResult, baseline: BenchmarkResult) -> Pairs:
    """The samples of a benchmark that both results contain, matched by unit and id.

    Raises:
        NapoBenchError: a sample has no id or no counts, an id occurs twice, or no sample is shared.
    """
    return _pairs_of(benchmark, shared_samples(benchmark, candidate, baseline, "counts"), candidate, baseline)


def _pairs_of(benchmark: str, shared: SharedSamples, candidate: BenchmarkResult, baseline: BenchmarkResult) -> Pairs:
    return Pairs(
        list(shared),
        candidate=[new["counts"] for new, _ in shared.values()],
        baseline=[old["counts"] for _, old in shared.values()],
        counts=(
            counts_of([new for new, _ in shared.values()], f"{benchmark}, candidate"),
            counts_of([old for _, old in shared.values()], f"{benchmark}, baseline"),
        ),
        clusters=[cluster_of(new) for new, _ in shared.values()],
        unshared=len(candidate.samples) + len(baseline.samples) - 2 * len(shared),
    )


def shared_samples(
    benchmark: str, candidate: BenchmarkResult, baseline: BenchmarkResult, *fields: str
) -> SharedSamples:
    """Unit and id of each sample that both results contain -> the candidate's sample and the baseline's.

    Raises:
        NapoBenchError: a sample has no unit, no id or none of the fields, an id occurs twice, or no sample is shared.
    """
    new = _by_key(candidate.samples, f"{benchmark}, candidate", fields)
    old = _by_key(baseline.samples, f"{benchmark}, baseline", fields)
    shared = {key: (sample, old[key]) for key, sample in new.items() if key in old}
    if not shared:
        raise NapoBenchError(
            f"{benchmark}: the candidate ({len(new)} samples) and the baseline ({len(old)}) share no sample.",
            "Both runs need the same benchmark data, and their samples folder beside the JSON file.",
        )
    return shared


def paired_answers(
    benchmark: str, candidate: BenchmarkResult, baseline: BenchmarkResult
) -> list[tuple[Reading, Reading, str]]:
    """The candidate's answer, the baseline's, and the cluster of each answer that both results have.

    Raises:
        NapoBenchError: as `shared_samples`; or a sample lacks a field of its answer.
    """
    return _answers_of(benchmark, shared_samples(benchmark, candidate, baseline), candidate, baseline)


def _answers_of(
    benchmark: str, shared: SharedSamples, candidate: BenchmarkResult, baseline: BenchmarkResult
) -> list[tuple[Reading, Reading, str]]:
    readings_of = benchmark_named(benchmark).readings

    def readings(sample: Mapping[str, Any], result: BenchmarkResult) -> list[Reading]:
        try:
            return readings_of(sample, result.settings)
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks the field {error}" if isinstance(error, KeyError) else f"has another form: {error}"
            raise NapoBenchError(
                f"{benchmark}: the sample {sample['sample_id']!r} {what}.", "Score the run's responses again."
            ) from None

    found = []
    for mine, theirs in shared.values():
        given = {reading.key: reading for reading in readings(theirs, baseline)}
        both = (one for one in readings(mine, candidate) if one.key in given)
        found += [(one, given[one.key], cluster_of(mine)) for one in both]
    return found


def remarks(benchmark: str, candidate: BenchmarkResult, baseline: BenchmarkResult) -> list[str]:
    """The notes of the two results about their numbers, each with the result that the note is about.

    A comparison resamples pictures also for runs of an earlier version, so their note about intervals is left out.
    """
    found = []
    for remark in dict.fromkeys([*baseline.remarks, *candidate.remarks]):
        if remark == SAMPLES_NOT_PICTURES:
            continue
        results = {"baseline": baseline, "candidate": candidate}
        about = [which for which, result in results.items() if remark in result.remarks]
        found.append(f"{benchmark}, {' and '.join(about)}: {remark}")
    old, new = (", ".join(fingerprints(result.settings)) or "none" for result in (baseline, candidate))
    if old != new:
        found.append(
            f"{benchmark}: the system fingerprints of judge or extractor differ: {old} (baseline), {new} (candidate)"
        )
    return found


def require_same_data(benchmark: str, candidate: RunResult, baseline: RunResult) -> None:
    """Raise a NapoBenchError if two runs scored a benchmark against different data files."""
    hashes = [run.provenance.data.of(benchmark) for run in (candidate, baseline)]
    differing = sorted(
        name for name in hashes[0].keys() | hashes[1].keys() if hashes[0].get(name) != hashes[1].get(name)
    )
    if differing:
        shown = ", ".join(f"{name} ({_short(hashes[0], name)} and {_short(hashes[1], name)})" for name in differing)
        raise NapoBenchError(
            f"{benchmark}: candidate and baseline were scored against different data: {shown}.",
            "Score both against the same data folder.",
        )


def differing_settings(candidate: BenchmarkResult, baseline: BenchmarkResult) -> dict[str, tuple[Any, Any]]:
    """Settings in which two results differ: name -> (candidate's, baseline's); None if a result lacks the setting.

    The reading of AMBER's yes/no answers, and LLaVA-1.5's conversation, count if both results have them. The system
    fingerprint of a judge does not count, because providers change it without notice: `remarks` names it.
    """
    names = [*candidate.settings, *(name for name in baseline.settings if name not in candidate.settings)]
    new, old = without_fingerprints(candidate.settings), without_fingerprints(baseline.settings)
    values = {name: (new.get(name), old.get(name)) for name in names}
    return {
        name: pair
        for name, pair in values.items()
        if pair[0] != pair[1] and (name not in ("answers", "conversation") or None not in pair)
    }


def require_same_settings(benchmark: str, candidate: BenchmarkResult, baseline: BenchmarkResult) -> None:
    """Raise a NapoBenchError if two results were measured in different ways, or if one is mapped and has no samples.

    The error names each difference.
    """
    for which, result in (("candidate", candidate), ("baseline", baseline)):
        if result.mapped_from:
            raise NapoBenchError(
                f"{benchmark}: the numbers of the {which} are mapped from {result.mapped_from}, so there are no "
                "samples to compare.",
                "Compare the runs that were mapped. A gate may set a floor or a ceiling for a mapped number.",
            )
    differing = differing_settings(candidate, baseline)
    if not differing:
        return
    rated = benchmark_named(benchmark).rated
    hint = "Evaluate both with the same generation profile, judge and text pipeline."
    if rated is not None and set(differing) <= set(rated.settings):
        hint = (
            f"Rate the answers of both in one way: napo-bench score {benchmark.replace('_', '-')} --responses with the "
            "file in the run's responses/. Or map one run's ratings onto the other's: napo-bench judge map."
        )
    shown = "; ".join(f"{name} {new!r} and {old!r}" for name, (new, old) in differing.items())
    raise NapoBenchError(f"{benchmark}: candidate and baseline were measured in different ways: {shown}.", hint)


def require_no_doubt(benchmark: str, result: BenchmarkResult, which: str) -> None:
    """Raise a NapoBenchError if the numbers of a result are no measurement."""
    if result.doubts:
        raise NapoBenchError(
            f"Could not judge: {benchmark} of the {which} is no measurement. {'; '.join(result.doubts)}.",
            "Look at the answers (napo-bench report RUN --format html), and evaluate again.",
        )


def require_stated_values(benchmark: str, result: BenchmarkResult, where: str) -> None:
    """Raise a NapoBenchError if a result's metrics are not those of its samples (edited, or of another run)."""
    known = benchmark_named(benchmark)
    sums = counts_of(result.samples, f"{where}: {benchmark}").total
    for name, stated in result.metrics.items():
        metric = known.metric(name)
        if metric is None or metric.count not in sums:
            continue
        value = float(metric.function(sums))
        if abs(value - stated.value) > _STATED_WITHIN:
            raise NapoBenchError(
                f"{where}: {benchmark}.{name} says {stated.value:g}, but its samples give {value:g}.",
                "JSON file and samples folder belong to different runs, or one was edited. Score the responses again.",
            )


def shared_metrics(benchmark: str, candidate: BenchmarkResult, baseline: BenchmarkResult) -> list[Metric]:
    """The metrics that both results have, in the order of Table 1."""
    return [
        metric
        for metric in benchmark_named(benchmark).metrics
        if metric.name in candidate.metrics and metric.name in baseline.metrics
    ]


def covered_metrics(metrics: Sequence[Metric], pairs: Pairs) -> tuple[list[Metric], list[str]]:
    """The metrics whose count a shared sample of each result has, and a note about the others.

    Raises:
        NapoBenchError: a metric needs a count that no sample has.
    """
    totals = [counts.total for counts in pairs.counts]
    covered = [metric for metric in metrics if all(metric.count in total for total in totals)]
    for metric, total in itertools.product(covered, totals):
        try:
            metric.function(total)
        except KeyError as error:
            raise NapoBenchError(
                f"The metric {metric.key} needs the count {error}, which no sample has.",
                "The samples file was edited or damaged: score the responses again.",
            ) from None
    left = [metric.key for metric in metrics if metric not in covered]
    return covered, [f"{', '.join(left)}: covers no sample that both runs have, and is not compared"] if left else []


def paired_metrics(metrics: Sequence[Metric], pairs: Pairs, level: float = 0.95) -> list[PairedMetric]:
    """Both values and the difference of metrics over the shared samples.

    Args:
        metrics: Metrics of one benchmark.
        pairs: The shared samples.
        level: Coverage of the intervals.
    """
    new, old = (counts.total for counts in pairs.counts)
    n = {metric.key: min(new.get(metric.count, 0.0), old.get(metric.count, 0.0)) for metric in metrics}
    sides = pairs.by_cluster
    clusters = {
        metric.key: min(int(np.count_nonzero(side.column(metric.count))) for side in sides) for metric in metrics
    }
    intervals = stats.paired_intervals(
        *sides,
        {metric.key: metric.function for metric in metrics},
        level=level,
        spans={metric.key: span for metric in metrics if (span := metric.span(clusters[metric.key])) is not None},
    )
    return [
        PairedMetric(
            metric,
            float(metric.function(new)),
            float(metric.function(old)),
            intervals[metric.key],
            round(n[metric.key]),
            clusters[metric.key],
        )
        for metric in metrics
    ]


@without_collection
def compare(candidate: RunResult, baseline: RunResult) -> Comparison:
    """Compare every metric that two runs share.

    Raises:
        NapoBenchError: the runs share no benchmark, or a shared benchmark was scored against other data or in another
            way.
    """
    shared = [name for name in candidate.benchmarks if name in baseline.benchmarks]
    if not shared:
        raise NapoBenchError(
            f"The runs share no benchmark: {_names(candidate.benchmarks)} and {_names(baseline.benchmarks)}.",
            "Compare two runs of the same suite.",
        )
    notes = [
        f"{name} is in one run only, and not compared"
        for name in candidate.benchmarks.keys() ^ baseline.benchmarks.keys()
    ]
    measured: list[tuple[PairedMetric, str, float]] = []
    changes: list[SampleChange] = []
    same: dict[str, SameAnswers] = {}
    for name in shared:
        new, old = candidate.benchmarks[name], baseline.benchmarks[name]
        require_same_data(name, candidate, baseline)
        require_same_settings(name, new, old)
        metrics = shared_metrics(name, new, old)
        if not metrics:
            notes += [f"{name} has no metric in one of the runs, and is not compared", *remarks(name, new, old)]
            continue
        samples = shared_samples(name, new, old, "counts")
        pairs = _pairs_of(name, samples, new, old)
        notes += [*remarks(name, new, old), *_judge_notes(metrics, new, old)]
        if pairs.unshared:
            notes.append(f"{name} is compared over the {len(pairs.keys)} samples that both runs have")
        metrics, uncovered = covered_metrics(metrics, pairs)
        notes += uncovered
        p_values = _p_values(metrics, pairs)
        measured += [(paired, *p_values[paired.metric.key]) for paired in paired_metrics(metrics, pairs)]
        changes += [change for metric in metrics if metric.decides for change in _changes(metric, pairs)]
        if texts := [(mine.text, theirs.text) for mine, theirs, _ in _answers_of(name, samples, new, old)]:
            same[name] = SameAnswers(len(texts), sum(mine == theirs for mine, theirs in texts))
    adjusted = stats.holm({paired.metric.key: p_value for paired, _, p_value in measured})
    rows = [MetricComparison(paired, test, p_value, adjusted[paired.metric.key]) for paired, test, p_value in measured]
    return Comparison(rows, changes, same, notes)


def _p_values(metrics: Sequence[Metric], pairs: Pairs) -> dict[str, tuple[str, float]]:
    """Metric key -> (test, p-value)."""
    exact = [metric for metric in metrics if metric.pass_fail and pairs.are_independent and _is_whole(metric, pairs)]
    permuted = {metric.key: metric.function for metric in metrics if metric not in exact}
    p_values = stats.permutation_p_values(*pairs.by_cluster, permuted)
    found = {key: ("permutation", p_value) for key, p_value in p_values.items()}
    for metric in exact:
        changes = _changes(metric, pairs)
        improved = sum(change.improved for change in changes)
        found[metric.key] = ("exact McNemar", stats.mcnemar(improved, len(changes) - improved))
    return found


def _is_whole(metric: Metric, pairs: Pairs) -> bool:
    """Whether every sample passes or fails. A sample with several ratings may do both, in parts."""
    values = np.concatenate(pairs.values(metric))
    values = values[~np.isnan(values)]
    high = metric.high or 1.0
    # AMBER's denominators start at 0.001 and its numbers are rounded, so one right answer has 99.9%.
    return bool((np.minimum(np.abs(values), np.abs(high - values)) < _PART * high).all())


def _judge_notes(metrics: Sequence[Metric], candidate: BenchmarkResult, baseline: BenchmarkResult) -> list[str]:
    """One note for each metric of Table 1 with the difference by each judge, if several judges rated."""
    judges = judges_of(candidate.settings)
    if len(judges) < 2:
        return []
    by_metric: dict[str, list[str]] = {}
    for judge in judges:
        new, old = (
            replace(result, samples=[of_judge(sample, judge) for sample in result.samples])
            for result in (candidate, baseline)
        )
        pairs = pair_samples(metrics[0].benchmark, new, old)
        in_table = [metric for metric in metrics if metric.in_table]
        for row in paired_metrics(covered_metrics(in_table, pairs)[0], pairs):
            low, high = (f"{end:+.{row.metric.decimals}f}" for end in row.interval)
            by_metric.setdefault(row.metric.key, []).append(
                f"{judge} {row.difference:+.{row.metric.decimals}f} ({low} to {high})"
            )
    return [f"{key} by each judge: {'; '.join(texts)}" for key, texts in by_metric.items()]


def _changes(metric: Metric, pairs: Pairs) -> list[SampleChange]:
    new, old = pairs.values(metric)
    changed = np.flatnonzero((new != old) & ~np.isnan(new) & ~np.isnan(old)).tolist()
    return [SampleChange(metric, *pairs.keys[place], float(old[place]), float(new[place])) for place in changed]


def _by_key(
    samples: Iterable[Mapping[str, Any]], where: str, fields: Sequence[str]
) -> dict[SampleKey, Mapping[str, Any]]:
    found: dict[SampleKey, Mapping[str, Any]] = {}
    for number, sample in enumerate(samples, start=1):
        for name in ("unit", "sample_id", *fields):
            if name not in sample:
                raise NapoBenchError(f"{where}, sample {number}: the field {name!r} is missing.")
        key = (str(sample["unit"]), str(sample["sample_id"]))
        if key in found:
            raise NapoBenchError(f"{where}: the sample {key[1]!r} ({key[0]}) stands there twice.")
        found[key] = sample
    return found


def _short(hashes: Mapping[str, str], name: str) -> str:
    return hashes[name][:12] if name in hashes else "absent"


def _names(benchmarks: Iterable[str]) -> str:
    return ", ".join(benchmarks) or "none"
