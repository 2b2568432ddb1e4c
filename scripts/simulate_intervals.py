"""Coverage of the nominal 95% intervals, by simulation, for each kind of metric and for paired differences.

    python scripts/simulate_intervals.py --trials 2000

Each trial draws a benchmark of the stated size from a known population, computes the interval, and checks whether the
interval contains the population's value.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from napo_bench.core import stats

Rows = list[dict[str, float]]
Draw = Callable[[np.random.Generator, int], Rows]

RATINGS = (0.20, 0.15, 0.19, 0.10, 0.10, 0.06, 0.20)
POPULATION = 400_000


def share(p: float) -> Draw:
    """Answers that pass or fail: CHAIRs, HalRate, CK, VP, accuracy."""
    return lambda rng, n: [{"part": float(x), "whole": 1.0} for x in rng.random(n) < p]


def ratio(p: float) -> Draw:
    """Hallucinated mentions of all mentions: CHAIRi, AMBER's CHAIR. Some answers hallucinate more than others."""

    def draw(rng: np.random.Generator, n: int) -> Rows:
        mentions = rng.poisson(rng.gamma(4, 1.5, n))
        wrong = rng.binomial(mentions, rng.beta(3 * p, 3 * (1 - p), n))
        return [{"part": float(w), "whole": float(m)} for w, m in zip(wrong, mentions, strict=True)]

    return draw


def conditional(p: float, eligible: float) -> Draw:
    """A share of images over the eligible instances: LP."""

    def draw(rng: np.random.Generator, n: int) -> Rows:
        images = rng.integers(1, 13, n)
        shares = rng.binomial(images, rng.beta(1.5 * p, 1.5 * (1 - p), n)) / images
        return [
            {"part": float(s * e), "whole": float(e)} for s, e in zip(shares, rng.random(n) < eligible, strict=True)
        ]

    return draw


def rating(rng: np.random.Generator, n: int) -> Rows:
    """MMHal's score."""
    return [{"part": float(x), "whole": 100.0} for x in rng.choice(len(RATINGS), n, p=RATINGS)]


def answers(rng: np.random.Generator, n: int) -> Rows:
    """Yes/no answers for F1."""
    truth = rng.random(n) < 0.6
    given = np.where(truth, rng.random(n) < 0.7, rng.random(n) < 0.2)
    return [{"both": float(t and g), "given": float(g), "truth": float(t)} for t, g in zip(truth, given, strict=True)]


def percent(sums: stats.Sums) -> object:
    return 100 * sums["part"] / np.maximum(sums["whole"], 1e-9)


def f1(sums: stats.Sums) -> object:
    precision, recall = (sums["both"] / np.maximum(sums[name], 1) for name in ("given", "truth"))
    return 200 * precision * recall / np.maximum(precision + recall, 1e-9)


CASES: list[tuple[str, int, Draw, stats.MetricFunction]] = [
    ("share of 35%", 96, share(0.35), percent),
    ("share of 50%", 300, share(0.50), percent),
    ("share of 10%", 300, share(0.10), percent),
    ("share of 30%", 1004, share(0.30), percent),
    ("ratio of sums, 15%", 300, ratio(0.15), percent),
    ("ratio of sums, 7%", 1004, ratio(0.07), percent),
    ("conditional share, 1 in 2", 300, conditional(0.35, 0.5), percent),
    ("conditional share, 1 in 10", 300, conditional(0.35, 0.1), percent),
    ("mean rating", 96, rating, percent),
    ("F1", 1000, answers, f1),
    ("F1", 4924, answers, f1),
]
PAIRED: list[tuple[str, int, Callable[[float], Draw]]] = [
    ("difference of shares", 300, share),
    ("difference of ratios", 300, ratio),
    ("difference of conditional shares", 300, lambda p: conditional(p, 0.5)),
]


def truth(draw: Draw, metric: stats.MetricFunction) -> float:
    rows = draw(np.random.default_rng(0), POPULATION)
    return float(metric({name: np.float64(sum(row[name] for row in rows)) for name in rows[0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    options = parser.parse_args()
    print(f"{'kind of metric':34s} {'n':>5s} {'coverage':>9s} {'mean width':>11s}")

    def report(kind: str, n: int, value: float, intervals: list[tuple[float, float]]) -> None:
        covered = np.mean([low <= value <= high for low, high in intervals])
        width = np.mean([high - low for low, high in intervals])
        print(f"{kind:34s} {n:5d} {covered:9.1%} {width:11.2f}", flush=True)

    for kind, n, draw, metric in CASES:
        rng = np.random.default_rng(1)
        spans = {"m": stats.Span(0, 100, n)}
        intervals = [
            stats.bootstrap_intervals(draw(rng, n), {"m": metric}, options.resamples, trial, spans=spans)["m"]
            for trial in range(options.trials)
        ]
        report(kind, n, truth(draw, metric), intervals)
    for kind, n, make in PAIRED:
        rng = np.random.default_rng(2)
        low, high = make(0.25), make(0.35)
        intervals = []
        for trial in range(options.trials):
            old, new = low(rng, n), high(rng, n)
            paired = stats.paired_intervals(new, old, {"m": percent}, options.resamples, trial)
            intervals.append(paired["m"])
        report(kind, n, truth(high, percent) - truth(low, percent), intervals)


if __name__ == "__main__":
    main()
