"""Controls of a training: the same rows with images that do not show what the rows are about.

What a control gains over the base, the training gains without looking: by the length, the style and the facts of the
texts alone. Everything except the content of the images stays: prompts, the place and the number of image tokens, the
rows, and the rows that are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import Control

BLIND: Control = "blind"
SWAPPED: Control = "swapped"


class TrainingImages(Protocol):
    """The images that rows are trained with in place of their own."""

    @property
    def determinants(self) -> list[Any]:
        """Everything that determines the images, except the rows, as JSON."""
        ...

    def image(self, position: int, own: Image.Image) -> Image.Image | None:
        """The image for the row at a position; None if there is no such image.

        Args:
            position: Position of the row in the data set.
            own: The row's own image.
        """
        ...


@dataclass(frozen=True)
class BlankImages:
    """Blank images in the sizes of the rows' own images, so each row keeps its number of image tokens.

    Attributes:
        blank: Size -> image of this size that shows nothing.
    """

    blank: Callable[[tuple[int, int]], Image.Image]

    @property
    def determinants(self) -> list[Any]:
        """See `TrainingImages`."""
        return [BLIND, list(self.blank((1, 1)).tobytes())]

    def image(self, position: int, own: Image.Image) -> Image.Image | None:
        """See `TrainingImages`."""
        return self.blank(own.size)


@dataclass(frozen=True)
class OtherImages:
    """Images of other rows: every image takes the place of another image, and none stays at its own place.

    The different images are put into one circle, in an order that is drawn. Each row gets the next image of the circle.
    An image that cannot be decoded is passed over.

    Attributes:
        following: Position of a row -> position of a row with the next image of the circle; -1 for a row without an
            image.
        read: Position of a row -> its own image; None if the image cannot be decoded.
        seed: Seed of the order.
    """

    following: Sequence[int]
    read: Callable[[int], Image.Image | None]
    seed: int

    @classmethod
    def of(cls, digests: Iterable[str], read: Callable[[int], Image.Image | None], seed: int) -> OtherImages:
        """The circle of these images.

        Args:
            digests: Digest of each row's encoded image, in the order of the rows; "" for a row without an image.
            read: See `OtherImages`.
            seed: Seed of the order.

        Raises:
            NapoBenchError: all images are equal.
        """
        digests = list(digests)
        require_several_images(digests)
        first: dict[str, int] = {}
        for position, digest in enumerate(digests):
            if digest:
                first.setdefault(digest, position)
        circle = list(first)
        random.Random(f"{SWAPPED}/{seed}").shuffle(circle)
        after = dict(zip(circle, [*circle[1:], circle[0]], strict=True))
        return cls([first[after[digest]] if digest else -1 for digest in digests], read, seed)

    @property
    def determinants(self) -> list[Any]:
        """See `TrainingImages`."""
        return [SWAPPED, self.seed]

    def image(self, position: int, own: Image.Image) -> Image.Image | None:
        """See `TrainingImages`. None if no other image can be decoded."""
        begin = other = self.following[position]
        while self.following[other] != begin:  # the image before the first one is the row's own
            image = self.read(other)
            if image is not None:
                return image
            other = self.following[other]
        return None


def require_several_images(digests: Iterable[str]) -> None:
    """Refuse rows whose images cannot be swapped. The digests are read up to the second image.

    Args:
        digests: Digest of each row's encoded image; "" for a row without an image.

    Raises:
        NapoBenchError: there is no second image.
    """
    images = (digest for digest in digests if digest)
    first = next(images, None)
    if all(digest == first for digest in images):
        raise NapoBenchError(
            f"control is {SWAPPED}, and the rows do not have two different images.",
            f"Give rows with several images, or choose the control {BLIND}.",
        )
