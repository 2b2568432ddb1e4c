"""How often the interval of a score over several judges contains the score of all judges on all questions.

A simulated benchmark has 96 questions. A rating is the sum of the question's mean, the judge's severity, and the noise
of the judge on the question. The three are normal. Questions and judges are drawn anew for each benchmark.

    python scripts/simulate_judges.py
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from napo_bench.core.judge_noise import NoiseIntervals, noise_intervals
from napo_bench.core.stats import bootstrap_intervals

QUESTIONS = 96
OF_QUESTIONS = 1.6  # standard deviation of MMHal-Bench's ratings of one model
OF_RATINGS = 0.8
TRUE = 3.0


def main() -> None:
    """Print the coverage for numbers of judges, and for how much judges differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    arguments = parser.parse_args()
    lines = []
    for judges in (2, 3, 5):
        for severity in (0.0, 0.1, 0.2, 0.3, 0.5):
            covered = {"samples": 0, "both": 0}
            reach = 0.0
            generator = np.random.default_rng([judges, round(10 * severity)])
            for _ in range(arguments.trials):
                questions = generator.normal(TRUE, OF_QUESTIONS, (QUESTIONS, 1))
                ratings = questions + generator.normal(0, severity, judges)
                ratings = ratings + generator.normal(0, OF_RATINGS, ratings.shape)
                found = _intervals(ratings, arguments.resamples)
                for part in covered:
                    low, high = getattr(found, part)
                    covered[part] += low <= TRUE <= high
                reach += (found.both[1] - found.both[0]) / 2
            shares = [f"{100 * count / arguments.trials:.1f}%" for count in covered.values()]
            lines.append([judges, severity, *shares, f"{reach / arguments.trials:.2f}"])
    heads = ["judges", "judges differ by (SD)", "covered by `samples`", "covered by `both`", "mean reach of `both`"]
    print(tabulate(lines, heads, tablefmt="pipe"))


def _intervals(ratings: NDArray[np.float64], resamples: int) -> NoiseIntervals:
    counts = [[[{"n": 1.0, "sum": float(rating)}] for rating in judge] for judge in ratings.T]
    means = [{"n": 1.0, "sum": float(mean)} for mean in ratings.mean(axis=1)]
    metrics = {"score": lambda sums: sums["sum"] / sums["n"]}
    pictures = bootstrap_intervals(means, metrics, resamples)
    ends = {"score": (-np.inf, np.inf)}
    return noise_intervals(counts, range(len(means)), metrics, pictures, ends)["score"]


if __name__ == "__main__":
    main()
