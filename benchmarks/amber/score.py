"""AMBER: CHAIR, Cover, Hal and Cog of descriptions; accuracy, precision, recall and F1 of yes/no answers.

Plain data in, plain data out. The numbers equal those of the published script to the printed digit: each count of a
denominator starts at 0.001, percentages are rounded to one decimal, and F1 is computed from the rounded precision and
recall.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SIMILARITY_THRESHOLD = 0.8

Sums = Mapping[str, Any]
MetricFunction = Callable[[Sums], Any]

ATTRIBUTE_TYPES = ("state", "number", "action")
DIMENSIONS = ("existence", "attribute", "relation")
_GROUPS = {
    "discriminative-hallucination": ("existence",),
    "discriminative-attribute-state": ("attribute", "state"),
    "discriminative-attribute-number": ("attribute", "number"),
    "discriminative-attribute-action": ("attribute", "action"),
    "discriminative-relation": ("relation",),
    "relation": ("relation",),
}
QUESTION_TYPES = tuple(_GROUPS)


@dataclass(frozen=True)
class DescriptionScore:
    """The score of a description.

    Attributes:
        counts: responses, clean (no hallucinated mention), mentions, hallucinated, truth_words, covered, hallu_words,
            hit.
        mentions: Indices of the nouns that are mentions.
        hallucinated: Indices of the nouns that are hallucinated mentions.
        covered: For the index of a noun, the index of the truth word that it covers.
        hit: For the index of a noun, the indices of the hallu words that it hits.
    """

    counts: dict[str, int]
    mentions: list[int]
    hallucinated: list[int]
    covered: dict[int, int]
    hit: dict[int, list[int]]


def score_description(
    nouns: Sequence[str],
    truth: Sequence[str],
    hallu: Sequence[str],
    associates: Mapping[str, Sequence[str]],
    safe_words: Collection[str],
    similar: Mapping[str, Collection[str]],
) -> DescriptionScore:
    """Score the nouns of one description.

    Args:
        nouns: Lemmas in the order of the text, repeated where the text repeats them.
        truth: Words for objects in the image.
        hallu: Words for objects that are not in the image and that models tend to name.
        associates: relation.json: word -> words with the same meaning. Nouns outside relation.json are no mentions.
        safe_words: Nouns that never count.
        similar: Noun -> words whose similarity to it is above SIMILARITY_THRESHOLD.
    """
    vocabulary = set(associates).union(*associates.values())
    truth_candidates = _candidates(truth, associates)
    hallu_candidates = _candidates(hallu, associates)
    mentions = [index for index, noun in enumerate(nouns) if noun in vocabulary]
    hallucinated: list[int] = []
    covered: dict[int, int] = {}
    hit: dict[int, list[int]] = {}
    for index in mentions:
        noun = nouns[index]
        if noun in safe_words:
            continue
        word = _first(truth_candidates, {noun})
        if word is not None:
            covered[index] = word
            continue
        hits = (_first(hallu_candidates, {noun}), _first(hallu_candidates, similar[noun]))
        if words := sorted({word for word in hits if word is not None}):
            hit[index] = words
        word = _first(truth_candidates, similar[noun])
        if word is not None:
            covered[index] = word
        else:
            hallucinated.append(index)
    counts = {
        "responses": 1,
        "clean": int(not hallucinated),
        "mentions": len(mentions),
        "hallucinated": len(hallucinated),
        "truth_words": len(truth),
        "covered": len(set(covered.values())),
        "hallu_words": len(hallu),
        "hit": len({word for words in hit.values() for word in words}),
    }
    return DescriptionScore(counts, mentions, hallucinated, covered, hit)


def score_answer(question_type: str, truth: str, response: str) -> dict[str, int]:
    """The counts of one yes/no answer, once over all questions and once for each group of its question.

    Args:
        question_type: One of QUESTION_TYPES.
        truth: "yes" or "no".
        response: Response, which counts as an answer if it is exactly "Yes" or "No".
    """
    answer = {
        "questions": 1,
        "correct": int(response == ("Yes" if truth == "yes" else "No")),
        "truth_no": int(truth != "yes"),
        "answered_no": int(response == "No"),
        "right_no": int(response == "No" and truth != "yes"),
    }
    groups = ("all", *_GROUPS[question_type])
    return {f"{group}_{name}": count for group in groups for name, count in answer.items()}


def yes_or_no(text: str) -> str:
    """The answer "Yes" or "No" if this is the first word of a text, in any case and with any punctuation around it.

    Every other answer stays unchanged, and counts as neither.
    """
    word = re.match(r"[\W_]*(yes|no)(?!_*[^\W_])", text, flags=re.IGNORECASE)
    return word[1].capitalize() if word else text


READINGS: dict[str, Callable[[str], str]] = {"exact": str, "lenient": yes_or_no}
"""Readings of a yes/no answer: "exact" as in the published script, "lenient" by the first word."""


def _candidates(words: Sequence[str], associates: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    """Every associate in the order of the words, then the words, each with the index of its word."""
    return [(associate, index) for index, word in enumerate(words) for associate in associates[word]] + [
        (word, index) for index, word in enumerate(words)
    ]


def _first(candidates: Sequence[tuple[str, int]], wanted: Collection[str]) -> int | None:
    return next((index for candidate, index in candidates if candidate in wanted), None)


def _rounded(percent: Any) -> Any:
    import numpy as np

    # Python rounds the decimal value, NumPy the scaled one; they can differ in the last digit.
    return np.round(percent, 1) if isinstance(percent, np.ndarray) else round(float(percent), 1)


def _percent(sums: Sums, numerator: str, denominator: str, counters: int = 1) -> Any:
    return _rounded(sums[numerator] / (sums[denominator] + 0.001 * counters) * 100)


def rate(numerator: str, denominator: str) -> MetricFunction:
    """Percent of a denominator that starts at 0.001."""
    return lambda sums: _percent(sums, numerator, denominator)


def hal(sums: Sums) -> Any:
    """Percent of descriptions with a hallucinated mention."""
    return _rounded(100 - sums["clean"] / (sums["responses"] + 0.001) * 100)


def accuracy(group: str) -> MetricFunction:
    """Percent of a group's questions that are answered right. A group is "all", a dimension or an attribute type."""
    return lambda sums: _percent(sums, f"{group}_correct", f"{group}_questions", _counters(group))


def precision(group: str) -> MetricFunction:
    """Percent of a group's answers No that are right."""
    return lambda sums: _percent(sums, f"{group}_right_no", f"{group}_answered_no", _counters(group))


def recall(group: str) -> MetricFunction:
    """Percent of a group's questions with the truth no that are answered No."""
    return lambda sums: _percent(sums, f"{group}_right_no", f"{group}_truth_no", _counters(group))


def f1(group: str) -> MetricFunction:
    """Harmonic mean of the rounded precision and recall of a group, in percent."""
    floor = 0.001 if group == "existence" else 0.0001

    def function(sums: Sums) -> Any:
        p, r = precision(group)(sums) / 100, recall(group)(sums) / 100
        return _rounded(2 * p * r / (p + r + floor) * 100)

    return function


def _counters(group: str) -> int:
    # The script has one counter for each question type, so the attribute dimension adds 0.001 three times.
    return len(ATTRIBUTE_TYPES) if group == "attribute" else 1
