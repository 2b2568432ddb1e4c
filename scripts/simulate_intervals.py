"""Coverage of the nominal 95% intervals, by simulation, for each kind of metric and for paired differences.

    python scripts/simulate_intervals.py --trials 2000
    python scripts/simulate_intervals.py --trials 4000 --resamples 4000 --clusters

Each trial draws a benchmark of the stated size from a known population, computes the interval, and checks whether the
interval contains the population's value. With `--clusters`, a picture has several questions whose answers correlate.
Then the script also states how often two equally good models differ significantly (5% is right), and how often a gate
of 95% confidence that allows no regression fails one of them (5% is right).
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from napo_bench.core import stats

Rows = list[dict[str, float]]
Draw = Callable[[np.random.Generator, int], Rows]
Sizes = NDArray[np.int64]

RATINGS = (0.20, 0.15, 0.19, 0.10, 0.10, 0.06, 0.20)
POPULATION = 400_000

# Questions about pictures: as in AMBER's discriminative half, and few pictures of very unequal numbers.
RIGHT = 0.3
CORRELATIONS = (0.0, 0.05, 0.1, 0.2, 0.5)
SIZES: dict[str, Callable[[np.random.Generator], Sizes]] = {
    "1004 pictures, 14 each": lambda rng: np.full(1004, 14),
    "1004 pictures, 1 to 27": lambda rng: rng.integers(1, 28, 1004),
    "200 pictures, 1 to 60, skewed": lambda rng: np.ceil(60 * rng.random(200) ** 4).astype(np.int64),
}


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


def answers_about(sizes: Sizes, correlation: float, rng: np.random.Generator, models: int) -> list[Rows]:
    """The summed right answers of equally good models to the questions of each picture.

    Answers of a model to two questions about one picture have the given correlation.

    Args:
        sizes: Number of questions about each picture `[P]`.
        correlation: The correlation, from 0 to below 1.
        rng: Generator.
        models: Number of models.
    """
    found = []
    for _ in range(models):
        spread = (1 - correlation) / correlation if correlation else 0.0
        rates = (
            rng.beta(RIGHT * spread, (1 - RIGHT) * spread, len(sizes)) if correlation else np.full(len(sizes), RIGHT)
        )
        right = rng.binomial(sizes, rates)
        found.append([{"part": float(x), "whole": float(size)} for x, size in zip(right, sizes, strict=True)])
    return found


def report_clusters(trials: int, resamples: int) -> None:
    """Print the coverage over pictures and over answers, and two rates of false alarms."""
    columns = ("pictures", "answers", "p < 5%", "gate 5%")
    print(f"{'questions':30s} {'correlation':>11s}" + "".join(f"{column:>10s}" for column in columns))
    for label, draw in SIZES.items():
        for correlation in CORRELATIONS:
            rng = np.random.default_rng(3)
            count = Counter[str]()
            for trial in range(trials):
                pictures = answers_about(draw(rng), correlation, rng, models=2)
                right, asked = (round(sum(row[name] for row in pictures[0])) for name in ("part", "whole"))
                single = [{"part": 1.0, "whole": 1.0}] * right + [{"part": 0.0, "whole": 1.0}] * (asked - right)
                for column, units in (("pictures", pictures[0]), ("answers", single)):
                    low, high = stats.bootstrap_intervals(units, {"m": percent}, resamples, trial)["m"]
                    count[column] += low <= 100 * RIGHT <= high
                p_value = stats.permutation_p_values(*pictures, {"m": percent}, resamples, trial)["m"]
                count["p < 5%"] += p_value < 0.05
                _, highest = stats.paired_intervals(*pictures, {"m": percent}, resamples, trial, level=0.9)["m"]
                count["gate 5%"] += highest < 0
            shares = "".join(f"{count[column] / trials:10.1%}" for column in columns)
            print(f"{label:30s} {correlation:11g}{shares}", flush=True)


def truth(draw: Draw, metric: stats.MetricFunction) -> float:
    rows = draw(np.random.default_rng(0), POPULATION)
    return float(metric({name: np.float64(sum(row[name] for row in rows)) for name in rows[0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--clusters", action="store_true", help="several questions about a picture")
    options = parser.parse_args()
    if options.clusters:
        report_clusters(options.trials, options.resamples)
        return
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
