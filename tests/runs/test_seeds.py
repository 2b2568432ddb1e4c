"""Several trainings of one method: means, intervals over seeds, and the verdict against the base."""

import math

import pytest
from synthetic_runs import make_run

from napo_bench.benchmarks.metrics import metric_named
from napo_bench.runs.seeds import Difference, differences, pooled


def cb(run):
    return run.benchmarks["vlind"].metrics["cb"]


def test_one_seed_is_the_run_itself():
    run = make_run(0.6, seed=0)
    assert pooled([run]) is run


def test_several_seeds_are_the_mean_with_students_t_over_the_seeds():
    runs = [make_run(0.6, seed=seed) for seed in range(3)]
    values = [cb(run).value for run in runs]
    mean = sum(values) / 3
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    reach = 4.302653 * spread / math.sqrt(3)  # t of 2 degrees of freedom at 97.5%
    assert cb(pooled(runs)).value == pytest.approx(mean)
    low, high = cb(pooled(runs)).ci95
    assert low == pytest.approx(max(0.0, mean - reach), abs=1e-4)
    assert high == pytest.approx(min(100.0, mean + reach), abs=1e-4)


def test_a_method_that_is_clearly_better_is_called_so_in_the_metrics_own_direction():
    base, method = make_run(0.4, seed=0), make_run(0.9, seed=1)
    for runs in ([method], [method, make_run(0.9, seed=2), make_run(0.9, seed=3)]):
        verdicts = {row.metric.key: row.verdict for row in differences(base, runs)}
        assert verdicts["vlind.cb"] == "better" and verdicts["object_halbench.chair_s"] == "better"
    assert {row.metric.key: row.verdict for row in differences(method, [base])}["amber.chair"] == "worse"


def test_a_difference_of_a_metric_without_a_better_direction_stays_open():
    metric = metric_named("object_halbench.mean_words")
    assert Difference(metric, base=10.0, value=20.0, interval=(8.0, 12.0)).verdict == "open"


def test_equal_runs_stay_open():
    run = make_run(0.6, seed=0)
    assert {row.verdict for row in differences(run, [run])} == {"open"}


def test_notes_of_every_seed_are_kept_with_the_trainings_they_are_about():
    runs = [make_run(0.6, seed=seed, sizes={"vlind": 6}) for seed in range(3)]
    for run, notes in zip(runs, (["common"], ["common", "4 of 6 answers are empty"], ["common"]), strict=True):
        run.benchmarks["vlind"].notes = notes
    assert pooled(runs).benchmarks["vlind"].notes == [
        "common",
        "training 2 of 3: 4 of 6 answers are empty",
        "Mean of 3 trainings; intervals are over the trainings",
    ]
