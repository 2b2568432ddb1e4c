"""`napo-bench power`: the stated power is the share of experiments that find the difference."""

import json
import math
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats as scipy_stats
from simulate_gates import SAMPLES, checkpoint, draw_shared
from synthetic_runs import invoke, make_run

from napo_bench.benchmarks.metrics import metric_named
from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.core import stats
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.paths import results_dir
from napo_bench.runs.gates import load_gates
from napo_bench.runs.power import Wanted, plan_power
from napo_bench.runs.provenance import CheckpointUsed
from napo_bench.runs.result import RunResult
from napo_bench.trainers.recipe import load_recipe

QUESTIONS = 14
ACCURACY = metric_named("amber.accuracy")
GATES = load_gates(results_dir() / "gates.toml")


def answers(right):
    """A run whose answers to yes/no questions are right or not: `[pictures, questions]`."""
    samples = [
        {
            "sample_id": f"{picture}-{question}",
            "unit": "question",
            "image": f"{picture}.jpg",
            "counts": {"all_questions": 1.0, "all_correct": float(right[picture, question])},
        }
        for picture, question in np.ndindex(right.shape)
    ]
    value = float(ACCURACY.function({"all_questions": float(right.size), "all_correct": float(right.sum())}))
    metrics = {"accuracy": MetricValue(value, (value, value), right.size, len(right))}
    return RunResult({"amber": BenchmarkResult(metrics, samples=samples)})


def draw(rng, gap, pictures=80):
    """Right answers of a base and of a training that is better by `gap`. Some pictures suit one of the two."""
    taste = rng.normal(0, 0.25, (pictures, 1))
    base = rng.random((pictures, QUESTIONS)) < 0.5 - taste / 2
    return base, rng.random((pictures, QUESTIONS)) < 0.5 + gap + taste / 2


def test_as_many_samples_as_it_asks_for_find_the_difference_as_often_as_stated():
    """Answers about one picture depend on each other: answer by answer, a third of the samples would look enough."""
    base, new = draw(np.random.default_rng(0), 0.0, pictures=1500)
    (plan,) = plan_power(ACCURACY, answers(base), [answers(new)], Wanted(8.0)).plans
    assert plan.samples == plan.clusters * QUESTIONS
    found, trials = 0, 400
    for trial in range(trials):
        base, new = draw(np.random.default_rng([1, trial]), 0.08, plan.clusters)
        rows = [
            [{"all_questions": QUESTIONS, "all_correct": float(n)} for n in side.sum(axis=1)] for side in (new, base)
        ]
        intervals = stats.paired_intervals(*rows, {"accuracy": ACCURACY.function}, resamples=500)
        found += intervals["accuracy"][0] > 0
    assert found / trials == pytest.approx(0.8, abs=0.07)
    independent = (scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)) ** 2 * 0.5 / 0.08**2
    assert independent < plan.samples / 2


def test_the_number_of_trainings_is_the_one_that_finds_the_difference_over_trainings():
    """Trainings differ by 3 points around their mean. Their number has the wanted power under Student's t."""
    rng = np.random.default_rng(0)
    base, _ = draw(rng, 0.0, 300)

    def training():
        better = float(rng.normal(0.05, 0.03))
        changed = rng.random(base.shape) < abs(better) / 0.5
        return np.where(changed, better > 0, base)

    report = plan_power(ACCURACY, answers(base), [answers(training()) for _ in range(40)], Wanted(5.0))
    assert report.spread.between_trainings == pytest.approx(3.0, abs=0.8)
    needed = report.trainings_needed
    power = {}
    for number in (needed - 1, needed):
        gaps = np.array([[100 * (training().mean() - base.mean()) for _ in range(number)] for _ in range(300)])
        reach = scipy_stats.t.ppf(0.975, number - 1) * gaps.std(axis=1, ddof=1) / math.sqrt(number)
        power[number] = np.mean(np.abs(gaps.mean(axis=1)) > reach)
    assert power[needed] > 0.72
    assert power[needed - 1] < 0.84


@pytest.mark.parametrize(
    ("key", "passed"),
    [("vlind.cb", 0.97), ("vlind.lp", 0.975), ("object_halbench.chair_s", 0.93), ("object_halbench.chair_i", 0.96)],
)
def test_power_at_a_gates_confidence_is_the_share_of_equal_checkpoints_that_pass(key, passed):
    """The shares are those that scripts/simulate_gates.py counted over 200 trials, as docs/gates.md shows them."""
    (gate,) = (gate for gate in GATES.gates if gate.metric.key == key)
    stated = []
    for trial in range(6):
        rng = np.random.default_rng([2, trial])
        shared = draw_shared({gate.metric.benchmark: SAMPLES[gate.metric.benchmark]}, rng)
        base, equal = (checkpoint(shared, {}, GATES, rng) for _ in range(2))
        wanted = Wanted(gate.limits.max_regression, alpha=2 * (1 - GATES.confidence))
        stated.append(plan_power(gate.metric, base, [equal], wanted).plans[0].power)
    assert np.mean(stated) == pytest.approx(passed, abs=0.03)


def test_power_rises_with_the_difference_the_samples_and_the_trainings():
    runs = [make_run(0.6, seed, sizes={"vlind": 60}) for seed in range(5)]
    report = plan_power(metric_named("vlind.lp"), runs[0], runs[1:], Wanted(10.0))
    spread, wanted = report.spread, report.wanted
    assert all(a < b for a, b in pairwise(spread.power(wanted, 1, difference=size) for size in (2.0, 5.0, 20.0)))
    assert all(a < b for a, b in pairwise(spread.power(wanted, 1, times) for times in (0.5, 1.0, 4.0)))
    assert all(a < b for a, b in pairwise(spread.power(wanted, number) for number in (2, 3, 5)))
    plan = report.plans[0]
    assert spread.power(wanted, 1, plan.times) == pytest.approx(0.8)
    assert spread.power(wanted, 1, difference=plan.detects) == pytest.approx(0.8)


def test_runs_that_hardly_differ_do_not_promise_more_than_outcomes_allow():
    """If each answer passes or fails, a difference of 10 points means that 10% of the answers change."""
    base = np.ones((100, 1), dtype=bool)
    new = base.copy()
    new[0] = False
    plan = plan_power(ACCURACY, answers(base), [answers(new)], Wanted(10.0)).plans[0]
    exact = (scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)) ** 2 * 0.1 * 0.9 / 0.1**2
    assert plan.samples == math.ceil(exact)


def refusal(*arguments, **wanted):
    with pytest.raises(NapoBenchError) as error:
        plan_power(ACCURACY, *arguments, Wanted(**{"difference": 5.0, **wanted}))
    return str(error.value)


def test_runs_that_are_too_few_or_not_comparable_are_refused():
    rng = np.random.default_rng(0)
    base, new = map(answers, draw(rng, 0.1))
    few, few_new = map(answers, draw(rng, 0.1, pictures=12))
    assert "two runs or more" in refusal(base, [])
    assert "share 12 pictures; 20 or more" in refusal(few, [few_new])
    assert "same result on every sample" in refusal(base, [base])
    assert "trainings 1 and 2 have the same result" in refusal(base, [new, new])
    assert "training 1 has no amber.accuracy" in refusal(base, [make_run(0.6, 0, sizes={"vlind": 30})])
    assert "between 0 and 100" in refusal(base, [new], difference=100.0)
    assert "--power is 80" in refusal(base, [new], power=80)
    assert "--difference is -5" in refusal(base, [new], difference=-5.0)
    for wrong in ({"difference": 0.0}, {"difference": math.nan}, {"difference": 500.0}, {"alpha": 1.0}, {"power": 1.0}):
        with pytest.raises(NapoBenchError) as error:
            plan_power(ACCURACY, base, [new], Wanted(**{"difference": 5.0, **wrong}))
        assert error.value.hint, wrong
    new.benchmarks["amber"].settings = {"generation": {"profile": "paper"}}
    assert "measured in different ways" in refusal(base, [new])


def trained(folder, recipe, seed):
    """A run of a checkpoint with a recipe."""
    run = make_run(0.6, seed, sizes={"vlind": 60})
    (folder / "model").mkdir(parents=True)
    stored = asdict(load_recipe(recipe, [f"seed={seed}", f"workers={seed}"]))
    (folder / "model" / "training.json").write_text(json.dumps({"recipe": stored}))
    used = CheckpointUsed(str(folder / "model"), str(folder / "model"), str(seed) * 64)
    RunResult(run.benchmarks, replace(run.provenance, checkpoint=used)).save(folder / "eval" / "run.json")
    return folder / "eval"


def test_trainings_of_different_recipes_are_not_trainings_of_one_method(tmp_path, monkeypatch, capsys):
    make_run(0.5, 9, sizes={"vlind": 60}).save(tmp_path / "base" / "run.json")
    seeds = [trained(tmp_path / f"napo-{seed}", "micro-napo", seed) for seed in range(3)]
    ask = ["power", "--metric", "vlind.cb", "--difference", "10", tmp_path / "base"]
    code, shown, _ = invoke([*ask, *seeds], monkeypatch, capsys)
    assert code == 0 and "between trainings" in shown and "recipe is not known" not in " ".join(shown.split())
    code, _, panel = invoke([*ask, *seeds[:2], trained(tmp_path / "dpo-3", "micro-dpo", 3)], monkeypatch, capsys)
    panel = " ".join(panel.split())
    assert code == 2 and "different recipes: loss_language 'napo' and " in panel
    make_run(0.6, 5, sizes={"vlind": 60}).save(tmp_path / "stranger" / "run.json")
    code, shown, _ = invoke([*ask, *seeds, tmp_path / "stranger"], monkeypatch, capsys)
    assert code == 0 and "recipe is not known: stranger" in " ".join(shown.split())


def test_the_command_prints_and_writes_the_plan(tmp_path, monkeypatch, capsys):
    paths = []
    for seed in range(4):
        make_run(0.6, seed, sizes={"vlind": 60}).save(tmp_path / f"seed-{seed}" / "run.json")
        paths.append(tmp_path / f"seed-{seed}")
    out = tmp_path / "plan.json"
    ask = ["power", "--metric", "vlind.cb", "--difference", "10"]
    code, shown, _ = invoke([*ask, *paths, "--json", out], monkeypatch, capsys)
    document = json.loads(out.read_text())
    assert code == 0
    assert "60 samples in 60 pictures" in shown
    assert f"Trainings for 80% with these samples: {document['trainings_needed']}." in shown
    assert document["plans"][0]["trainings"] == 1 and str(document["plans"][0]["samples"]) in shown
    code, shown, _ = invoke([*ask, *paths[:2]], monkeypatch, capsys)
    assert code == 0 and "give 3 runs of different seeds" in " ".join(shown.split())
    code, _, panel = invoke([*ask[:2], "vlind.lpp", *ask[3:], *paths], monkeypatch, capsys)
    assert code == 2 and "vlind.lp" in panel
    code, _, panel = invoke([*ask, paths[0]], monkeypatch, capsys)
    assert code == 2 and "two runs or more" in panel
