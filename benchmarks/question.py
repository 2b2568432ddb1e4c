"""What a benchmark puts to a model: a prompt, a picture, and the response row that an answer becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import UnreadableImageError, open_rgb


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes:
        prompt: What is asked.
        file: The picture, or the file that holds it.
        response_row: An answer -> its row in the benchmark's official response format.
        picture: Where the picture is not a file of its own: reads it, encoded.
        place: Where in the file it is, for messages: ", line 3".
    """

    prompt: str
    file: Path
    response_row: Callable[[str], dict[str, Any]]
    picture: Callable[[], bytes] | None = None
    place: str = ""

    def open_picture(self) -> Image.Image:
        """The picture in RGB. Raises NapoBenchError where it does not decode."""
        encoded = self.picture() if self.picture else self.file
        try:
            return open_rgb(encoded)
        except UnreadableImageError as error:
            raise NapoBenchError(
                f"{self.file}{self.place}: the picture does not decode: {error}.", "Fetch or copy the file again."
            ) from None
