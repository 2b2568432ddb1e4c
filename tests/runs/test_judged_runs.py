"""Runs of several judges, and runs of different judges, side by side."""

import numpy as np
import pytest
from rated_runs import halbench_run, mmhal_run

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.mmhal.score import question_counts
from napo_bench.benchmarks.replies import settings_of, stored_fields
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import measure, measure_judges
from napo_bench.core.errors import NapoBenchError
from napo_bench.engines.judge import Reply
from napo_bench.runs.compare import compare
from napo_bench.runs.gates import check_gates, load_gates
from napo_bench.runs.result import RunResult
from napo_bench.runs.seeds import pooled

SIZE = 60
METRICS = benchmark_named("mmhal").metrics


def judged_run(ratings):
    """A run with these ratings `[N][K]` of each judge."""
    replies = {
        judge: [[Reply(int(x), f"Rating: {x}", judge, judge, 7, 3) for x in own] for own in given]
        for judge, given in ratings.items()
    }
    samples = []
    for number in range(SIZE):
        own = {judge: given[number] for judge, given in replies.items()}
        counts = {judge: [question_counts(reply.value) for reply in given] for judge, given in own.items()}
        samples.append({"sample_id": str(number), "unit": "question", **stored_fields(own, counts)})
    result = BenchmarkResult(
        measure(samples, METRICS), measure_judges(samples, METRICS), settings=settings_of(replies), samples=samples
    )
    return RunResult({"mmhal": result})


def drawn(seed, lowest=0):
    return np.random.default_rng(seed).integers(lowest, 7, (SIZE, 2))


@pytest.fixture
def gates(tmp_path):
    path = tmp_path / "gates.toml"
    path.write_text("[mmhal.score]\nmax_regression = 3.0\n[mmhal.hal_rate]\nmax_regression = 0.9\n")
    return load_gates(path)


def refusals(candidate, baseline, gates):
    """The errors of compare and gate."""
    for judge in (lambda: compare(candidate, baseline), lambda: check_gates(candidate, baseline, gates)):
        with pytest.raises(NapoBenchError) as caught:
            judge()
        yield caught.value


def test_compare_and_gate_refuse_two_judges_by_name_with_the_next_step(gates):
    ratings = drawn(1)[:, 0]
    for error in refusals(mmhal_run(ratings, "gpt-4"), mmhal_run(ratings, "qwen"), gates):
        assert "gpt-4" in error.message and "qwen" in error.message
        assert "napo-bench score mmhal" in error.hint and "napo-bench judge map" in error.hint


def test_a_judge_is_not_the_judge_among_others(gates):
    one, both = judged_run({"a": drawn(1)}), judged_run({"a": drawn(1), "b": drawn(2)})
    for error in refusals(one, both, gates):
        assert "'judges'" in error.message or "judges None and" in error.message


def test_two_extractors_are_refused_by_name(tmp_path):
    counts = [(1, 3)] * 30
    runs = [halbench_run(counts, definition) for definition in ("llm:gpt-a", "llm:gpt-b")]
    path = tmp_path / "gates.toml"
    path.write_text("[object_halbench.chair_s]\nmax_regression = 10.0\n")
    for error in refusals(*runs, load_gates(path)):
        assert "llm:gpt-a" in error.message and "llm:gpt-b" in error.message
        assert "napo-bench score object-halbench" in error.hint


def with_fingerprint(run, fingerprint):
    run.benchmarks["mmhal"].settings["judge"]["fingerprint"] = fingerprint
    return run


def test_another_fingerprint_of_the_same_judge_is_compared_and_noted(gates):
    ratings = drawn(1)[:, 0]
    new, old = (with_fingerprint(mmhal_run(ratings), f"fp_{name}") for name in ("new", "old"))
    note = "mmhal: the system fingerprints of judge or extractor differ: fp_old (baseline), fp_new (candidate)"
    assert note in compare(new, old).notes
    assert note in check_gates(new, old, gates).notes
    assert not any("fingerprint" in text for text in compare(old, old).notes)


def test_the_mean_of_judges_is_compared_and_so_is_each_judge():
    old = judged_run({"a": drawn(1), "b": drawn(2)})
    new = judged_run({"a": np.minimum(drawn(1) + 1, 6), "b": drawn(2)})
    found = compare(new, old)
    rows = {row.paired.metric.name: row for row in found.metrics}
    gain = np.mean([np.minimum(drawn(1) + 1, 6) - drawn(1), drawn(2) - drawn(2)])
    assert rows["score"].paired.difference == pytest.approx(gain)
    (note,) = [note for note in found.notes if note.startswith("mmhal.score by each judge")]
    assert f"a {2 * gain:+.2f} (" in note and "b +0.00 (" in note


def test_answers_that_pass_in_parts_have_no_exact_test():
    one, other = judged_run({"a": drawn(1)[:, :1]}), judged_run({"a": drawn(3)[:, :1]})
    assert {row.paired.metric.name: row.test for row in compare(one, other).metrics}["hal_rate"] == "exact McNemar"
    one, other = judged_run({"a": drawn(1)}), judged_run({"a": drawn(3)})
    assert {row.paired.metric.name: row.test for row in compare(one, other).metrics}["hal_rate"] == "permutation"


def test_a_gate_passes_a_run_of_several_judges_against_itself(gates):
    run = judged_run({"a": drawn(1), "b": drawn(2)})
    assert check_gates(run, run, gates).exit_code == 0


def test_several_trainings_keep_the_score_of_each_judge():
    runs = [judged_run({"a": drawn(seed), "b": drawn(seed + 10)}) for seed in (1, 2)]
    mean = pooled(runs).benchmarks["mmhal"].breakdown["judge/a"]["score"]
    assert mean.value == pytest.approx(np.mean([drawn(1), drawn(2)]))


def test_a_saved_run_of_several_judges_loads_as_it_was(tmp_path):
    run = judged_run({"a": drawn(1), "b": drawn(2)})
    run.save(tmp_path / "run.json")
    assert RunResult.load(tmp_path).benchmarks == run.benchmarks
