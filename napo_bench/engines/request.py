"""A request to a model: a question, an image if there is one, and the settings of the generation."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from PIL import Image

from napo_bench.core.encoded import EncodedImage
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import PLACE


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

    def settings(self) -> dict[str, Any]:
        """The settings as arguments of `transformers.generate`."""
        return {name: value for name, value in vars(self).items() if name != "until"}

    def identity(self) -> dict[str, Any]:
        """The settings as JSON, for the journal. Without a top-k they are those that journals had before top-k."""
        return {name: value for name, value in vars(self).items() if name != "top_k" or value is not None}


@dataclass(frozen=True)
class Picture:
    """An image that is read when it is needed.

    Attributes:
        name: Name of the image; an image with the same name is opened once.
        open: Function that reads the image. Raises NapoBenchError if the image cannot be decoded.
        read: Function that reads the image as it is sent to a server; None if the image is in no file. Raises
            NapoBenchError as `open`.
        content: SHA-256 of the encoded image, in hex. The image is not opened for an answer that is stored. "" if it is
            not known.
    """

    name: Hashable
    open: Callable[[], Image.Image]
    read: Callable[[], EncodedImage] | None = None
    content: str = ""

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """An image that is in memory."""
        return cls(id(image), lambda: image)

    def encoded(self) -> EncodedImage:
        """The image as it is sent to a server. Raises NapoBenchError as `open`."""
        return self.read() if self.read else EncodedImage.of(self.open())


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        question: Text of the question, which may be empty.
        picture: Image that the question is about, the first if there are several; None if there is none.
        generation: How the answer is generated.
        further: The images after the first.

    Raises:
        NapoBenchError: the question marks the places of another number of images than it has.
    """

    question: str
    picture: Picture | None
    generation: Generation
    further: tuple[Picture, ...] = ()

    def __post_init__(self) -> None:
        marked = self.question.count(PLACE)
        if self.further and marked not in (0, len(self.pictures)):
            raise NapoBenchError(
                f"The question {self.question!r:.120} has {len(self.pictures)} images and marks {marked} places.",
                "Mark the place of each image with napo_bench.core.images.PLACE. Without marks the images come first.",
            )

    @property
    def pictures(self) -> list[Picture]:
        """All images of the question."""
        return [] if self.picture is None else [self.picture, *self.further]

    @property
    def parts(self) -> list[str | None]:
        """The texts of a question about several images, and None at the place of each image."""
        return parts_of(self.question, len(self.pictures))


def parts_of(question: str, count: int) -> list[str | None]:
    """The texts of a question about several images, and None at the place of each image.

    Args:
        question: Question with `count` PLACE marks, or without marks. Without marks the images come first.
        count: Number of images.
    """
    first, *rest = (question if PLACE in question else PLACE * count + question).split(PLACE)
    return [part for part in (first, *(one for text in rest for one in (None, text))) if part != ""]
