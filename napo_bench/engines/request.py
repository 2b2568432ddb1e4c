"""A request to a model: a question, an image if there is one, and the settings of the generation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from PIL import Image


@dataclass(frozen=True)
class Generation:
    """Settings of the generation of an answer.

    Attributes:
        max_new_tokens: Maximum number of tokens in an answer.
        num_beams: Number of beams; 1 is greedy, unless the answer is sampled.
        do_sample: Whether tokens are drawn. The request seeds the draws.
        temperature: Temperature of the draws.
        top_p: Share of the probability that the draws are from.
        top_k: Number of the likeliest tokens that the draws are from; None is all tokens.
        until: Strings that end an answer.
    """

    max_new_tokens: int = 1024
    num_beams: int = 1
    do_sample: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    until: tuple[str, ...] = ()

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Self:
        """The settings of a task's `generation_kwargs`. Keys that are no attribute, or have no effect, are left out."""
        known = {field.name for field in fields(cls)} - {"until"}
        values = {name: value for name, value in kwargs.items() if name in known and value is not None}
        until = kwargs.get("until") or ()
        if not values.get("do_sample"):
            values = {name: value for name, value in values.items() if name not in ("temperature", "top_p", "top_k")}
        return cls(**values, until=(until,) if isinstance(until, str) else tuple(until))

    def cut(self, text: str) -> str:
        """The text before the first string of `until`, without white space around it."""
        for stop in self.until:
            text = text.partition(stop)[0]
        return text.strip()

    def identity(self) -> dict[str, Any]:
        """The settings as JSON, for the journal. Without a top-k they are those that journals had before top-k."""
        return {name: value for name, value in vars(self).items() if name != "top_k" or value is not None}


@dataclass(frozen=True)
class Picture:
    """An image that is read when it is needed.

    Attributes:
        name: Name of the image; an image with the same name is opened once.
        open: Function that reads the image. Raises NapoBenchError if the image cannot be decoded.
    """

    name: Hashable
    open: Callable[[], Image.Image]

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """An image that is in memory."""
        return cls(id(image), lambda: image)


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        question: Text of the question, which may be empty.
        picture: Image that the question is about; None if there is none.
        generation: How the answer is generated.
    """

    question: str
    picture: Picture | None
    generation: Generation
