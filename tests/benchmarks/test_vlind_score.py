"""VLind-Bench's rules: reading an answer, choosing pictures, conditional scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo_bench.benchmarks.vlind import METRICS
from napo_bench.benchmarks.vlind.score import (
    STYLES,
    best_image,
    good_images,
    instance_counts,
    parse_answer,
    passes,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("True", "True"),
        ("false", "False"),
        ("FALSE.", "False"),
        ("True, because the sky is false", "True"),
        ("The statement is\ntrue.", "True"),
        ("It is not false but true", "False"),
        ("T.r,ue", "True"),
        ("true!", "NA"),
        ("**True**", "NA"),
        ("'true'", "NA"),
        ("untrue", "NA"),
        ("a\ttrue", "NA"),
        ("Yes", "NA"),
        ("", "NA"),
    ],
)
def test_the_first_word_that_is_true_or_false_decides(text: str, answer: str) -> None:
    assert parse_answer(text) == answer


@pytest.mark.parametrize(
    ("first", "second", "right"),
    [("True", "False", True), ("True", "True", False), ("False", "False", False), ("True", "maybe", False)],
)
def test_a_pair_passes_only_as_true_then_false(first: str, second: str, right: bool) -> None:
    assert passes(first, second) is right


def test_good_images_have_two_votes_and_stand_in_numeric_order() -> None:
    assert good_images({"10": 2, "9": 3, "1": 1, "2": 2, "0": 0}) == ["2", "9", "10"]


def test_the_best_image_is_the_named_one_else_the_first_with_most_votes() -> None:
    votes = {"4": 1, "7": 3, "2": 3}
    assert best_image("4", votes) == "4"
    assert best_image(None, votes) == "7"


def metrics_of(rows: list[dict[str, float]]) -> dict[str, float]:
    sums = {name: sum(row[name] for row in rows) for name in rows[0]}
    return {metric.name: float(metric.function(sums)) for metric in METRICS}


def test_scores_of_a_worked_example() -> None:
    rows = [
        instance_counts(ck=True, vp=True, cb=True, lp={"0": True, "5": False}),  # LP share 1/2
        instance_counts(ck=True, vp=True, cb=False, lp={"1": True}),  # fails CB: no LP
        instance_counts(ck=False, vp=True, cb=True, lp={"2": True}),  # fails CK: neither CB nor LP
        instance_counts(ck=True, vp=False, cb=True, lp={"3": True}),  # fails VP: CB but no LP
    ]
    assert metrics_of(rows) == pytest.approx(
        {"ck": 75.0, "vp": 75.0, "cb": 100 * 2 / 3, "lp": 50.0, "cb_accuracy": 75.0, "lp_accuracy": 87.5}
    )


def test_a_conditional_score_without_instances_is_0() -> None:
    metrics = metrics_of([instance_counts(ck=False, vp=False, cb=True, lp={"0": True})])
    assert (metrics["cb"], metrics["lp"]) == (0.0, 0.0)
    assert (metrics["cb_accuracy"], metrics["lp_accuracy"]) == (100.0, 100.0)


def test_n_is_the_number_of_instances_that_a_metric_speaks_of() -> None:
    counted = {metric.name: metric.count for metric in METRICS}
    row = instance_counts(ck=True, vp=False, cb=True, lp={"0": True})
    assert {name: row[count] for name, count in counted.items()} == {
        "ck": 1,
        "vp": 1,
        "cb": 1,
        "lp": 0,
        "cb_accuracy": 1,
        "lp_accuracy": 1,
    }


outcome = st.tuples(
    st.booleans(), st.booleans(), st.booleans(), st.dictionaries(st.sampled_from("0123"), st.booleans(), min_size=1)
)


@given(st.lists(outcome, min_size=1, max_size=30))
def test_scores_are_the_definitions_of_the_paper(outcomes: list[tuple[bool, bool, bool, dict[str, bool]]]) -> None:
    n = len(outcomes)
    ck = [o for o in outcomes if o[0]]
    eligible = [o for o in ck if o[1] and o[2]]
    shares = [np.mean(list(lp.values())) for *_, lp in eligible]
    expected = {
        "ck": 100 * len(ck) / n,
        "vp": 100 * np.mean([vp for _, vp, _, _ in outcomes]),
        "cb": 100 * np.mean([cb for _, _, cb, _ in ck]) if ck else 0,
        "lp": 100 * np.mean(shares) if eligible else 0,
        "cb_accuracy": 100 * np.mean([cb for _, _, cb, _ in outcomes]),
        "lp_accuracy": 100 * np.mean([np.mean(list(lp.values())) for *_, lp in outcomes]),
    }
    assert metrics_of([instance_counts(*o) for o in outcomes]) == pytest.approx(expected)


def test_metrics_take_arrays_of_sums() -> None:
    rows = [instance_counts(True, True, True, {"0": True}), instance_counts(False, True, True, {"0": False})]
    columns = {name: np.array([rows[0][name], rows[1][name], rows[0][name] + rows[1][name]]) for name in rows[0]}
    for name, function in ((metric.name, metric.function) for metric in METRICS):
        assert list(function(columns)) == [
            metrics_of([rows[0]])[name],
            metrics_of([rows[1]])[name],
            metrics_of(rows)[name],
        ]


def test_each_style_has_four_of_the_twelve_images() -> None:
    assert sorted(image for ids in STYLES.values() for image in ids) == list(range(12))
    assert (0 in STYLES["photorealistic"], 7 in STYLES["illustration"], 11 in STYLES["cartoon"]) == (True, True, True)
