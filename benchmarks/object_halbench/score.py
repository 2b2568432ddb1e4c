"""Object HalBench: CHAIR over the COCO objects that answers mention.

Plain data in, plain data out. Terms are the entries of the synonym file; each term has a COCO class.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sums = Mapping[str, Any]

_ANIMALS = (
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "animal",
    "cub",
)
_JOINED_TERMS = {
    "home plate": "home plate",
    "train track": "train track",
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    "passenger jet": "jet",
    "passenger train": "train",
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}


@dataclass(frozen=True)
class Synonyms:
    """The synonym file.

    Attributes:
        classes: Term -> COCO class.
        pairs: Two words, joined by a space -> their term.
    """

    classes: dict[str, str]
    pairs: dict[str, str]


@dataclass(frozen=True)
class Mention:
    """A COCO object in a sequence of words.

    Attributes:
        object: COCO class.
        start: Index of the first word.
        end: Index after the last word.
    """

    object: str
    start: int
    end: int


def parse_synonyms(text: str) -> Synonyms:
    """Read the synonym file: one class a line, comma-separated, with its name first.

    A term on two lines belongs to the later line.
    """
    classes: dict[str, str] = {}
    for line in text.splitlines():
        terms = [term.strip() for term in line.split(",") if term.strip()]
        classes.update((term, terms[0]) for term in terms)
    pairs = {term: term for term in classes if len(term.split()) == 2}
    return Synonyms(classes, pairs | _JOINED_TERMS)


def find_mentions(lemmas: Sequence[str], synonyms: Synonyms) -> list[Mention]:
    """The COCO objects among the words of a text, in the order of the text, with repetitions.

    Args:
        lemmas: Every word of the lower-cased text as its noun lemma.
        synonyms: The synonym file.
    """
    return [
        Mention(synonyms.classes[term], start, end)
        for term, start, end in _without_toilet_seats(_join_pairs(lemmas, synonyms.pairs))
        if term in synonyms.classes
    ]


def find_pairs(lemmas: Sequence[str], synonyms: Synonyms) -> list[str]:
    """The terms of two words among the words of a text."""
    return [term for term, start, end in _join_pairs(lemmas, synonyms.pairs) if end - start == 2]


def objects_of_terms(terms: Sequence[str], synonyms: Synonyms) -> list[Mention]:
    """The COCO objects among terms that an extractor lists; `start` and `end` count terms."""
    spans = _without_toilet_seats([(term, index, index + 1) for index, term in enumerate(terms)])
    return [Mention(synonyms.classes[term], start, end) for term, start, end in spans if term in synonyms.classes]


def score_answer(mentioned: Sequence[str], image_objects: Collection[str], answer: str) -> dict[str, int]:
    """The counts of one answer.

    Args:
        mentioned: Class of every mention.
        image_objects: Classes in the image.
        answer: Text of the answer, stripped.
    """
    hallucinated = sum(name not in image_objects for name in mentioned)
    return {
        "answers": 1,
        "words": len(answer.split(" ")),
        "answers_with_objects": int(bool(mentioned)),
        "answers_with_hallucination": int(hallucinated > 0),
        "mentions": len(mentioned),
        "hallucinated": hallucinated,
        "recalled": len(set(mentioned).intersection(image_objects)),
        "image_objects": len(set(image_objects)),
    }


def _join_pairs(lemmas: Sequence[str], pairs: Mapping[str, str]) -> list[tuple[str, int, int]]:
    spans = []
    start = 0
    while start < len(lemmas):
        pair = pairs.get(" ".join(lemmas[start : start + 2]))
        end = start + (1 if pair is None else 2)
        spans.append((lemmas[start] if pair is None else pair, start, end))
        start = end
    return spans


def _without_toilet_seats(spans: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    terms = {term for term, _, _ in spans}
    if not {"toilet", "seat"} <= terms:
        return spans
    return [span for span in spans if span[0] != "seat"]


def ratio(numerator: str, denominator: str, unit: float = 100.0) -> Callable[[Sums], Any]:
    """Unit * numerator / denominator on sums of counts, numbers or arrays `[B]`; 0 if the denominator is 0."""

    def metric(sums: Sums) -> Any:
        import numpy as np

        # Counts are whole, so a denominator below 1 is 0, and so is its numerator.
        return unit * sums[numerator] / np.maximum(sums[denominator], 1)

    return metric
