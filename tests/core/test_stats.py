"""Intervals, paired intervals and tests, against exact values, scipy, enumeration and simulation."""

import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from napo_bench.core import stats


def share(part, whole="n"):
    return lambda sums: 100 * sums[part] / np.maximum(sums[whole], 1e-12)


def rows_of(values):
    return [{"x": float(value), "n": 1.0} for value in values]


# Intervals


def test_interval_of_a_mean_is_that_of_scipys_bca():
    values = np.random.default_rng(3).exponential(10, 80)
    (interval,) = stats.bootstrap_intervals(rows_of(values), {"mean": lambda s: s["x"] / s["n"]}).values()
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=10_000, method="BCa", rng=1).confidence_interval
    assert interval == pytest.approx(tuple(theirs), abs=0.03 * (theirs.high - theirs.low))


def test_an_interval_is_the_same_if_clusters_are_drawn_one_by_one_or_as_a_multinomial_over_equal_ones():
    rng = np.random.default_rng(4)
    rows = [{"x": float(a), "n": float(b)} for a, b in rng.integers(1, 9, (20, 2))]
    marked = [{**row, "mark": float(index)} for index, row in enumerate(rows * 10)]
    few, many = (
        stats.bootstrap_intervals(part, {"m": share("x")}, resamples=40_000)["m"] for part in (rows * 10, marked)
    )
    assert many == pytest.approx(few, rel=0.004)


def test_interval_of_a_ratio_of_sums_resamples_samples_not_mentions():
    rng = np.random.default_rng(0)
    mentions = rng.poisson(5, 200) + 1
    wrong = rng.binomial(mentions, rng.beta(0.4, 2, 200))
    rows = [{"wrong": float(w), "n": float(m)} for w, m in zip(wrong, mentions, strict=True)]
    (interval,) = stats.bootstrap_intervals(rows, {"chair": share("wrong")}).values()

    def ratio(w, m, axis=-1):
        return 100 * w.sum(axis) / m.sum(axis)

    theirs = scipy.stats.bootstrap(
        (wrong, mentions), ratio, paired=True, n_resamples=10_000, method="BCa", rng=1
    ).confidence_interval
    assert interval == pytest.approx(tuple(theirs), abs=0.04 * (theirs.high - theirs.low))


@pytest.mark.parametrize("passed", [0, 40])
def test_interval_of_unanimous_samples_is_the_exact_binomial_one(passed):
    rows = rows_of([1.0] * passed + [0.0] * (40 - passed))
    spans = {"pass": stats.Span(0, 100, 40)}
    (interval,) = stats.bootstrap_intervals(rows, {"pass": share("x")}, spans=spans).values()
    exact = scipy.stats.binomtest(passed, 40).proportion_ci(method="exact")
    assert interval == pytest.approx((100 * exact.low, 100 * exact.high))


def test_without_a_sample_that_the_metric_speaks_of_the_interval_is_its_whole_range():
    rows = [{"x": 0.0, "n": 0.0}] * 30
    spans = {"lp": stats.Span(0, 100, 0)}
    assert stats.bootstrap_intervals(rows, {"lp": share("x")}, spans=spans) == {"lp": (0, 100)}


def test_same_seed_same_interval_and_other_seed_nearly():
    rows = rows_of(np.random.default_rng(1).random(50))
    one, again, other = (stats.bootstrap_intervals(rows, {"m": share("x")}, seed=seed)["m"] for seed in (4, 4, 5))
    assert one == again != other
    assert one == pytest.approx(other, abs=1)


def test_a_resample_in_which_the_metric_is_undefined_does_not_count():
    rows = [{"n": 1.0, "e": float(e)} for e in (5, 5, 1, 4, 5, 5)] + [{"other": 1.0}] * 6
    (interval,) = stats.bootstrap_intervals(rows, {"mae": lambda s: s["e"] / s["n"]}).values()
    alone = stats.bootstrap_intervals(rows[:6], {"mae": lambda s: s["e"] / s["n"]})["mae"]
    assert interval[0] < interval[1] and interval == pytest.approx(alone, abs=0.5)
    with pytest.raises(ValueError, match="the metric mae is defined in no resample"):
        stats.bootstrap_intervals(rows[6:], {"mae": lambda s: s["other"] / s.get("n", 0 * s["other"])})


def test_no_samples_no_intervals():
    assert stats.bootstrap_intervals([], {"m": share("x")}) == {}


def _draw_share(rng, n):
    return [{"x": float(x), "n": 1.0} for x in rng.random(n) < 0.3]


def _draw_ratio(rng, n):
    mentions = rng.poisson(rng.gamma(4, 1.5, n))
    wrong = rng.binomial(mentions, rng.beta(0.45, 2.55, n))
    return [{"x": float(x), "n": float(m)} for x, m in zip(wrong, mentions, strict=True)]


def _draw_conditional(rng, n):
    eligible = rng.random(n) < 0.4
    shares = rng.binomial(8, rng.beta(0.6, 1.0, n)) / 8
    return [{"x": float(x * e), "n": float(e)} for x, e in zip(shares, eligible, strict=True)]


def _draw_rating(rng, n):
    return [{"x": float(x), "n": 100.0} for x in rng.choice(7, n, p=[0.2, 0.15, 0.19, 0.1, 0.1, 0.06, 0.2])]


def _draw_answers(rng, n):
    truth = rng.random(n) < 0.6
    answer = np.where(truth, rng.random(n) < 0.7, rng.random(n) < 0.2)
    return [{"both": float(t and a), "a": float(a), "t": float(t)} for t, a in zip(truth, answer, strict=True)]


def _f1(sums):
    precision, recall = sums["both"] / np.maximum(sums["a"], 1), sums["both"] / np.maximum(sums["t"], 1)
    return 200 * precision * recall / np.maximum(precision + recall, 1e-9)


@pytest.mark.parametrize(
    ("draw", "metric", "n"),
    [
        pytest.param(_draw_share, share("x"), 300, id="share"),
        pytest.param(_draw_ratio, share("x"), 300, id="ratio of sums"),
        pytest.param(_draw_conditional, share("x"), 300, id="conditional"),
        pytest.param(_draw_rating, share("x"), 96, id="mean rating"),
        pytest.param(_draw_answers, _f1, 1000, id="F1"),
    ],
)
def test_nominal_95_percent_intervals_cover_about_that(draw, metric, n):
    """A short form of scripts/simulate_intervals.py; its own noise at 400 trials is 1.1 points."""
    rng = np.random.default_rng(2024)
    population = draw(rng, 200_000)
    truth = metric({name: np.float64(sum(row[name] for row in population)) for name in population[0]})
    covered = 0
    for trial in range(400):
        (interval,) = stats.bootstrap_intervals(draw(rng, n), {"m": metric}, resamples=800, seed=trial).values()
        covered += interval[0] <= truth <= interval[1]
    assert 0.92 <= covered / 400 <= 0.98


# Clusters


def _draw_clustered(rng, pictures, correlation, p=0.3):
    """Questions about pictures, of unequal number, whose answers correlate within a picture (beta-binomial)."""
    sizes = rng.integers(1, 15, pictures)
    spread = (1 - correlation) / correlation
    rates = rng.beta(p * spread, (1 - p) * spread, pictures)
    clusters = np.repeat(np.arange(pictures), sizes)
    right = rng.random(len(clusters)) < rates[clusters]
    return [{"x": float(x), "n": 1.0} for x in right], clusters


def test_by_cluster_adds_up_the_samples_of_each_cluster():
    rows = [{"x": 1.0, "n": 1.0}, {"x": 0.0, "n": 1.0}, {"x": 1.0, "y": 2.0}]
    added = stats.by_cluster(rows, ["b", "a", "b"])
    assert list(added) == [{"x": 2.0, "n": 1.0, "y": 2.0}, {"x": 0.0, "n": 1.0, "y": 0.0}]
    assert list(stats.by_cluster(rows, [0, 1, 2])) == [
        {"x": 1.0, "n": 1.0, "y": 0.0},
        {"x": 0.0, "n": 1.0, "y": 0.0},
        {"x": 1.0, "n": 0.0, "y": 2.0},
    ]


@pytest.mark.parametrize("correlation", [0.05, 0.2])
def test_intervals_over_clusters_cover_where_intervals_over_samples_do_not(correlation):
    """A short form of scripts/simulate_intervals.py --clusters."""
    rng = np.random.default_rng(7)
    covered = {"clusters": 0, "samples": 0}
    for trial in range(300):
        rows, clusters = _draw_clustered(rng, 200, correlation)
        for name, units in (("clusters", stats.by_cluster(rows, clusters)), ("samples", rows)):
            (interval,) = stats.bootstrap_intervals(units, {"m": share("x")}, resamples=500, seed=trial).values()
            covered[name] += interval[0] <= 30 <= interval[1]
    assert 0.915 <= covered["clusters"] / 300 <= 0.98
    assert covered["samples"] < covered["clusters"] - 10


# Pairs


def test_paired_interval_holds_the_difference_and_is_narrower_than_unpaired():
    rng = np.random.default_rng(5)
    old = rng.random(300) < 0.5
    new = np.where(rng.random(300) < 0.1, ~old, old)
    metrics = {"pass": share("x")}
    low, high = stats.paired_intervals(rows_of(new), rows_of(old), metrics)["pass"]
    difference = 100 * (new.mean() - old.mean())
    assert low < difference < high
    single_low, single_high = stats.bootstrap_intervals(rows_of(new), metrics)["pass"]
    assert high - low < single_high - single_low


def test_identical_runs_still_leave_room_for_unseen_changes():
    rows = rows_of([1, 0, 1, 1, 0] * 20)
    spans = {"pass": stats.Span(0, 100, 100)}
    low, high = stats.paired_intervals(rows, rows, {"pass": share("x")}, spans=spans)["pass"]
    exact = scipy.stats.binomtest(0, 100).proportion_ci(method="exact").high
    assert (low, high) == pytest.approx((-100 * exact, 100 * exact))


@pytest.mark.parametrize("distinct", [2, 10])
def test_permutation_p_value_is_that_of_all_permutations(distinct):
    rng = np.random.default_rng(11)
    times = 10 // distinct
    new = [{"x": float(a), "n": float(b)} for a, b in rng.integers(1, 9, (distinct, 2))] * times
    old = [{"x": float(a), "n": float(b)} for a, b in rng.integers(1, 7, (distinct, 2))] * times
    metric = share("x")

    def value(rows):
        return metric({"x": sum(row["x"] for row in rows), "n": sum(row["n"] for row in rows)})

    observed = abs(value(new) - value(old))
    swapped = []
    for swaps in itertools.product([False, True], repeat=10):
        first = [b if swap else a for a, b, swap in zip(new, old, swaps, strict=True)]
        second = [a if swap else b for a, b, swap in zip(new, old, swaps, strict=True)]
        swapped.append(abs(value(first) - value(second)) >= observed - 1e-9)
    found = stats.permutation_p_values(new, old, {"m": metric}, permutations=40_000)["m"]
    assert found == pytest.approx(np.mean(swapped), abs=0.01)


def test_permutation_p_value_of_identical_runs_is_one():
    rows = rows_of([1, 0, 1])
    assert stats.permutation_p_values(rows, rows, {"m": share("x")})["m"] == 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(only_new, only_old):
    changed = only_new + only_old
    expected = scipy.stats.binomtest(only_new, changed).pvalue if changed else 1.0
    assert stats.mcnemar(only_new, only_old) == pytest.approx(expected)


def test_mcnemar_bears_thousands_of_changes():
    assert 0 < stats.mcnemar(7000, 7200) < 0.1


def test_holm_on_his_own_kind_of_example():
    assert stats.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_and_keeps_their_order(p_values):
    named = {str(index): value for index, value in enumerate(p_values)}
    adjusted = stats.holm(named)
    assert all(value <= adjusted[name] <= 1 for name, value in named.items())
    ranked = sorted(named, key=named.get)
    assert [adjusted[name] for name in ranked] == sorted(adjusted[name] for name in ranked)


@pytest.mark.parametrize(("top", "bottom"), [(1.0, 4.0), (0.0, 3.0), (3.0, 3.0), (-1.0, 2.5)])
def test_the_interval_of_a_ratio_covers_as_stated_also_for_a_denominator_near_0(top, bottom):
    draw = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.5], [0.5, 1.0]])
    estimates = draw.multivariate_normal([top, bottom], covariance, 4_000)
    intervals = np.array([stats.ratio_interval(*pair, covariance, 1.96) for pair in estimates])
    bounded = np.isfinite(intervals[:, 0])
    assert np.array_equal(bounded, np.abs(estimates[:, 1]) > 1.96)
    # An unbounded set of ratios is the whole line here, which covers more than Fieller's 95%.
    assert 0.94 < np.mean((intervals[:, 0] <= top / bottom) & (top / bottom <= intervals[:, 1])) < 0.975
    assert np.allclose(stats.ratio_interval(6.0, 3.0, 0 * covariance, 1.96), 2.0)
