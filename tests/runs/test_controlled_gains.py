"""What part of a gain comes without looking: shares of gains with intervals, over clusters and over seeds, in words."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats as scipy_stats
from synthetic_runs import make_run

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.metrics import metric_named
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import measure
from napo_bench.runs.controls import Arm, ControlledGain, ControlledMethod, controlled_method
from napo_bench.runs.provenance import CheckpointUsed
from napo_bench.runs.result import RunResult
from napo_bench.runs.seeds import Difference

BASE = make_run(0.4, seed=0)
METHODS = [make_run(0.9, seed=seed) for seed in (1, 2, 3)]


def controls(runs, kind="blind"):
    checkpoint = CheckpointUsed("control", None, "1" * 64, kind)
    return [RunResult(run.benchmarks, replace(run.provenance, checkpoint=checkpoint)) for run in runs]


def beside(name, base, methods, of_controls):
    return controlled_method(name, base, Arm.of(base, methods), Arm.of(base, of_controls))


def gains_of(found):
    return {row.method.metric.key: row for row in found.gains}


def value(run, key):
    benchmark, name = key.split(".")
    return run.benchmarks[benchmark].metrics[name].value


def test_the_share_is_the_control_s_difference_in_percent_of_the_method_s():
    (control,) = controls([make_run(0.6, seed=4)])
    rows = gains_of(beside("m", BASE, METHODS[:1], [control]))
    clear = [key for key, row in rows.items() if row.share is not None]
    assert {"vlind.cb", "vlind.lp", "object_halbench.chair_s", "amber.chair"} <= set(clear)
    for key in clear:
        gain, part = (value(run, key) - value(BASE, key) for run in (METHODS[0], control))
        share, (low, high) = rows[key].share
        assert share == pytest.approx(100 * part / gain)
        assert low < share < high


def test_the_interval_over_clusters_is_that_of_the_ratios_which_a_bootstrap_does_not_tell_from_0():
    """The ends r of the interval are where part - r * gain is 1.96 of its own bootstrap standard errors from 0."""
    method, (control,) = METHODS[0], controls([make_run(0.6, seed=4)])
    _, ends = gains_of(beside("m", BASE, [method], [control]))["object_halbench.chair_s"].share
    counts = [
        np.array(
            [sample["counts"]["answers_with_hallucination"] for sample in run.benchmarks["object_halbench"].samples]
        )
        for run in (control, method, BASE)
    ]
    draw = np.random.default_rng(5)
    n = len(counts[0])
    drawn = draw.multinomial(n, np.full(n, 1 / n), size=20_000)
    resampled = [100 * (drawn @ rows) / n for rows in counts]
    whole = [100 * rows.mean() for rows in counts]
    for end in ends:
        ratio = end / 100
        statistic = (whole[0] - whole[2]) - ratio * (whole[1] - whole[2])
        error = np.std((resampled[0] - resampled[2]) - ratio * (resampled[1] - resampled[2]))
        assert abs(statistic) / error == pytest.approx(1.96, rel=0.03)


def test_the_interval_over_seeds_is_that_of_the_ratios_which_a_t_test_does_not_tell_from_0():
    of_controls = controls([make_run(0.6, seed=seed) for seed in (4, 5, 6)])
    rows = gains_of(beside("m", BASE, METHODS, of_controls))
    key = "object_halbench.chair_s"
    gains, parts = (np.array([value(run, key) - value(BASE, key) for run in runs]) for runs in (METHODS, of_controls))
    share, ends = rows[key].share
    assert share == pytest.approx(100 * parts.mean() / gains.mean())
    for end in ends:
        assert scipy_stats.ttest_1samp(parts - end / 100 * gains, 0).pvalue == pytest.approx(0.05, abs=1e-6)


def test_an_unclear_gain_has_no_share_and_says_so_in_words():
    (control,) = controls([make_run(0.6, seed=4)])
    same = beside("napo", BASE, [BASE], [control])
    assert {row.share for row in same.gains} == {None} and {row.share_text for row in same.gains} == {"no clear change"}
    (sentence,) = same.sentences
    assert sentence.startswith("napo has no clear gain or loss in VLind-Bench CB, VLind-Bench LP, ")
    assert sentence.endswith("the interval of the difference contains 0, so no part is stated.") and "%" not in sentence
    assert same.summary == "napo has no clear gain or loss, so no part is stated."


def chair_run(wrong: int, answers: int = 100) -> RunResult:
    """A run in which the first `wrong` answers have a hallucination."""
    samples = [
        {
            "sample_id": str(index),
            "unit": "response",
            "response": "A cat." if index < wrong else "A dog.",
            "counts": {"answers": 1, "answers_with_hallucination": int(index < wrong), "image_objects": 1},
        }
        for index in range(answers)
    ]
    metrics = [metric for metric in benchmark_named("object_halbench").metrics if metric.name == "chair_s"]
    return RunResult({"object_halbench": BenchmarkResult(measure(samples, metrics), samples=samples)}, BASE.provenance)


@pytest.mark.parametrize(
    ("kind", "base", "method", "control", "said"),
    [
        ("blind", 68, 54, 65, "gain of 14.0 [_, _], 3.0 [_, _] comes without looking: 21% [_, _]."),
        ("swapped", 68, 54, 70, "gain of 14.0 [_, _], -2.0 [_, _] comes with the images of other rows: -14% [_, _]."),
        ("blind", 54, 68, 61, "loss of 14.0 [_, _], 7.0 [_, _] comes without looking: 50% [_, _]."),
    ],
)
def test_the_part_of_a_gain_or_a_loss_is_said_in_words(kind, base, method, control, said):
    found = beside("NaPO", chair_run(base), [chair_run(method)], controls([chair_run(control)], kind))
    (sentence,) = found.sentences
    assert re.sub(r"\[-?[\d.]+, -?[\d.]+\]", "[_, _]", sentence) == f"Of NaPO's Object HalBench CHAIRs {said}"
    for middle, low, high in re.findall(r"(-?[\d.]+)%? \[(-?[\d.]+), (-?[\d.]+)\]", sentence):
        assert float(low) < float(middle) < float(high)
    what, gained = sentence.removeprefix("Of NaPO's ").removesuffix(".").split(", ", 1)
    assert found.summary.startswith("NaPO, what comes ")
    assert f": of the {what}, {gained.split(' comes')[0]}." in found.summary


def test_the_summary_has_a_gain_of_each_benchmark_and_a_loss_where_there_is_no_gain():
    def gain(key, value, interval):
        method = Difference(metric_named(key), 50.0, value, interval)
        return ControlledGain(method, replace(method, value=51.0, interval=(-1.0, 3.0)), None)

    rows = [
        gain("vlind.cb", 40.0, (-12.0, -8.0)),
        gain("vlind.lp", 60.0, (8.0, 12.0)),
        gain("amber.chair", 51.0, (-1.0, 3.0)),
        gain("amber.cover", 40.0, (-12.0, -8.0)),
    ]
    assert ControlledMethod("NaPO", "blind", rows).summary == (
        "NaPO, what comes without looking: of the VLind-Bench LP gain of 10.0 [8.0, 12.0], 1.0 [-1.0, 3.0]; of the "
        "AMBER Cover loss of 10.0 [8.0, 12.0], -1.0 [-3.0, 1.0]."
    )


def test_the_share_of_a_gain_near_0_is_undefined_and_its_sentence_has_no_percentage():
    """A gain whose BCa interval just excludes 0 while 1.96 of its standard errors do not."""
    metric = metric_named("object_halbench.chair_s")
    method, control = (Difference(metric, 68.0, value, (value - 73, -0.1)) for value in (62.0, 66.0))
    (sentence,) = ControlledMethod("NaPO", "blind", [ControlledGain(method, control, None)]).sentences
    assert sentence == (
        "Of NaPO's Object HalBench CHAIRs gain of 6.0 [0.1, 11.0], 2.0 [0.1, 7.0] comes without looking: the share is "
        "undefined, because the gain is near 0."
    )


def test_a_control_that_gains_as_much_has_the_whole_of_the_gain():
    found = beside("NaPO", chair_run(68), [chair_run(54)], controls([chair_run(54)]))
    share, (low, high) = found.gains[0].share
    assert (share, low, high) == pytest.approx((100, 100, 100), abs=1e-4)


def test_runs_of_no_control_are_refused():
    with pytest.raises(ValueError, match="the runs beside NaPO are of no control"):
        beside("NaPO", BASE, METHODS[:1], [make_run(0.6, seed=4)])
