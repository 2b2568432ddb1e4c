"""Are there enough ratings of the same answers for a map between two raters? If not, how many would do?"""

from __future__ import annotations

import math
from collections.abc import Sequence

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.benchmark import Metric
from napo_bench.benchmarks.rated import Steps
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.runs.map_sums import MapSums, histogram
from napo_bench.runs.ratings import SAME_ANSWER, Item, NamedResult, Ratings

FEWEST_CLUSTERS = 20
"""With fewer pictures the variance of the map is unknown."""
FEWEST_A_LEVEL = 3
"""With fewer pairs the mean of a level is unknown."""
SPARSE = 0.1
"""Share of a run's answers that may have levels with fewer pairs."""

_Z = 1.96


def require_raters(ratings: Ratings, runs: Sequence[NamedResult], first: str, second: str) -> None:
    """Raise NapoBenchError if a rater has no ratings, or if a run has none of the first rater."""
    if first == second:
        others = [rater for rater in ratings.raters if rater != first]
        raise NapoBenchError(
            f"--from and --to are both {first!r}.",
            f"Give another rater as --to: {', '.join(others)}."
            if others
            else "Give ratings of another rater: --ratings",
        )
    for option, rater in (("--from", first), ("--to", second)):
        if rater not in ratings.raters:
            raise unknown_name("rater", rater, ratings.raters, option)
    for run in runs:
        if not any(first in item.by for item in ratings.of_run(run.name)):
            raters = dict.fromkeys(rater for item in ratings.of_run(run.name) for rater in item.by)
            raise NapoBenchError(
                f"The run {run.name} has no ratings of {first}; its raters: {', '.join(raters) or 'none'}.",
                f"Rate its answers by {first}, or give another --from.",
            )


def require_pairs(
    ratings: Ratings, pairs: Sequence[Item], clusters: int, raters: tuple[str, str], precision: float
) -> None:
    """Raise NapoBenchError if both raters rated too few answers to know the variance of a map."""
    if clusters >= FEWEST_CLUSTERS:
        return
    if not pairs:
        raise NapoBenchError(f"No answer is rated by both {raters[0]} and {raters[1]}.", SAME_ANSWER)
    metric = benchmark_named(ratings.benchmark).metric(ratings.rated.metrics[0])
    assert metric is not None and metric.high is not None
    enough = math.ceil((_Z * metric.high / 2 / precision) ** 2)
    raise NapoBenchError(
        f"{len(pairs)} answers about {clusters} pictures are rated by both {raters[0]} and {raters[1]}; "
        f"{FEWEST_CLUSTERS} pictures or more are needed to say how uncertain a map is.",
        f"Give more ratings of the same answers with --ratings. {enough} are always enough for ±{precision:g} of "
        f"{metric.key}; with {FEWEST_CLUSTERS} pictures, this command says how many these raters need.",
    )


def require_levels(sums: MapSums, pairs: Sequence[Item], own: Sequence[Item], run: str) -> None:
    """Raise NapoBenchError if a run has levels about which the pairs say too little."""
    first, second = sums.first, sums.second
    for how in dict.fromkeys(how for how in sums.rated.predicted.values() if isinstance(how, Steps)):
        have, used = histogram(how, first, pairs), histogram(how, first, own)
        share = {level: count / len(own) for level, count in used.items()}
        few = [level for level in used if have.get(level, 0.0) < FEWEST_A_LEVEL]
        outside = [level for level in few if not min(have) <= level <= max(have)]
        if not outside and sum(share[level] for level in few) <= SPARSE:
            continue
        shown = "; ".join(
            f"{how.by.replace('_', ' ')} {how.text(level)} ({share[level]:.0%} of the run's answers, "
            f"{have.get(level, 0.0):.3g} rated by both)"
            for level in few
        )
        lacking = ", ".join(
            f"{math.ceil(FEWEST_A_LEVEL - have.get(level, 0.0))} with {how.text(level)}" for level in few
        )
        raise NapoBenchError(
            f"{run}: the map says too little about answers of some levels of {first}, because {second} rated too few: "
            f"{shown}.",
            f"Let {second} rate more answers: {lacking} would do.",
        )


def require_precision(
    sums: MapSums, metric: Metric, of_map: tuple[float, float], pairs: int, run: str, precision: float
) -> None:
    """Raise NapoBenchError if the map alone gives a metric a wider interval than wanted."""
    half = (of_map[1] - of_map[0]) / 2
    if half > precision:
        raise NapoBenchError(
            f"{run}: {pairs} answers rated by {sums.first} and by {sums.second} give the map of {metric.key} an "
            f"interval of ±{half:.2g}; ±{precision:g} is wanted.",
            f"About {math.ceil(pairs * (half / precision) ** 2)} such answers would do. Or give a larger --precision.",
        )
