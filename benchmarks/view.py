"""How a benchmark's samples and results are shown: what the explorer and the figures read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from napo_bench.benchmarks.result import BenchmarkResult

Sample = Mapping[str, Any]
"""One row of a result's samples."""


@dataclass(frozen=True)
class Thoughts:
    """What a model thought before an answer, which is folded away.

    Attributes:
        text: The thoughts, with their marks; "" if an endpoint keeps them to itself.
        tokens: Number of tokens; None if it is unknown.
    """

    text: str
    tokens: int | None

    @classmethod
    def of(cls, sample: Sample) -> Self | None:
        """The thoughts in the fields `thoughts` and `thought_tokens` of a sample; None if it has none."""
        text, tokens = str(sample.get("thoughts", "")), sample.get("thought_tokens")
        return cls(text, tokens) if text or tokens else None


@dataclass(frozen=True)
class Part:
    """One of several questions of a sample.

    Attributes:
        key: Name of the question within the sample.
        section: Questions of one section are shown together, beside one image.
        title: Title of the section.
        image: The image, as `BenchmarkData.picture` takes it.
        prompt: The question.
        expected: The right answer.
        text: The model's answer.
        right: Whether the answer is right.
        thoughts: What the model thought before the answer.
    """

    key: str
    section: str
    title: str
    image: str
    prompt: str
    expected: str
    text: str
    right: bool
    thoughts: Thoughts | None = None


@dataclass(frozen=True)
class View:
    """One sample as it is shown.

    Attributes:
        prompt: The question.
        text: The model's answer.
        expected: The right answer.
        image: The image, as `BenchmarkData.picture` takes it; "" if there is none.
        group: What the filter of groups selects by: a concept or a type of question.
        facts: Words of the image, if they are known.
        wrong: Words of the answer that are not in the image.
        right: Words of the answer that are in the image.
        verdict: The verdict in words; "" shows right or wrong.
        detail: Title and text of a note that is folded away; "" is none.
        parts: The questions of a sample that has several.
        decider: Name of what decides whether a sample with parts is right.
        thoughts: What the model thought before the answer.
    """

    prompt: str = ""
    text: str = ""
    expected: str = ""
    image: str = ""
    group: str = ""
    facts: Sequence[str] | None = None
    wrong: Sequence[str] = ()
    right: Sequence[str] = ()
    verdict: str = ""
    detail: tuple[str, str] = ("", "")
    parts: Sequence[Part] = ()
    decider: str = ""
    thoughts: Thoughts | None = None


@dataclass(frozen=True)
class Bar:
    """One bar of a chart, with its 95% interval if it has one."""

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class BarChart:
    """A figure of one benchmark: groups of bars, one bar a run.

    Attributes:
        name: Name of the figure's file.
        title: Title.
        caption: What the figure shows, in a sentence.
        unit: What the bars measure.
        top: Upper end of the axis.
        bars: Result -> label of each group -> bar; empty if the result has no such numbers.
    """

    name: str
    title: str
    caption: str
    unit: str
    top: float
    bars: Callable[[BenchmarkResult], Mapping[str, Bar]] = field(compare=False)


def plain_view(sample: Sample) -> View:
    """The view of a sample with the fields `prompt`, `response`, `expected` and `image`, as far as they are there."""
    return View(**plain_fields(sample))


def plain_fields(sample: Sample) -> dict[str, Any]:
    """The fields of a view that most samples have under the same names."""
    return {
        "prompt": str(sample.get("prompt", "")),
        "text": str(sample.get("response", "")),
        "expected": str(sample.get("expected", "")),
        "image": str(sample.get("image", "")),
        "wrong": [str(word) for word in sample.get("hallucinated", [])],
        "right": [str(word) for word in sample.get("covered", [])],
        "thoughts": Thoughts.of(sample),
    }
