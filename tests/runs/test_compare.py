"""`napo-bench compare`: paired differences, the right test for each metric, and the samples that changed."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
from synthetic_runs import invoke, make_run

from napo_bench.benchmarks.amber import BENCHMARK as AMBER
from napo_bench.benchmarks.amber.score import score_answer
from napo_bench.benchmarks.result import SAMPLES_NOT_PICTURES, BenchmarkResult
from napo_bench.benchmarks.scoring import measure
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.compare import compare
from napo_bench.runs.provenance import DataUsed, Provenance
from napo_bench.runs.result import RunResult


@pytest.fixture(scope="module")
def runs():
    return make_run(0.75, 1), make_run(0.5, 2)


@pytest.fixture(scope="module")
def comparison(runs):
    return compare(*runs)


def rows_by_key(comparison):
    return {row.paired.metric.key: row for row in comparison.metrics}


def copy_of(run: RunResult) -> RunResult:
    return RunResult({name: dataclasses.replace(result) for name, result in run.benchmarks.items()}, run.provenance)


def test_values_and_differences_are_those_of_the_runs(runs, comparison):
    rows = rows_by_key(comparison)
    for benchmark, result in runs[0].benchmarks.items():
        for name, value in result.metrics.items():
            row = rows[f"{benchmark}.{name}"].paired
            assert row.candidate == pytest.approx(value.value, abs=0.06)
            assert row.difference == pytest.approx(
                value.value - runs[1].benchmarks[benchmark].metrics[name].value, abs=0.11
            )
            assert row.interval[0] <= row.difference <= row.interval[1]


def test_pass_fail_metrics_get_the_exact_mcnemar_test(runs, comparison):
    row = rows_by_key(comparison)["object_halbench.chair_s"]
    new, old = (
        [sample["counts"]["answers_with_hallucination"] for sample in run.benchmarks["object_halbench"].samples]
        for run in runs
    )
    worse = sum(a > b for a, b in zip(new, old, strict=True))
    better = sum(a < b for a, b in zip(new, old, strict=True))
    assert row.test == "exact McNemar"
    assert row.p_value == pytest.approx(scipy.stats.binomtest(worse, worse + better).pvalue)


def test_other_metrics_get_a_permutation_test(comparison):
    tests = {key: row.test for key, row in rows_by_key(comparison).items()}
    assert tests["object_halbench.chair_i"] == tests["vlind.lp"] == tests["mmhal.score"] == "permutation"


def test_p_values_are_adjusted_for_all_metrics_of_the_comparison(comparison):
    rows = sorted(comparison.metrics, key=lambda row: row.p_value)
    assert rows[0].p_adjusted == pytest.approx(min(1, len(rows) * rows[0].p_value))
    assert all(row.p_adjusted >= row.p_value for row in rows)


def test_changed_samples_are_those_whose_outcome_differs(runs, comparison):
    outcome = [
        {sample["sample_id"]: sample["rating"] >= 3 for sample in run.benchmarks["mmhal"].samples} for run in runs
    ]
    changes = {c.sample_id: c.improved for c in comparison.changes if c.metric.key == "mmhal.hal_rate"}
    assert changes == {key: good for key, good in outcome[0].items() if good != outcome[1][key]}


def questions_about(pictures: int, each: int, gain: float) -> RunResult:
    """Yes/no answers; the answers about one picture are all right or all wrong, as if the picture had one question."""
    rng = np.random.default_rng(3)
    right = np.where(rng.random(pictures) < gain, True, rng.random(pictures) < 0.5)
    samples = [
        {
            "sample_id": f"{picture}/{number}",
            "unit": "question",
            "image": f"{picture}.jpg",
            "response": "No" if right[picture] else "Yes",
            "expected": "No",
            "counts": score_answer("discriminative-hallucination", "no", "No" if right[picture] else "Yes"),
        }
        for picture in range(pictures)
        for number in range(each)
    ]
    metrics = [AMBER.metric("accuracy"), AMBER.metric("f1")]
    return RunResult({"amber": BenchmarkResult(measure(samples, metrics), samples=samples)})


def test_questions_about_one_picture_are_compared_as_one():
    """Fourteen questions that move together tell as much as one, so intervals and p-values are those of one."""
    many, one = (compare(questions_about(40, each, 0.2), questions_about(40, each, 0.0)) for each in (14, 1))
    for of_many, of_one in zip(many.metrics, one.metrics, strict=True):
        assert (of_many.paired.n, of_many.paired.clusters, of_one.paired.n) == (14 * 40, 40, 40)
        assert of_many.paired.size == "560 in 40" and of_one.paired.size == "40"
        assert of_many.paired.interval == pytest.approx(of_one.paired.interval, abs=0.5)
    tests = [{row.paired.metric.name: row for row in found.metrics}["accuracy"] for found in (many, one)]
    assert [row.test for row in tests] == ["permutation", "exact McNemar"]
    assert tests[0].p_value == pytest.approx(tests[1].p_value, abs=0.03)


def test_a_run_of_an_earlier_version_says_that_its_intervals_resample_answers(tmp_path):
    questions_about(10, 3, 0.0).save(tmp_path / "run.json")
    document = json.loads((tmp_path / "run.json").read_text())
    assert RunResult.load(tmp_path).benchmarks["amber"].remarks == []
    for value in document["benchmarks"]["amber"]["metrics"].values():
        del value["clusters"]
    (tmp_path / "run.json").write_text(json.dumps(document))
    early = RunResult.load(tmp_path)
    assert early.benchmarks["amber"].remarks == [SAMPLES_NOT_PICTURES]
    comparison = compare(early, early)
    assert comparison.metrics[0].paired.clusters == 10
    assert not any(SAMPLES_NOT_PICTURES in note for note in comparison.notes)  # a comparison resamples pictures


def test_a_run_does_not_differ_from_itself(runs):
    comparison = compare(runs[0], runs[0])
    assert comparison.changes == []
    assert all(row.paired.difference == 0 and row.p_adjusted == 1 for row in comparison.metrics)


def test_answers_with_the_same_text_are_counted_in_each_benchmark(runs, tmp_path, monkeypatch, capsys):
    other = copy_of(runs[0])
    samples = [dict(sample) for sample in runs[0].benchmarks["object_halbench"].samples]
    for sample in samples[:3]:
        sample["response"] += " Or not."
    other.benchmarks["object_halbench"].samples = samples
    for name, run in (("one", runs[0]), ("other", other)):
        run.save(tmp_path / name / "run.json")
    _, printed, _ = invoke(["compare", tmp_path / "one", tmp_path / "other"], monkeypatch, capsys)
    assert "  object_halbench: 77 of 80 (96.2%)\n" in printed
    statements = sum(len(sample["responses"]) for sample in runs[0].benchmarks["vlind"].samples)
    assert f"  vlind: {statements} of {statements} (100.0%)\n" in printed
    same = compare(other, runs[0]).to_json()["same_answers"]
    assert same["object_halbench"] == {"answers": 80, "identical": 77}
    assert same["mmhal"] == {"answers": 96, "identical": 96}


def test_only_shared_samples_count_and_the_rest_is_noted(runs):
    part = copy_of(runs[0])
    part.benchmarks["mmhal"].samples = part.benchmarks["mmhal"].samples[:50]
    comparison = compare(part, runs[1])
    assert rows_by_key(comparison)["mmhal.score"].paired.n == 50
    assert any("mmhal" in note and "50" in note for note in comparison.notes)


def test_unrated_mmhal_is_left_out_and_noted(runs):
    unrated = copy_of(runs[0])
    unrated.benchmarks["mmhal"].metrics = {}
    unrated.benchmarks["mmhal"].samples = [{"sample_id": "0", "unit": "question"}]
    comparison = compare(unrated, runs[1])
    assert "mmhal.score" not in rows_by_key(comparison)
    assert any("mmhal" in note for note in comparison.notes)


def test_what_a_run_remarks_on_its_numbers_is_noted_with_the_run_it_is_about(runs):
    candidate, baseline = map(copy_of, runs)
    candidate.benchmarks["amber"].notes = ["60 of 100 answers are empty", "1 ids unknown: 7"]
    baseline.benchmarks["amber"].notes = ["1 ids unknown: 7"]
    assert compare(candidate, baseline).notes == [
        "amber, baseline and candidate: 1 ids unknown: 7",
        "amber, candidate: 60 of 100 answers are empty",
    ]


def test_the_command_names_the_runs_and_cuts_no_number(runs, tmp_path, monkeypatch, capsys):
    for name, run in zip(("napo", "base"), runs, strict=True):
        run.save(tmp_path / name / "run.json")
    _, printed, _ = invoke(["compare", tmp_path / "base", tmp_path / "napo"], monkeypatch, capsys, width=60)
    assert printed.startswith("base → napo\n") and "…" not in printed


def other_data(run):
    run.provenance = Provenance(data=DataUsed(sha256={"vlind/data.json": "f" * 64}))


def other_settings(run):
    run.benchmarks["amber"].settings = {"text_pipeline": {"name": "closed_vocabulary"}}


def other_samples(run):
    run.benchmarks["vlind"].samples = [
        {**sample, "sample_id": "other/" + sample["sample_id"]} for sample in run.benchmarks["vlind"].samples
    ]


def twice(run):
    run.benchmarks["vlind"].samples = run.benchmarks["vlind"].samples * 2


def no_counts(run):
    run.benchmarks["vlind"].samples = [{"sample_id": "a", "unit": "instance"}]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (other_data, "vlind/data.json"),
        (other_settings, "text_pipeline"),
        (other_samples, "share no sample"),
        (twice, "twice"),
        (no_counts, "'counts'"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, change, named):
    changed = copy_of(runs[0])
    change(changed)
    with pytest.raises(NapoBenchError, match=named):
        compare(changed, runs[1])


def parts_of(run: RunResult) -> tuple[RunResult, RunResult]:
    """The same descriptions of AMBER, each with other questions."""
    described, asked = run.benchmarks["amber"], questions_about(20, 2, 0.0).benchmarks["amber"]
    found = []
    for part in (asked.samples[:20], asked.samples[20:]):
        samples = [*described.samples, *part]
        found.append(RunResult({"amber": BenchmarkResult({**described.metrics, **asked.metrics}, samples=samples)}))
    return found[0], found[1]


def test_a_metric_that_covers_no_shared_sample_is_left_out_and_noted(runs):
    comparison = compare(*parts_of(runs[0]))
    keys = rows_by_key(comparison).keys()
    assert "amber.chair" in keys and not {"amber.accuracy", "amber.f1"} & keys
    (note,) = (note for note in comparison.notes if "covers no sample that both runs have" in note)
    assert "amber.accuracy" in note and "amber.chair" not in note


def test_a_gate_on_a_metric_that_covers_no_shared_sample_cannot_judge(runs, tmp_path, monkeypatch, capsys):
    for name, run in zip(("one", "other"), parts_of(runs[0]), strict=True):
        run.save(tmp_path / name / "run.json")
    gates = tmp_path / "gates.toml"
    gates.write_text("[amber.accuracy]\nmax_regression = 5.0\n")
    asked = ["gate", tmp_path / "one", "--baseline", tmp_path / "other", "--gates", gates]
    code, _, said = invoke(asked, monkeypatch, capsys)
    assert code == 2 and "Could not judge: amber.accuracy" in " ".join(said.split())


@pytest.mark.parametrize("count", ["x", "1", -4, 1e30, 10**400, float("nan"), None, [1]])
def test_a_count_that_is_no_number_of_0_or_more_is_named_with_its_sample(runs, count):
    damaged = copy_of(runs[0])
    first, *others = damaged.benchmarks["object_halbench"].samples
    damaged.benchmarks["object_halbench"].samples = [
        {**first, "counts": {**first["counts"], "answers": count}},
        *others,
    ]
    with pytest.raises(NapoBenchError, match=f"object_halbench, candidate: .*{first['sample_id']!r}") as caught:
        compare(damaged, runs[1])
    assert "score the responses again" in caught.value.hint


def test_counts_that_are_no_mapping_or_lack_what_a_metric_needs_are_refused(runs):
    for counts, named in ([1, 2], "numbers from 0"), ({"answers": 1}, "answers_with_hallucination"):
        damaged = copy_of(runs[0])
        samples = [{**one, "counts": counts} for one in runs[0].benchmarks["object_halbench"].samples]
        damaged.benchmarks["object_halbench"].samples = samples
        with pytest.raises(NapoBenchError, match=named):
            compare(damaged, damaged)


def test_runs_of_two_conversations_of_llava_are_refused_and_those_of_two_models_are_not(runs):
    candidate, baseline = copy_of(runs[0]), copy_of(runs[1])
    for run, name in ((candidate, "llava_v1"), (baseline, "vicuna_v1")):
        run.benchmarks["amber"].settings = {**run.benchmarks["amber"].settings, "conversation": name}
    with pytest.raises(NapoBenchError, match="conversation 'llava_v1' and 'vicuna_v1'"):
        compare(candidate, baseline)
    del baseline.benchmarks["amber"].settings["conversation"]  # a model with a chat template of its own
    assert compare(candidate, baseline).metrics


def test_runs_without_a_common_benchmark_are_refused():
    with pytest.raises(NapoBenchError, match="share no benchmark"):
        compare(make_run(0.5, 1, sizes={"mmhal": 8}), make_run(0.5, 1, sizes={"vlind": 8}))


def test_command_prints_the_table_and_writes_every_change(runs, comparison, tmp_path, monkeypatch, capsys):
    for name, run in zip(("new", "old"), runs, strict=True):
        run.save(tmp_path / f"{name}.json")
    out = tmp_path / "out.json"
    code, printed, _ = invoke(
        ["compare", tmp_path / "old.json", tmp_path / "new.json", "--json", out], monkeypatch, capsys
    )
    assert code == 0
    assert "exact McNemar" in printed and "Holm" in printed
    written = json.loads(out.read_text())
    assert len(written["changes"]) == len(comparison.changes)
    found = {row["metric"]: row["difference"] for row in written["metrics"]}
    assert found["vlind.cb"] == pytest.approx(rows_by_key(comparison)["vlind.cb"].paired.difference)


def test_command_without_samples_says_which_file_is_missing(runs, tmp_path, monkeypatch, capsys):
    runs[0].save(tmp_path / "run.json")
    (tmp_path / "samples" / "vlind.jsonl").unlink()
    code, _, err = invoke(["compare", tmp_path, tmp_path], monkeypatch, capsys)
    assert code == 2 and "vlind.jsonl" in err


def test_a_sample_without_its_answer_is_named():
    whole, broken = questions_about(10, 1, 0.0), questions_about(10, 1, 0.0)
    del broken.benchmarks["amber"].samples[3]["expected"]
    with pytest.raises(NapoBenchError, match=r"amber: the sample '3/0' lacks the field 'expected'"):
        compare(broken, whole)
