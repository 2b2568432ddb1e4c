"""`napo-bench lab`: label swapping, margins against known noise, verdicts on claims, and the whole command."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from synthetic_runs import invoke
from tiny_llava import make_data

from napo_bench.benchmarks.result import MetricValue
from napo_bench.core.errors import NapoBenchError
from napo_bench.micro import data as micro_data
from napo_bench.micro.language import answers, typical_scene, understand
from napo_bench.micro.preferences import is_noise, write_preference_rows
from napo_bench.micro.truth import is_right
from napo_bench.micro.world import THINGS, Scene
from napo_bench.report.figures import label_noise
from napo_bench.runs.evaluate import EvalOptions
from napo_bench.studies import experiment
from napo_bench.studies.paper_claims import laboratory as lab
from napo_bench.studies.paper_claims.changed_rows import (
    expect_things_shown,
    reject_custom,
    swap_labels,
    swapped_positions,
)
from napo_bench.studies.paper_claims.claims import COMPARISONS, Claim, margin_claims, metric_claims, verdicts_on
from napo_bench.studies.paper_claims.estimate import Estimate
from napo_bench.studies.paper_claims.found import mean_log
from napo_bench.studies.paper_claims.laboratory import Laboratory, Sweep, table_methods
from napo_bench.studies.paper_claims.margins import Negatives, auc, auc_within, margins_of, separation
from napo_bench.trainers.recipe import recipe_names
from napo_bench.trainers.reference import Reference

STUDY, TRAINERS = experiment.__name__, "napo_bench.trainers"

# Swapped labels


@given(st.integers(0, 300), st.integers(0, 50), st.integers(0, 50))
def test_the_share_is_exact_and_a_smaller_one_is_part_of_a_larger_one(rows, one, other):
    small, large = (set(swapped_positions(rows, percent).tolist()) for percent in sorted((one, other)))
    assert small <= large <= set(range(rows))
    assert len(large) == round(rows * max(one, other) / 100)


def test_another_seed_swaps_other_rows():
    assert set(swapped_positions(1000, 20, seed=1)) != set(swapped_positions(1000, 20, seed=2))


def test_swapping_exchanges_chosen_and_rejected_of_those_rows_and_nothing_else():
    table = pa.table(
        {"idx": range(10), "chosen": [f"c{i}" for i in range(10)], "rejected": [f"r{i}" for i in range(10)]}
    )
    swapped = swap_labels(table, 40).to_pylist()
    there = set(swapped_positions(10, 40).tolist())
    assert len(there) == 4
    for i, row in enumerate(swapped):
        chosen, rejected = ("r", "c") if i in there else ("c", "r")
        assert row == {"idx": i, "chosen": f"{chosen}{i}", "rejected": f"{rejected}{i}"}
    assert swap_labels(table, 0) == table


# Changed rows


def test_biased_pairs_reject_what_custom_expects_and_differ_in_nothing_else(tmp_path):
    table = parquet.read_table(write_preference_rows(tmp_path / "rows.parquet", rows=60))
    biased = reject_custom(table)
    assert biased.drop_columns(["rejected"]) == table.drop_columns(["rejected"])
    tempted = 0
    for before, row in zip(table.to_pylist(), biased.to_pylist(), strict=True):
        question, scene = understand(row["question"]), Scene.from_json(row["scene"])
        assert not is_right(row["rejected"], question, scene)
        group = scene.group(question.thing)
        if question.kind == "color" and group and group.color != THINGS[group.thing].color:
            assert THINGS[group.thing].color in row["rejected"]
            tempted += 1
        elif question.kind == "color":
            assert row["rejected"] == before["rejected"]
    assert tempted


def test_plausible_negatives_are_typical_of_what_is_shown_where_the_question_names_nothing(tmp_path):
    rows = parquet.read_table(write_preference_rows(tmp_path / "rows.parquet", rows=60))
    rows = rows.append_column("question_only", pa.array(["The image shows a street with two red cars."] * 60))
    plausible = expect_things_shown(rows)
    assert plausible.drop_columns(["question_only"]) == rows.drop_columns(["question_only"])
    asked = set()
    for row in plausible.to_pylist():
        question, scene = understand(row["question"]), Scene.from_json(row["scene"])
        asked.add(bool(question.thing))
        if question.thing:
            assert row["question_only"] == "The image shows a street with two red cars."
        else:
            assert any(row["question_only"] in answers(question, typical_scene(g.thing)) for g in scene.groups)
    assert asked == {True, False}


# Margins against known noise


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=30))
def test_auc_is_the_share_of_pairs_in_the_right_order_with_ties_as_half(drawn):
    positives, others = ([score for score, kind in drawn if kind is wanted] for wanted in (True, False))
    found = auc(np.array([s for s, _ in drawn], dtype=float), np.array([kind for _, kind in drawn], dtype=bool))
    if positives and others:
        won = sum((p > o) + (p == o) / 2 for p in positives for o in others)
        assert found == pytest.approx(won / (len(positives) * len(others)))
    else:
        assert found is None


def reference(sums, means):
    return Reference(np.array(sums, np.float32), np.array(means, np.float32), np.zeros(len(sums), np.int64))


def test_a_margin_is_the_log_ratio_of_the_chosen_less_that_of_the_negative():
    base = reference([[-10, -20, -30], [-1, -2, -3]], [[-1, -2, -3], [-1, -1, -1]])
    policy = reference([[-8, -20, -36], [-1, -2, -3]], [[-0.5, -2, -4], [-1, -1, -1]])
    found = margins_of(policy, base, 2, np.array([0]))
    assert found["sum"].tolist() == [(-8 + 10) - (-36 + 30)]
    assert found["mean"].tolist() == [(-0.5 + 1) - (-4 + 3)]


def test_auc_within_compares_negatives_of_one_group_only():
    scores = np.array([9.0, 8.0, 1.0, 2.0, 5.0])
    positive = np.array([True, False, False, True, True])
    groups = ["count", "count", "color", "color", "alone"]
    assert auc_within(scores, positive, groups) == 1.0
    assert auc(scores, positive) == (2 + 1 + 1) / 6
    assert auc_within(scores, positive, list("abcde")) is None


def negatives(noisy):
    noisy = np.array(noisy)
    return Negatives(np.arange(len(noisy)), noisy, np.zeros(len(noisy), np.int64), ["color"] * len(noisy))


def test_a_margin_that_is_larger_for_noise_free_negatives_has_an_auc_above_a_half():
    margins = [np.array([5.0, 3.0, 1.0]), np.array([4.0, 1.0, 2.0])]
    found = separation("dpo", "vision", "sum", negatives([False, False, True]), margins)
    assert found.aucs == [1.0, 0.5]
    assert found.auc.mean == 0.75 and found.auc.ci95 == (0.0, 1.0)
    assert (found.noise_free.mean, found.noisy.mean) == (pytest.approx((4 + 2.5) / 2), 1.5)


def test_where_nothing_is_noise_there_is_no_auc():
    found = separation("dpo", "vision", "sum", negatives([False, False]), [np.array([1.0, 2.0])] * 2)
    assert (found.aucs, found.auc, found.noisy) == ([], None, None)
    assert found.noise_free.mean == 1.5


# Estimates and verdicts


def test_an_estimate_is_the_mean_with_students_t():
    found = Estimate.of([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.ci95 == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert found.text(1, "+") == "+2.0 [-0.5, +4.5]"
    assert Estimate.of([1.0]) is None


def claim(expected, than="b"):
    return Claim("Table 1", "a and b", "CB", "a", than, expected, 1, None)


@pytest.mark.parametrize(
    ("a", "expected", "verdict"),
    [
        ([52.0, 62.1, 71.9], "higher", "holds"),
        ([52.0, 62.1, 71.9], "lower", "contradicted"),
        ([48.0, 57.9, 68.1], "lower", "holds"),
        ([51.0, 59.0, 70.0], "higher", "open"),
        ([50.0, 60.0, 70.0], "higher", "open"),
    ],
)
def test_a_verdict_looks_at_the_paired_differences_not_at_the_spread_over_seeds(a, expected, verdict):
    (found,) = verdicts_on([claim(expected)], {"a": a, "b": [50.0, 60.0, 70.0]})
    assert found.verdict == verdict
    assert found.difference.mean == pytest.approx(sum(a) / 3 - 60)


def test_a_quantity_can_be_compared_with_a_number():
    (found,) = verdicts_on([claim("higher", than=0.5)], {"a": [0.7, 0.72, 0.71]})
    assert found.verdict == "holds" and found.difference.mean == pytest.approx(0.21)


def test_what_was_not_measured_gets_no_verdict():
    assert verdicts_on([claim("higher")], {"a": [1.0, 2.0]}) == []
    assert verdicts_on([claim("higher")], {}) == []


def test_every_claim_compares_recipes_that_the_tables_train():
    assert {name for row in COMPARISONS for name in (row.method, row.other)} <= set(table_methods())


def test_claims_carry_the_papers_differences_and_directions():
    by_key = {(row.where, row.this, row.than): row for row in metric_claims()}
    napo = by_key["Table 1", "micro-napo vlind.cb", "micro-dpo vlind.cb"]
    assert (napo.paper, napo.expected) == (19.5, "higher")
    chair = by_key["Table 1", "micro-napo object_halbench.chair_s", "micro-dpo object_halbench.chair_s"]
    assert (chair.paper, chair.expected) == (-6.3, "lower")
    vision = by_key["Table 4", "micro-napo-vb1 vlind.lp", "micro-napo-vb1-mean vlind.lp"]
    assert vision.paper == 11.9  # with the 41.4 that Table 4 prints, not Table 2's 31.4
    hurts = by_key["Table 6", "micro-napo-everywhere vlind.cb", "micro-napo-everywhere-sum vlind.cb"]
    assert (hurts.paper, hurts.expected) == (-32.1, "lower")
    assert all(row.paper is not None for row in metric_claims())
    lengths = {row.this: (row.paper, row.expected) for row in margin_claims([])}
    assert lengths == {"length vision noise-free": (-199.2, "lower"), "length vision noisy": (199.61, "higher")}


# Logs and figures


def test_logs_of_seeds_are_averaged_at_the_steps_that_all_have():
    logs = [[{"step": 5, "q": 1.0}, {"step": 10, "q": 0.5}], [{"step": 5, "q": 0.0, "x": 1.0}]]
    assert mean_log(logs) == [{"step": 5, "q": 0.5}]


def test_label_noise_is_drawn_with_a_line_and_intervals_for_each_method():
    lines = {
        method: {percent: {"vlind.cb": MetricValue(value - percent, (value - 50, value), 9)} for percent in (0, 20, 40)}
        for method, value in (("dpo", 60.0), ("napo", 70.0))
    }
    (axes,) = label_noise(lines, ["dpo", "napo"]).figure.axes
    assert axes.get_title(loc="left").startswith("CB")
    drawn = {container.get_label(): container.lines[0].get_data() for container in axes.containers}
    assert {name: list(data[1]) for name, data in drawn.items()} == {"dpo": [60, 40, 20], "napo": [70, 50, 30]}


# What is run


def laboratory(**changes):
    return Laboratory(Path("out"), range(2), changes.pop("parts", lab.PARTS), EvalOptions(), **changes)


def test_the_tables_train_every_variant_of_napo_that_comes_along():
    variants = {name for name in recipe_names() if name.startswith("micro-napo")}
    assert set(laboratory(parts=["tables"]).main.recipes) == variants | {"micro-dpo", "micro-mdpo"}


def test_a_sweep_takes_the_recipes_own_alpha_from_the_tables():
    whole = laboratory()
    assert whole.swept["micro-napo-vb1"] == {
        0.01: "micro-napo-vb1-alpha-vision-0.01",
        0.03: "micro-napo-vb1-alpha-vision-0.03",
        0.1: "micro-napo-vb1",
        0.3: "micro-napo-vb1-alpha-vision-0.3",
        1.0: "micro-napo-vb1-alpha-vision-1",
    }
    for name, methods in whole.swept.items():
        key = whole.sweeps[name].key
        for alpha, method in methods.items():
            own = whole.main.recipes[name]
            assert dataclasses.replace(own, **{key: alpha}) == whole.main.recipes[method]


def test_the_base_is_evaluated_once_and_unswapped_labels_are_trained_once():
    titles = [step.title for step in laboratory().steps()]
    assert len(titles) == len(set(titles))
    assert titles.count("Evaluate the base") == 1
    assert "Train micro-dpo, seed 1" in titles and "Train micro-dpo, seed 1, 25% swapped" in titles
    assert not any(", 0% swapped" in title for title in titles)
    assert not any("mdpo" in title for title in titles if "swapped" in title)


def test_swapped_labels_differ_from_the_unswapped_ones_in_nothing_but_the_rows():
    whole = laboratory()
    kept = {trained.method: trained.recipe for trained in whole.main.trained() if trained.seed == 1}
    for trained in whole.swapped[25].trained():
        if trained.seed == 1:
            assert dataclasses.replace(trained.recipe, data="") == dataclasses.replace(kept[trained.method], data="")


# The command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    make_data(tmp_path / "data", size=2)

    def run(*arguments, width=250):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(micro_data, "ensure_data", lambda: tmp_path / "data")
        few = functools.partial(
            Laboratory,
            swapped_methods=["micro-cdpo"],
            sweeps={"micro-napo": Sweep("Figure 6", "alpha_vision", (0.2,))},
        )
        monkeypatch.setattr(lab, "Laboratory", few)
        return invoke(["lab", "--jobs", "1", "--out", "out", *arguments], monkeypatch, capsys, width=width)

    return run


def test_the_command_measures_everything_and_a_second_run_does_nothing_again(command, tmp_path, monkeypatch):
    small = ["--rows", "20", "--limit", "2", "--seeds", "2", "--share", "40", "--set", "per_device_batch_size=10"]
    small += ["--recipe", "micro-dpo", "--recipe", "micro-napo"]
    code, out, err = command(*small)
    assert code == 0, err
    page = (tmp_path / "out/lab.md").read_text()
    for title in (
        "Every method",
        "Which margin finds noise",
        "Alpha of micro-napo",
        "Noise in the labels",
        "biased already",
        "Figure 4",
    ):
        assert title in page and (title in out or title == "Figure 4")
    found = json.loads((tmp_path / "out/lab.json").read_text())
    assert {part: set(methods) for part, methods in found["changed_rows"].items()} == {
        "biased-pairs": {"micro-dpo", "micro-napo"},
        "plausible-negatives": {"micro-napo", "micro-napo-lb1"},
    }
    assert len(found["changed_rows"]["biased-pairs"]["micro-dpo"]["vlind.cb"]) == 2
    assert {(row["method"], row["swapped_percent"]) for row in found["methods"]} == {
        ("micro-dpo", 0),
        ("micro-napo", 0),
        ("micro-napo-alpha-vision-0.2", 0),
        ("micro-cdpo", 0),
        ("micro-cdpo", 40),
        ("micro-napo-lb1", 0),
    }
    assert all(len(row["metrics"]["vlind.cb"]["by_seed"]) == 2 for row in found["methods"])
    rows = parquet.read_table(next((tmp_path / "out/rows/micro-20-bias").glob("*.parquet"))).to_pylist()
    for part, column in (("biased-pairs", "rejected"), ("plausible-negatives", "question_only")):
        changed = parquet.read_table(tmp_path / f"out/rows/micro-20-{part}.parquet").to_pylist()
        pairs = zip(rows, changed, strict=True)
        assert {name for one, other in pairs for name in one if one[name] != other[name]} == {column}
        recipe = (tmp_path / f"out/{part}/micro-napo/seed-0/model/recipe.yaml").read_text()
        assert f"micro-20-{part}.parquet" in recipe
    for kind, column in (("language", "question_only"), ("vision", "image_only")):
        there = [is_noise(row["question"], row[column], row["scene"]) for row in rows if row[column].strip()]
        noise = found["noise"][kind]
        assert (noise["negatives"], noise["noisy"]) == (len(there), sum(there))
    assert {(row["policy"], row["kind"], row["margin"]) for row in found["separations"]} == {
        (policy, kind, margin)
        for policy in ("micro-dpo", "micro-napo")
        for kind in ("language", "vision")
        for margin in ("sum", "mean")
    }
    judged = {(row["claim"]["where"], row["claim"]["quantity"]) for row in found["claims"]}
    assert {("Table 1", "CB"), ("Table 1", "CHAIRs")} <= judged
    assert {"noise-against-margin-micro-napo.svg", "noise-in-labels.png", "training-q.svg", "sweep-micro-napo.svg"} <= {
        path.name for path in (tmp_path / "out/figures").iterdir()
    }
    links = [line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert links and all((tmp_path / "out" / link).is_file() for link in links)

    def never(*_, **__):
        raise AssertionError("done again")

    for where in (f"{STUDY}.evaluate", f"{TRAINERS}.run.PreferenceTrainer", f"{TRAINERS}.reference.row_logps"):
        monkeypatch.setattr(where, never)
    assert command(*small)[:2] == (0, out)
    assert (tmp_path / "out/lab.md").read_text() == page

    narrow = command(*small, width=80)[1].splitlines()
    assert max(map(len, narrow[:-1])) <= 80  # the last line is the path
    assert "…" not in "".join(narrow)
    assert any(line.startswith("micro-napo-alpha-vision-0.2 ") for line in narrow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--part", "table"),
            "there is no part 'table'. Next: Did you mean tables? Choose one of tables, noise-in-labels, alpha, "
            "biased-pairs, plausible-negatives.",
        ),
        (("--share", "60"), "Invalid value for '--share'"),
        (("--seeds", "1"), "Invalid value for '--seeds'"),
        (("--set", "betaa=1"), "Did you mean beta"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(command, arguments, message):
    code, out, err = command(*arguments)
    assert code == 2 and out == ""
    assert message in " ".join(err.replace("│", " ").split()) and "Traceback" not in err


def test_rows_of_another_version_of_the_world_are_refused(command, tmp_path):
    rows = write_preference_rows(tmp_path / "out/rows/micro-20.parquet", rows=20)
    parquet.write_table(parquet.read_table(rows).replace_schema_metadata({}), rows)
    code, _, err = command("--rows", "20")
    assert code == 2
    assert "is from another version of the micro world. Next: Choose another --out." in " ".join(
        err.replace("│", " ").split()
    )


def test_rows_that_are_cut_off_are_named(command, tmp_path):
    rows = write_preference_rows(tmp_path / "out/rows/micro-20.parquet", rows=20)
    rows.write_bytes(rows.read_bytes()[:3000])
    code, _, err = command("--rows", "20")
    shown = " ".join(err.replace("│", " ").split())
    assert code == 2 and "cut off. Next: Remove it; the same command draws it anew." in shown


def test_the_jobs_of_the_command_reach_the_steps(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(micro_data, "ensure_data", lambda: tmp_path)
    seen = []

    def stop(steps, devices):
        seen.append(len(devices))
        raise NapoBenchError("stopped")

    monkeypatch.setattr("napo_bench.cli.lab.run_steps", stop)
    assert invoke(["lab", "--jobs", "3", "--out", "out"], monkeypatch, capsys)[0] == 2
    assert seen == [3]
