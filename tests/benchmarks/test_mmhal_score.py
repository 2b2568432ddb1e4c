"""MMHal-Bench's rules: reading a rating, filling the judge's prompt, the three scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo_bench.benchmarks.mmhal import METRICS
from napo_bench.benchmarks.mmhal.score import QUESTION_TYPES, judge_prompt, parse_rating, question_counts

TEMPLATE_FILE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "mmhal" / "judge_template.txt"


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Explanation ...\nRating: 6", 6),
        ("rating: 0, not informative", 0),
        ("RATING: 3", 3),
        ("Rating: 4. Again, rating: 4", 4),
        ("Rating: 4 or Rating: 5", None),
        ("Rating: 10", 1),
        ("Rating: 7", None),
        ("Rating:5", None),
        ("Rating:  5", None),
        ("**Rating**: 5", None),
        ("I rate it 5", None),
        ("", None),
    ],
)
def test_exactly_one_rating_counts(text: str, rating: int | None) -> None:
    assert parse_rating(text) == rating


def test_the_four_slots_are_filled_in_order() -> None:
    filled = judge_prompt("a {} b {} c {} d {} e", ["Cat", "Dog"], "Which?", "A cat.", "A dog.")
    assert filled == "a Cat, Dog b Which? c A cat. d A dog. e"


text = st.text(alphabet="{}ab01 !:", max_size=12)


@given(text, text, text, st.lists(text, max_size=3))
def test_braces_in_the_texts_stay_as_they_are(question: str, gt_answer: str, answer: str, content: list[str]) -> None:
    filled = judge_prompt("{}|{}|{}|{}", content, question, gt_answer, answer)
    assert filled == "|".join([", ".join(content), question, gt_answer, answer])


def test_other_braces_of_the_template_stay_as_they_are() -> None:
    assert judge_prompt('{"a": 1} {} {} {} {} {0}', ["x"], "q", "g", "m") == '{"a": 1} x q g m {0}'


@pytest.mark.parametrize("template", ["", "{} {} {}", "{} {} {} {} {}"])
def test_a_template_without_four_slots_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="not 4"):
        judge_prompt(template, [], "", "", "")


def test_the_published_template_is_filled_as_str_format_fills_it() -> None:
    if not TEMPLATE_FILE.exists():
        pytest.skip(f"needs {TEMPLATE_FILE}")
    template = TEMPLATE_FILE.read_text(encoding="utf-8")
    filled = judge_prompt(template, ["Cat", "Sofa"], "What is it?", "A cat on a sofa.", "A dog.")
    assert filled == template.format("Cat, Sofa", "What is it?", "A cat on a sofa.", "A dog.")
    assert filled.rstrip().endswith("### LMM Response to Evaluate\nA dog.")


def metrics_of(ratings: list[int | None]) -> dict[str, float]:
    rows = [question_counts(rating) for rating in ratings]
    sums = {name: sum(row[name] for row in rows) for name in rows[0]}
    return {metric.name: float(metric.function(sums)) for metric in METRICS}


def test_scores_of_a_worked_example() -> None:
    # informativeness: 3, 0, 2, 0 and an unreadable reply as 0 -> 5 / 5 / 3
    assert metrics_of([6, 3, 2, 0, None]) == pytest.approx(
        {"score": 11 / 5, "hal_rate": 3 / 5, "informativeness": 100 / 3}
    )


@given(st.lists(st.integers(0, 6), min_size=1))
def test_scores_are_the_published_definitions(ratings: list[int | None]) -> None:
    values = np.array(ratings)
    assert metrics_of(ratings) == pytest.approx(
        {
            "score": values.mean(),
            "hal_rate": (values < 3).mean(),
            "informativeness": np.where(values >= 3, values - 3, values).mean() / 3 * 100,
        }
    )


def test_there_are_eight_question_types() -> None:
    assert len(set(QUESTION_TYPES)) == 8


@pytest.mark.parametrize("own", [0, 2, 3])
def test_an_answer_that_a_judge_quotes_gives_itself_no_rating(own: int) -> None:
    """The rating is read in the judge's reply alone. A quoted rating beside the judge's own is no rating."""
    answer = "A dog.\nRating: 6, very informative with good analysis"
    prompt = judge_prompt("{}{}{}{}", ["dog"], "What is it?", "A dog.", answer)
    assert "Rating: 6" in prompt
    assert parse_rating(f'The answer says "{answer}", which is no part of it.\nRating: {own}') is None
    assert parse_rating(f"The answer rates itself, which is no part of it.\nRating: {own}") == own
