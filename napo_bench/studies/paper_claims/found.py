"""What the laboratory measured, read from what its finished steps left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from napo_bench.benchmarks.metrics import metric_named
from napo_bench.benchmarks.result import MetricValue
from napo_bench.core import files
from napo_bench.runs.result import RunResult
from napo_bench.runs.seeds import pooled
from napo_bench.studies.experiment import Experiment
from napo_bench.studies.paper_claims.claims import (
    COMPARED,
    Verdict,
    margin_claims,
    metric_claims,
    verdicts_on,
)
from napo_bench.studies.paper_claims.laboratory import PROBED, Laboratory
from napo_bench.studies.paper_claims.margins import (
    MARGINS,
    Negatives,
    Separation,
    all_margins,
    read_log_probs,
    read_negatives,
    separation,
)
from napo_bench.trainers.negatives import BIASED
from napo_bench.trainers.output import LOG


@dataclass(frozen=True)
class Found:
    """Everything that the laboratory measured.

    Attributes:
        laboratory: The laboratory.
        base: Evaluation of the base.
        runs: Percentage of swapped labels -> method -> its evaluations, one for each seed.
        changed: Part -> method -> its evaluations after training on the part's changed rows, one for each seed.
        logs: Method -> its training logs on unchanged rows, one for each seed.
        negatives: Kind -> the biased negatives of that kind; empty without the tables.
        margins: Policy -> (kind, margin) -> margins of this kind's negatives, one array for each seed.
    """

    laboratory: Laboratory
    base: RunResult
    runs: Mapping[int, Mapping[str, list[RunResult]]]
    changed: Mapping[str, Mapping[str, list[RunResult]]]
    logs: Mapping[str, list[list[dict[str, Any]]]]
    negatives: Mapping[str, Negatives]
    margins: Mapping[str, Mapping[tuple[str, str], list[Any]]]

    @cached_property
    def separations(self) -> list[Separation]:
        """Each probed method, kind and margin."""
        return [
            separation(policy, kind, margin, self.negatives[kind], by_margin[kind, margin])
            for policy, by_margin in self.margins.items()
            for kind in BIASED
            for margin in MARGINS
        ]

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """The verdicts on the claims whose two quantities were measured."""
        return verdicts_on([*metric_claims(), *margin_claims(PROBED)], self._measured())

    def estimate(self, percent: int, method: str, key: str) -> MetricValue | None:
        """A metric over seeds."""
        return metric_of(self.pooled[percent, method], key)

    @cached_property
    def pooled(self) -> dict[tuple[int, str], RunResult]:
        """(Percentage of swapped labels, method) -> means over seeds."""
        return {
            (percent, method): pooled(runs)
            for percent, methods in self.runs.items()
            for method, runs in methods.items()
        }

    def _measured(self) -> dict[str, list[float]]:
        measured = {}
        for method, runs in self.runs[0].items():
            for key in COMPARED:
                values = [metric_of(run, key) for run in runs]
                measured[f"{method} {key}"] = [value.value for value in values if value is not None]
        for found in self.separations:
            measured[f"{found.policy} auc {found.kind} {found.margin}"] = found.aucs
        for kind, negatives in self.negatives.items():
            for name, part in noise_parts(negatives):
                measured[f"length {kind} {name}"] = negatives.length_margins[part].tolist()
        return measured


def read_found(laboratory: Laboratory) -> Found:
    """Read what the finished steps of the laboratory left."""
    main = laboratory.main
    logs: dict[str, list[list[dict[str, Any]]]] = {}
    for trained in main.trained():
        logs.setdefault(trained.method, []).append(files.read_jsonl(trained.model / LOG))
    margins: dict[str, dict[tuple[str, str], list[Any]]] = {}
    negatives: dict[str, Negatives] = {}
    if laboratory.probed:
        recipe, cache = laboratory.probing, laboratory.cache
        base = read_log_probs(main.checkpoint, recipe, cache)
        negatives = read_negatives(main.checkpoint, recipe, cache, base)
        for trained in laboratory.probed:
            policy = read_log_probs(str(trained.model), recipe, cache)
            for key, values in all_margins(recipe, policy, base, negatives).items():
                margins.setdefault(trained.method, {}).setdefault(key, []).append(values)
    return Found(
        laboratory,
        RunResult.load(main.base_run, samples=False),
        {0: _runs(main)} | {percent: _runs(experiment) for percent, experiment in laboratory.swapped.items()},
        {part: _runs(experiment) for part, experiment in laboratory.changed.items()},
        logs,
        negatives,
        margins,
    )


def _runs(experiment: Experiment) -> dict[str, list[RunResult]]:
    runs: dict[str, list[RunResult]] = {}
    for trained in experiment.trained():
        runs.setdefault(trained.method, []).append(RunResult.load(trained.run, samples=False))
    return runs


def metric_of(run: RunResult, key: str) -> MetricValue | None:
    """A metric of a run by its key, "vlind.cb"; None if the run lacks the metric."""
    metric = metric_named(key)
    return run.benchmarks[metric.benchmark].metrics.get(metric.name)


def noise_parts(negatives: Negatives) -> tuple[tuple[str, Any], tuple[str, Any]]:
    """The two parts of the negatives, each with its name and a mask."""
    return ("noise-free", ~negatives.noisy), ("noisy", negatives.noisy)


def mean_log(logs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One training log for several seeds: the mean of each number at each step that all logs contain."""
    by_step = [{line["step"]: line for line in log} for log in logs]
    return [
        {
            key: fmean(lines[step][key] for lines in by_step)
            for key in line
            if all(isinstance(lines[step].get(key), (int, float)) for lines in by_step)
        }
        | {"step": step}
        for step, line in by_step[0].items()
        if all(step in lines for lines in by_step)
    ]
