"""What a model said in a sample, in the terms that benchmarks share: choices, captions, mentions of objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Sample = Mapping[str, Any]
"""One row of a result's samples."""


@dataclass(frozen=True)
class Choice:
    """An answer to a question with two possible answers: Yes and No, or True and False.

    Attributes:
        expected: Whether the right answer is Yes or True.
        given: Whether the model said Yes or True; None if the answer is neither.
    """

    expected: bool
    given: bool | None


@dataclass(frozen=True)
class Mention:
    """An object that a caption mentions.

    Attributes:
        place: Index of the word in the caption; words are what blanks separate.
        object: Name of the object; "" for a mention that counts, and is no object.
        hallucinated: Whether the object is not in the image.
    """

    place: int
    object: str
    hallucinated: bool


@dataclass(frozen=True)
class Caption:
    """A description of an image.

    Attributes:
        objects: Number of objects in the image.
        mentions: Mentions in the order of the text; None in the samples of an earlier version, and for mentions without
            a place in the text.
    """

    objects: int
    mentions: Sequence[Mention] | None

    @classmethod
    def of(cls, sample: Sample, objects: int) -> Caption:
        """The caption of a sample with the field `mentions`: [place, object, hallucinated] of each mention."""
        stored = sample.get("mentions")
        return cls(objects, None if stored is None else [Mention(*mention) for mention in stored])


@dataclass(frozen=True)
class Reading:
    """One answer of a sample.

    Attributes:
        text: The answer.
        key: Name of the question within the sample; "" if the sample has one question.
        choice: The answer as a choice between two answers; None if the question has other answers.
        caption: The answer as a description of the image; None if the answer is none.
        cut_off: Whether the answer ends at the token limit; None if this is unknown.
    """

    text: str
    key: str = ""
    choice: Choice | None = None
    caption: Caption | None = None
    cut_off: bool | None = None

    @classmethod
    def of(cls, row: Sample, text: str, **fields: Any) -> Reading:
        """The reading of a sample, or of one of its responses. `cut_off` is a field of the row."""
        return cls(text, cut_off=row.get("cut_off"), **fields)


def plain_readings(sample: Sample, settings: Mapping[str, Any]) -> list[Reading]:
    """The field `response` of a sample, if it has one."""
    return [Reading.of(sample, str(sample["response"]))] if "response" in sample else []
