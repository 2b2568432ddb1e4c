"""How often the interval of a mapped score and HalRate of MMHal-Bench covers the truth, by simulation.

    python scripts/simulate_maps.py --trials 400

Judge B's rating depends on judge A's by a known table of probabilities. Answers of one model are rated by both, and the
answers of another model by A alone. In the last lines the map's assumption is wrong: B rates the other model's answers
higher, or lower, than its map says.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np

from napo_bench.benchmarks.mmhal import RATED
from napo_bench.benchmarks.mmhal.score import question_counts
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.rating_map import map_ratings
from napo_bench.runs.ratings import Item, NamedResult, Ratings
from napo_bench.runs.result import RunResult

LEVELS = np.arange(7)
OLD = np.array([0.12, 0.25, 0.13, 0.18, 0.17, 0.05, 0.10])
"""Share of each rating by A in the answers that both rated."""
BETTER = np.array([0.06, 0.14, 0.12, 0.22, 0.22, 0.08, 0.16])
"""Share of each rating by A in the answers of a better model."""
MAP = np.exp(-0.5 * ((LEVELS - 0.7 * LEVELS[:, None] - 0.2) / 1.1) ** 2)
MAP /= MAP.sum(axis=1, keepdims=True)
"""Probability of B's rating (column) given A's (row)."""


ALIKE = 0.4
"""Share of the answers about a picture with the ratings of the first answer about the picture."""


@dataclass(frozen=True)
class Study:
    """One simulated study.

    Attributes:
        pairs: Number of answers that both rated.
        answers: Number of answers of the run, each about a picture of its own.
        shares: Share of each rating by A in the run.
        a_picture: Number of answers about one picture among the pairs; the run's pictures are the same.
        bias: By how much B rates the run's answers higher than the map says.
    """

    pairs: int
    answers: int
    shares: Any
    a_picture: int = 1
    bias: float = 0.0


STUDIES = (
    Study(60, 96, OLD),
    Study(120, 96, OLD),
    Study(120, 96, BETTER),
    Study(288, 96, BETTER, a_picture=3),
    Study(150, 300, BETTER),
    Study(600, 1000, BETTER),
    Study(288, 96, BETTER, bias=0.3),
    Study(288, 96, BETTER, bias=-0.3),
)


def rate(shares: Any, n: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Ratings of A with these shares, and ratings of B by the map."""
    first = rng.choice(7, n, p=shares)
    return first, (MAP.cumsum(axis=1)[first] < rng.random((n, 1))).sum(axis=1)


def truth(study: Study) -> tuple[float, float]:
    """The score and the HalRate that B would give the run's model."""
    table = study.shares @ MAP
    # A bias moves that share of B's ratings by one point.
    share = abs(study.bias)
    moved = np.roll(table, 1 if study.bias > 0 else -1)
    moved[0 if study.bias > 0 else -1] = 0.0
    moved[-1 if study.bias > 0 else 0] += table[-1 if study.bias > 0 else 0]
    table = (1 - share) * table + share * moved
    return float(table @ LEVELS), float(table[:3].sum())


def ratings_of(study: Study, rng: np.random.Generator) -> Ratings:
    """The answers of a study with their ratings."""
    first, second = rate(study.shares if study.bias else OLD, study.pairs, rng)
    if study.a_picture > 1:
        # Answers about one picture depend on each other: two in five are rated like the first answer about it.
        alike = np.arange(study.pairs) // study.a_picture * study.a_picture
        same = rng.random(study.pairs) < ALIKE
        first, second = np.where(same, first[alike], first), np.where(same, second[alike], second)
    own, _ = rate(study.shares, study.answers, rng)
    items = [
        Item(str(n), str(n // study.a_picture), set(), {"A": [question_counts(a)], "B": [question_counts(b)]})
        for n, (a, b) in enumerate(zip(first, second, strict=True))
    ]
    items += [Item(str(n), str(n), {"run"}, {"A": [question_counts(rating)]}) for n, rating in enumerate(own)]
    return Ratings("mmhal", RATED, items, [], {})


def trial(study: Study, seed: list[int]) -> dict[str, float] | None:
    """Whether the intervals cover, whether the run was warned of, and the width of the score's; None if refused."""
    ratings = ratings_of(study, np.random.default_rng(seed))
    run = NamedResult("run", RunResult({}), BenchmarkResult({}))
    try:
        found = map_ratings(ratings, [run], "A", "B", precision=6.0).runs[0]
    except NapoBenchError:
        return None
    result = {"warned": float(any("distributed differently" in note for note in found.notes))}
    for one, true in zip(found.metrics, truth(study), strict=True):
        result[one.metric.name] = float(one.ci95[0] <= true <= one.ci95[1])
        result[f"{one.metric.name} of answers"] = float(one.of_answers[0] <= true <= one.of_answers[1])
    low, high = found.metrics[0].ci95
    return {**result, "width": high - low}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--trials", type=int, default=400)
    trials = parser.parse_args().trials
    print("| both rated | run | B differs | score | HalRate | answers alone | width | warned | refused |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for number, study in enumerate(STUDIES):
        results = [trial(study, [number, n]) for n in range(trials)]
        done = [result for result in results if result is not None]
        mean = {name: float(np.mean([result[name] for result in done])) for name in done[0]}
        model = "like the pairs" if study.shares is OLD or study.bias else "better"
        about = "" if study.a_picture == 1 else f", {study.a_picture} a picture"
        shown = [f"{mean[name]:.1%}" for name in ("score", "hal_rate", "score of answers")]
        refused = f"{1 - len(done) / trials:.0%}"
        print(
            f"| {study.pairs}{about} | {study.answers}, {model} | {study.bias:+.1f} | {' | '.join(shown)} "
            f"| {mean['width']:.2f} | {mean['warned']:.0%} | {refused} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
