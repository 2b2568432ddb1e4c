"""What a model is asked: a prompt, its images, and what writes prompts for a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from napo_bench.core.encoded import EncodedImage
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import PLACE
from napo_bench.engines.request import Generation, Picture


@dataclass(frozen=True)
class Seen:
    """An image as an engine needs it.

    Attributes:
        digest: Digest of the image.
        image: Pixels; None if the image is encoded, or is known by its digest alone.
        encoded: The image as it is sent to a server; None for a model in this process.
    """

    digest: str
    image: Image.Image | None = None
    encoded: EncodedImage | None = None

    @property
    def is_open(self) -> bool:
        """Whether the image is here; False if only its digest is known."""
        return self.image is not None or self.encoded is not None

    @property
    def bytes(self) -> int:
        """Memory of the image in bytes."""
        if self.image is not None:
            return self.image.width * self.image.height * len(self.image.getbands())
        return self.encoded.memory if self.encoded is not None else 0


@dataclass(frozen=True)
class Prompt:
    """One prompt for an engine.

    Attributes:
        text: Text that the model reads.
        image: Image that the model sees, the first if there are several; None if there is no image, or if the images
            are encoded.
        digest: Digest of the images; "" if there is no image.
        generation: Settings of the generation.
        key: Key of the answer in the journal: a hash, in hex, of everything that the answer depends on.
        further: The images after the first, in the order of the text.
        encoded: All images, for an engine whose `look` encodes them.
    """

    text: str
    image: Image.Image | None
    digest: str
    generation: Generation
    key: str = ""
    further: tuple[Image.Image, ...] = ()
    encoded: tuple[EncodedImage, ...] = ()

    @property
    def seed(self) -> int:
        """Seed of the draws of a sampled answer."""
        return int(self.key[:15], 16)

    @property
    def images(self) -> list[Image.Image]:
        """All images of the prompt, in the order of the text."""
        return [] if self.image is None else [self.image, *self.further]

    @property
    def image_count(self) -> int:
        """Number of images."""
        return len(self.encoded) or len(self.images)

    def without_images(self) -> Prompt:
        """The prompt without the memory of its images."""
        return replace(self, image=None, further=(), encoded=())


class PromptWriter(Protocol):
    """Writes the prompts of a model: a text and images. An engine is a writer that also answers."""

    def text(self, question: str, has_image: bool) -> str:
        """The text that the model reads for a question."""
        return question

    def prepare(self, image: Image.Image) -> Image.Image:
        """The image that the model sees."""
        return image

    def digest(self, image: Image.Image) -> str:
        """Digest of an image of `prepare`."""
        return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()

    def look(self, picture: Picture) -> Seen:
        """An image as the engine needs it, in a thread of its own; by default opened, prepared and hashed.

        Raises:
            NapoBenchError: the image cannot be decoded.
        """
        image = self.prepare(picture.open())
        return Seen(self.digest(image), image)

    def interleaved(self, parts: Sequence[str | None]) -> str:
        """The text that the model reads for a question about several images; by default with PLACE for each image.

        Args:
            parts: Texts, and None at the place of each image.
        """
        return "".join(PLACE if part is None else part for part in parts)

    def require_pictures(self, count: int) -> None:
        """Check before weights are loaded that a prompt may have `count` images.

        Raises:
            NapoBenchError: the model takes fewer. By default a model takes one.
        """
        if count > 1:
            raise NapoBenchError(
                f"A question shows {count} images; {type(self).__name__} takes one image in a prompt.",
                "Leave the benchmark out of --suite, or name a model that takes several.",
            )

    def sent(self, prompt: Prompt) -> dict[str, Any]:
        """The prompt as the model gets it, in JSON, so that a reader can check it: by default its text."""
        return {"prompt": prompt.text}
