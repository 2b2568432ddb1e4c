"""A map between two raters: its estimate, an interval that covers, what it refuses, and where its numbers may stand."""

import json
import math
import re

import numpy as np
import pytest
from rated_runs import halbench_run, mmhal_run
from simulate_maps import BETTER, LEVELS, OLD, Study, rate, trial
from sklearn.isotonic import IsotonicRegression
from synthetic_runs import invoke

from napo_bench.benchmarks import benchmark_named
from napo_bench.core import stats
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.rating_map import map_ratings, mapped_result
from napo_bench.runs.ratings import collect, named_results
from napo_bench.runs.result import RunResult


def fit(first, second, own, precision=9.0):
    """Map the run with the ratings `own` of A by the answers of another model that A and B rated."""
    runs = [
        ("first", mmhal_run(first, "A", "other", start=1000)),
        ("second", mmhal_run(second, "B", "other", start=1000)),
        ("run", mmhal_run(own, "A", "m")),
    ]
    ratings = collect("mmhal", runs)
    return map_ratings(ratings, named_results(ratings, runs[2:]), "A", "B", precision), ratings


def test_the_map_is_isotonic_regression_of_the_rating_and_of_hallucination():
    rng = np.random.default_rng(0)
    first, second = rate(OLD, 150, rng)
    own, _ = rate(BETTER, 96, rng)
    found, _ = fit(first, second, own)
    rating = IsotonicRegression().fit(first, second)
    hallucinated = IsotonicRegression(increasing=False).fit(first, second < 3)
    assert [level.level for level in found.levels] == [str(level) for level in LEVELS]
    assert [level.pairs for level in found.levels] == np.bincount(first).tolist()
    assert [level.means["rating"] for level in found.levels] == pytest.approx(rating.predict(LEVELS))
    assert [level.means["hallucinated"] for level in found.levels] == pytest.approx(hallucinated.predict(LEVELS))
    score, hal_rate = found.runs[0].metrics
    assert (score.metric.name, hal_rate.metric.name) == ("score", "hal_rate")
    assert (score.rated, hal_rate.rated) == pytest.approx((own.mean(), (own < 3).mean()))
    assert score.value == pytest.approx(rating.predict(own).mean())
    assert hal_rate.value == pytest.approx(hallucinated.predict(own).mean())
    assert (score.n, score.clusters) == (96, 96)


def test_answers_that_b_rated_get_bs_own_score():
    rng = np.random.default_rng(1)
    first, second = rate(OLD, 96, rng)
    runs = [("run", mmhal_run(first, "A")), ("again", mmhal_run(second, "B"))]
    ratings = collect("mmhal", runs)
    found = map_ratings(ratings, named_results(ratings, runs[:1]), "A", "B", 9.0)
    assert found.runs[0].metrics[0].value == pytest.approx(second.mean())
    assert found.runs[0].metrics[1].value == pytest.approx((second < 3).mean())


@pytest.fixture
def few_resamples(monkeypatch):
    whole = stats.bootstrap_intervals
    monkeypatch.setattr(
        stats, "bootstrap_intervals", lambda *rows, **options: whole(*rows, **{**options, "resamples": 300})
    )


@pytest.mark.parametrize("study", [Study(120, 96, BETTER), Study(150, 300, BETTER, a_picture=3)])
def test_the_interval_covers_the_score_that_b_would_give_and_the_answers_alone_do_not(few_resamples, study):
    trials = [result for number in range(50) if (result := trial(study, [study.pairs, number])) is not None]
    assert len(trials) > 45
    assert np.mean([result[name] for result in trials for name in ("score", "hal_rate")]) >= 0.9
    assert np.mean([result[f"{name} of answers"] for result in trials for name in ("score", "hal_rate")]) < 0.86


def caption(rate_of_hallucination, n, rng):
    """Hallucinated objects and objects by extractor A, and by extractor B, which misses objects."""
    hallucinated, other = rng.poisson(rate_of_hallucination, n), rng.poisson(4, n)
    return (hallucinated, hallucinated + other), (
        kept := rng.binomial(hallucinated, 0.7),
        kept + rng.binomial(other, 0.9),
    )


def test_a_line_maps_the_counts_of_extractors():
    rng = np.random.default_rng(0)
    (a_wrong, a_all), (b_wrong, b_all) = caption(0.9, 200, rng)
    (own_wrong, own_all), _ = caption(0.6, 150, rng)
    runs = [
        ("a", halbench_run(zip(a_wrong, a_all, strict=True), "words", "other")),
        ("b", halbench_run(zip(b_wrong, b_all, strict=True), "llm:x", "other")),
        ("run", halbench_run(zip(own_wrong, own_all, strict=True), "words")),
    ]
    ratings = collect("object_halbench", runs)
    found = map_ratings(ratings, named_results(ratings, runs[2:]), "words", "llm:x")
    wrong = np.polyval(np.polyfit(a_wrong, b_wrong, 1), own_wrong).sum()
    mentions = np.polyval(np.polyfit(a_all, b_all, 1), own_all).sum()
    by_name = {one.metric.name: one for one in found.runs[0].metrics}
    assert by_name["chair_i"].value == pytest.approx(100 * wrong / mentions)
    steps = IsotonicRegression().fit(np.minimum(a_wrong, 3), b_wrong > 0)
    assert by_name["chair_s"].value == pytest.approx(100 * steps.predict(np.minimum(own_wrong, 3)).mean())
    assert [level.level for level in found.levels] == ["0", "1", "2", "3 or more"]


def test_the_interval_of_extractors_covers(few_resamples):
    covered = []
    for number in range(30):
        rng = np.random.default_rng([3, number])
        a, b = caption(0.9, 200, rng)
        own, _ = caption(0.6, 200, rng)
        runs = [
            ("a", halbench_run(zip(*a, strict=True), "words", "other")),
            ("b", halbench_run(zip(*b, strict=True), "llm:x", "other")),
            ("run", halbench_run(zip(*own, strict=True), "words")),
        ]
        ratings = collect("object_halbench", runs)
        found = map_ratings(ratings, named_results(ratings, runs[2:]), "words", "llm:x", 50.0)
        true = {"chair_i": 100 * 0.42 / (0.42 + 3.6), "chair_s": 100 * (1 - math.exp(-0.42))}
        covered += [
            one.ci95[0] <= true[one.metric.name] <= one.ci95[1]
            for one in found.runs[0].metrics
            if one.metric.name in true
        ]
    assert np.mean(covered) >= 0.9


def test_answers_with_another_distribution_of_ratings_are_warned_of():
    rng = np.random.default_rng(0)
    first, second = rate(OLD, 200, rng)
    warned = []
    for shares in (OLD, np.array([0.02, 0.05, 0.08, 0.2, 0.3, 0.15, 0.2])):
        own, _ = rate(shares, 96, rng)
        found, _ = fit(first, second, own)
        means = own.mean(), first.mean()
        warned.append([note for note in found.runs[0].notes if "distributed differently" in note])
        assert "The map assumes that answers with equal ratings of A" in found.runs[0].notes[0]
    assert warned[0] == []
    (note,) = warned[1]
    assert re.search(rf"mean {means[0]:.2f}\).*mean {means[1]:.2f}, p < 0\.001", note)


@pytest.mark.parametrize("likes", [0.0, 0.8])
def test_a_map_that_differs_between_the_models_of_the_pairs_is_told(likes):
    rng = np.random.default_rng(3)
    runs = []
    for model in ("one", "two"):
        first, second = rate(OLD, 150, rng)
        liked = np.minimum(second + (rng.random(150) < likes), 6) if model == "two" else second
        runs += [(f"{model}-a", mmhal_run(first, "A", model)), (f"{model}-b", mmhal_run(liked, "B", model))]
    runs.append(("run", mmhal_run(rate(OLD, 96, rng)[0], "A", "m")))
    ratings = collect("mmhal", runs)
    found = map_ratings(ratings, named_results(ratings, runs[-1:]), "A", "B")
    told = [note for note in found.runs[0].notes if "the map differs between models" in note]
    assert len(told) == (2 if likes else 0)
    if likes:
        assert "B rates the answers of one-a, one-b lower than the map says, by 0." in told[0]
        assert "B rates the answers of two-a, two-b higher than the map says, by 0." in told[1]


def test_ratings_that_are_repeated_count_once():
    rng = np.random.default_rng(2)
    first, second = rate(OLD, 100, rng)
    own, _ = rate(OLD, 96, rng)
    once, ratings = fit(first, second, own)
    for item in ratings.items:
        item.by = {rater: counts * 3 for rater, counts in item.by.items()}
    runs = [("run", mmhal_run(own, "A", "m"))]
    again = map_ratings(ratings, named_results(ratings, runs), "A", "B", 9.0)
    for one, other in zip(once.runs[0].metrics, again.runs[0].metrics, strict=True):
        assert other.value == pytest.approx(one.value)
        assert other.ci95 == pytest.approx(one.ci95, abs=0.02)


def test_too_few_ratings_are_refused_with_how_many_would_do():
    rng = np.random.default_rng(0)
    first, second = rate(OLD, 400, rng)
    own, _ = rate(OLD, 96, rng)
    with pytest.raises(NapoBenchError, match="12 answers about 12 pictures are rated by both A and B; 20 pictures"):
        fit(first[:12], second[:12], own)
    with pytest.raises(NapoBenchError) as error:
        fit(first[:150], second[:150], own, precision=0.15)
    needed = int(re.search(r"About (\d+) such answers would do", error.value.hint)[1])
    assert 150 < needed < 400
    found, _ = fit(first[:needed], second[:needed], own, precision=0.17)
    low, high = found.runs[0].metrics[0].of_map
    assert (high - low) / 2 == pytest.approx(0.15, rel=0.15)


def test_levels_that_b_hardly_rated_are_refused_with_how_many_would_do():
    rng = np.random.default_rng(0)
    first, second = rate(OLD, 300, rng)
    low = first < 5
    own = np.repeat([1, 3, 6], [40, 50, 6])
    with pytest.raises(NapoBenchError, match=r"rating 6 \(6% of the run's answers, 0 rated by both\)") as error:
        fit(first[low], second[low], own)
    assert "3 with 6 would do" in error.value.hint
    # A level between others may be rare, but not common.
    without = (first != 3) | (np.cumsum(first == 3) <= 2)
    with pytest.raises(NapoBenchError, match=r"rating 3 \(52% of the run's answers, 2 rated by both\)"):
        fit(first[without], second[without], own)
    found, _ = fit(first[without], second[without], np.repeat([1, 3, 6], [60, 6, 30]))
    means = [level.means["rating"] for level in found.levels]
    assert means[2] <= means[3] <= means[4]


def test_raters_without_ratings_are_refused():
    run, other = mmhal_run([1] * 30, "A"), mmhal_run([1] * 30, "B", model="another")
    runs = [("run", run), ("other", other)]
    ratings = collect("mmhal", runs)
    for names, message in (
        (("A", "A"), "are both 'A'"),
        (("A", "gpt"), "--to: there is no rater 'gpt'"),
        (("A", "B"), "No answer is rated by both A and B"),
        (("B", "A"), "The run run has no ratings of B; its raters: A"),
    ):
        with pytest.raises(NapoBenchError, match=message):
            map_ratings(ratings, named_results(ratings, runs[:1]), *names)


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    """Runs of two judges on disk, and the run of a third model that judge A rated."""
    folder = tmp_path_factory.mktemp("mapped")
    rng = np.random.default_rng(5)
    first, second = rate(OLD, 200, rng)
    mmhal_run(first, "judge-a", "other").save(folder / "a" / "run.json")
    mmhal_run(second, "judge-b", "other").save(folder / "b" / "run.json")
    own = rate(OLD, 96, rng)[0].tolist()
    mmhal_run([None, *own[1:]], "judge-a", "mine").save(folder / "mine" / "run.json")
    return folder


def test_the_command_writes_mapped_runs_that_report_and_gate_mark(mapped, monkeypatch, capsys):
    ask = ["judge", "map", "--from", "judge-a", "--to", "judge-b", "--ratings", mapped / "a", "--ratings", mapped / "b"]
    code, shown, _ = invoke([*ask, mapped / "mine", "--out", mapped / "out"], monkeypatch, capsys)
    assert code == 0
    assert "judge-a mapped to judge-b, by 200 answers that both rated" in shown
    assert "1 answer without a rating of judge-a left out" in shown
    document = json.loads((mapped / "out" / "map.json").read_text())
    score = document["runs"][0]["metrics"][0]
    assert (document["pairs"], score["metric"], score["n"]) == (200, "mmhal.score", 95)
    assert not (mapped / "out" / "mine" / "samples").exists(), "a mapped run has no samples"
    run = RunResult.load(mapped / "out" / "mine")
    assert run.benchmarks["mmhal"].metrics["score"].value == score["value"]
    assert run.benchmarks["mmhal"].settings["judge"] == {"model": "judge-b", "temperature": 0}

    code, shown, _ = invoke(["report", mapped / "mine", f"as-b={mapped / 'out' / 'mine'}"], monkeypatch, capsys)
    (row,) = (line for line in shown.splitlines() if line.startswith("| as-b, mapped from judge-a (200 ratings) |"))
    metric = benchmark_named("mmhal").metric("score")
    assert metric.format(score["value"]) in row and "**" not in row
    assert f"score {' to '.join(map(metric.format, score['ci95']))}" in shown
    assert "whichever model wrote them" in shown
    assert "Judged by judge-b" in shown

    code, shown, _ = invoke(["report", f"as-b={mapped / 'out' / 'mine'}", mapped / "b"], monkeypatch, capsys)
    rows = [line for line in shown.splitlines() if line.startswith(("| as-b,", "| b "))]
    assert [row.count("–") for row in rows] == [0, 0] and "**" not in "".join(rows), "one column, none is best"

    for command in (
        ["compare", mapped / "b", mapped / "out" / "mine"],
        ["power", "--metric", "mmhal.score", "--difference", "0.5", mapped / "b", mapped / "out" / "mine"],
        ["judge", "agree", mapped / "b", mapped / "out" / "mine"],
        [*ask, mapped / "out" / "mine"],
    ):
        code, _, panel = invoke(command, monkeypatch, capsys)
        assert code == 2 and "mapped from judge-a" in " ".join(panel.split()), command


@pytest.mark.parametrize(
    ("options", "step"),
    [
        (["--to", "judge-b", "--precision", "0"], "Leave out --precision"),
        (["--to", "judge-b", "--precision", "nan"], "Leave out --precision"),
        (["--to", "judge-a"], "Give another rater as --to: judge-b."),
    ],
)
def test_a_wrong_option_of_map_has_a_next_step(mapped, options, step, monkeypatch, capsys):
    ask = ["judge", "map", "--from", "judge-a", *options, "--ratings", mapped / "a", "--ratings", mapped / "b"]
    code, _, panel = invoke([*ask, mapped / "mine"], monkeypatch, capsys)
    assert code == 2 and step in " ".join(panel.split())


def test_a_run_is_never_replaced_by_its_mapped_numbers(mapped, monkeypatch, capsys):
    ask = ["judge", "map", "--from", "judge-a", "--to", "judge-b", "--ratings", mapped / "a", "--ratings", mapped / "b"]
    before = (mapped / "mine" / "run.json").read_bytes()
    code, _, panel = invoke([*ask, mapped / "mine", "--out", mapped], monkeypatch, capsys)
    assert code == 2 and "has a run of its own" in " ".join(panel.split())
    assert (mapped / "mine" / "run.json").read_bytes() == before
    runs = [f"x/y={mapped / 'mine'}", f"x-y={mapped / 'a'}"]
    code, _, panel = invoke([*ask, *runs, "--out", mapped / "two"], monkeypatch, capsys)
    assert code == 2 and "Two mapped runs would be written" in " ".join(panel.split())


def gate(mapped, limits, monkeypatch, capsys):
    (mapped / "gates.toml").write_text(limits)
    run = mapped / "out" / "mine"
    ask = ["gate", run, "--baseline", mapped / "b", "--gates", mapped / "gates.toml"]
    return invoke(ask, monkeypatch, capsys)


def test_a_gate_takes_a_mapped_number_by_its_interval_alone(mapped, monkeypatch, capsys):
    ask = ["judge", "map", "--from", "judge-a", "--to", "judge-b", "--ratings", mapped / "a", "--ratings", mapped / "b"]
    assert invoke([*ask, mapped / "mine", "--out", mapped / "out"], monkeypatch, capsys)[0] == 0
    stated = RunResult.load(mapped / "out" / "mine").benchmarks["mmhal"].metrics["score"]
    low, high = stated.ci95
    assert low < stated.value - 0.05 and stated.value + 0.05 < high
    for limit, expected, said in (
        (low - 0.01, 0, "keeps the floor"),
        (stated.value - 0.05, 2, "cannot tell about the floor"),
        (stated.value + 0.05, 2, "cannot tell about the floor"),
        (high + 0.01, 1, "breaks the floor"),
    ):
        code, shown, _ = gate(mapped, f"[mmhal.score]\nfloor = {limit}\n", monkeypatch, capsys)
        assert code == expected and (code == 0 or said in " ".join(shown.split())), limit
    code, _, panel = gate(mapped, "[mmhal.score]\nmax_regression = 1.0\n", monkeypatch, capsys)
    assert code == 2 and "no sample can be compared" in " ".join(panel.split())
    code, _, panel = gate(mapped, "confidence = 0.99\n[mmhal.hal_rate]\nceiling = 1.0\n", monkeypatch, capsys)
    assert code == 2 and "97.5% sure at each end" in " ".join(panel.split())


def test_a_mapped_result_names_an_extractor_as_a_run_of_it_does():
    rng = np.random.default_rng(0)
    a, b = caption(0.9, 200, rng)
    runs = [
        ("a", halbench_run(zip(*a, strict=True), "words")),
        ("b", halbench_run(zip(*b, strict=True), "llm:x")),
    ]
    ratings = collect("object_halbench", runs)
    named = named_results(ratings, runs[:1])
    found = map_ratings(ratings, named, "words", "llm:x", 50.0)
    named[0].result.notes, named[0].result.complete = ["2 empty responses, scored like any other"], False
    result = mapped_result(found, 0, ratings, named[0].result)
    assert result.notes[-1] == "2 empty responses, scored like any other" and not result.complete
    settings = result.settings
    own = runs[1][1].benchmarks["object_halbench"].settings
    assert {name: settings[name] for name in own} == own
    assert settings["mapped"] == {"from": "words", "to": "llm:x", "ratings": 200, "clusters": 200}
