"""Intervals of scores that are means over ratings, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as reference

from napo_bench.core.judge_noise import NoiseIntervals, noise_intervals
from napo_bench.core.stats import bootstrap_intervals

ANSWERS = 200


def intervals_of(ratings: NDArray[Any], clusters: list[Any] | None = None) -> NoiseIntervals:
    """The intervals of the mean of ratings `[J, N, K]` from 0 to 100."""
    counts = [[[{"n": 1.0, "sum": float(x)} for x in own] for own in judge] for judge in ratings]
    metrics = {"mean": lambda sums: sums["sum"] / sums["n"]}
    clusters = list(range(ratings.shape[1])) if clusters is None else clusters
    means: dict[Any, dict[str, float]] = {}
    for cluster, mean in zip(clusters, ratings.mean(axis=(0, 2)), strict=True):
        row = means.setdefault(cluster, {"n": 0.0, "sum": 0.0})
        row["n"] += 1
        row["sum"] += float(mean)
    pictures = bootstrap_intervals(list(means.values()), metrics)
    return noise_intervals(counts, clusters, metrics, pictures, {"mean": (0.0, 100.0)})["mean"]


def ratings(judges: int, repeats: int, *, of_answers: float, of_judges: float, of_ratings: float) -> NDArray[Any]:
    generator = np.random.default_rng(judges + 10 * repeats)
    answers = generator.normal(0, of_answers, (1, ANSWERS, 1))
    severity = generator.normal(0, of_judges, (judges, 1, 1))
    return 50 + answers + severity + generator.normal(0, of_ratings, (judges, ANSWERS, repeats))


def reach(interval: tuple[float, float]) -> float:
    return (interval[1] - interval[0]) / 2


@pytest.mark.parametrize("repeats", [2, 5])
def test_the_noise_of_one_judge_is_that_of_the_mean_of_its_repetitions(repeats: int) -> None:
    given = ratings(1, repeats, of_answers=8, of_judges=0, of_ratings=6)
    found = intervals_of(given)
    error = (given[0].var(axis=1, ddof=1).sum() / repeats) ** 0.5 / ANSWERS
    assert reach(found.judge) == pytest.approx(1.96 * error, rel=0.06)


def test_samples_and_judge_add_up_to_both() -> None:
    found = intervals_of(ratings(1, 3, of_answers=4, of_judges=0, of_ratings=6))
    assert reach(found.samples) ** 2 + reach(found.judge) ** 2 == pytest.approx(reach(found.both) ** 2, rel=0.06)
    assert reach(found.samples) == pytest.approx(1.96 * 4 / ANSWERS**0.5, rel=0.12)


def test_a_judge_that_repeats_itself_adds_nothing() -> None:
    given = np.repeat(ratings(1, 1, of_answers=8, of_judges=0, of_ratings=0), 3, axis=2)
    found = intervals_of(given)
    assert found.judge == pytest.approx((given.mean(), given.mean()))
    assert found.samples == found.both


@pytest.mark.parametrize("judges", [2, 3, 6])
def test_the_noise_of_several_judges_is_students_t_over_their_scores(judges: int) -> None:
    given = ratings(judges, 1, of_answers=8, of_judges=3, of_ratings=2)
    found = intervals_of(given)
    low, high = reference.t.interval(0.95, judges - 1, given.mean(), reference.sem(given.mean(axis=(1, 2))))
    assert found.judge == pytest.approx((max(0, low), min(100, high)))


@pytest.mark.parametrize("judges", [2, 3, 6])
def test_both_adds_the_variances_with_satterthwaites_degrees_of_freedom(judges: int) -> None:
    given = ratings(judges, 2, of_answers=8, of_judges=1, of_ratings=2)
    found = intervals_of(given)
    pictures = given.mean(axis=(0, 2)).var(ddof=1) / ANSWERS
    between = given.mean(axis=(1, 2)).var(ddof=1) / judges
    freedom = (pictures + between) ** 2 / (pictures**2 / (ANSWERS - 1) + between**2 / (judges - 1))
    of_judges = reference.t.ppf(0.975, judges - 1) * between**0.5
    expected = max(of_judges, reference.t.ppf(0.975, freedom) * (pictures + between) ** 0.5)
    assert reach(found.both) == pytest.approx(expected, rel=0.06)
    assert reach(found.both) > reach(found.samples)


@pytest.mark.parametrize("judges", [1, 2, 3])
@pytest.mark.parametrize("of_judges", [0.0, 1.0, 10.0])
def test_both_contains_each_of_its_parts(judges: int, of_judges: float) -> None:
    """Two judges alone have one degree of freedom, and Satterthwaite's interval of both has more."""
    found = intervals_of(ratings(judges, 2, of_answers=8, of_judges=of_judges, of_ratings=2))
    for low, high in (found.samples, found.judge):
        assert found.both[0] <= low <= high <= found.both[1]


def test_pictures_are_resampled_whole() -> None:
    given = np.repeat(ratings(2, 2, of_answers=8, of_judges=0, of_ratings=0.1)[:, ::4], 4, axis=1)
    apart = intervals_of(given)
    together = intervals_of(given, [number // 4 for number in range(ANSWERS)])
    assert reach(together.samples) == pytest.approx(2 * reach(apart.samples), rel=0.1)


def test_no_interval_leaves_the_metrics_range() -> None:
    given = np.clip(ratings(2, 1, of_answers=1, of_judges=0, of_ratings=0) + np.array([[[40]], [[48]]]), 0, 100)
    found = intervals_of(given)
    assert max(found.samples[1], found.judge[1], found.both[1]) <= 100
    assert found.judge[1] == 100


def test_one_rating_of_each_answer_has_no_parts() -> None:
    rows = [[[{"n": 1.0, "sum": 2.0}]] * 5]
    metrics = {"mean": lambda sums: sums["sum"] / sums["n"]}
    assert noise_intervals(rows, range(5), metrics, {"mean": (2, 2)}, {"mean": (0, 6)}) == {}


def test_a_metric_that_some_resamples_leave_undefined_has_intervals() -> None:
    counts = [[[{"n": float(number + repeat < 3), "sum": 1.0} for repeat in range(2)] for number in range(4)]]
    metrics = {"ratio": lambda sums: sums["sum"] / sums["n"]}
    found = noise_intervals(counts, range(4), metrics, {"ratio": (1.0, 3.0)}, {"ratio": (0.0, np.inf)})["ratio"]
    assert np.isfinite([*found.samples, *found.judge, *found.both]).all()
