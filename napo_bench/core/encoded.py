"""An image as it is sent to a server: the bytes of its file where these are exact, else the PNG of its pixels.

A leaf: `benchmarks` uses it too, and it imports only `napo_bench.core.images`.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from PIL import ExifTags, Image, ImageFile

from napo_bench.core.images import UnreadableImageError, open_rgb, opened

_PNG = "image/png"
_LOSSLESS = {"PNG": _PNG, "GIF": "image/gif"}
_LOSSY = {"JPEG": "image/jpeg", "WEBP": "image/webp"}
_MODES = ("RGB", "L", "P", "1")
_COLOUR_SPACE = ("icc_profile", "gamma", "chromaticity")
"""Notes in a file that some decoders apply to the pixels, and that `open_rgb` does not."""
_PNG_DEPTH = 24  # place of the bits of a level, in the header of a PNG


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """An image as it is sent.

    Attributes:
        media_type: Media type of the bytes.
        digest: SHA-256 in hex. For JPEG and WebP, whose pixels depend on the decoder, the digest is of the file. For
            any other image the digest is of the pixels in RGB.
        source: Bytes of the file, or the pixels in RGB.
    """

    media_type: str
    digest: str
    source: bytes | Image.Image

    @classmethod
    def of(cls, image: Image.Image) -> Self:
        """An image in RGB that is in no file."""
        return cls(_PNG, _pixels_digest(image), image)

    @classmethod
    def read(cls, source: bytes | Path) -> Self:
        """The image of a file, or of a file's bytes.

        The bytes of the file are sent if a decoder gives the pixels of `open_rgb`, up to the rounding of JPEG and WebP:
        one frame in RGB, grey or palette, of at most 8 bits, without transparency, without another orientation and
        without a colour space.

        Raises:
            UnreadableImageError: see `images.opened`.
        """
        image, plain = open_rgb(source), _plain_file(source)
        if plain is None:
            return cls.of(image)
        media_type, content = plain
        is_lossy = media_type in _LOSSY.values()
        return cls(media_type, hashlib.sha256(content).hexdigest() if is_lossy else _pixels_digest(image), content)

    @property
    def memory(self) -> int:
        """Memory of the image in bytes."""
        if isinstance(self.source, Image.Image):
            return self.source.width * self.source.height * len(self.source.getbands())
        return len(self.source)

    @property
    def name(self) -> str:
        """The image in words: its media type, and its digest."""
        of = "file" if self.media_type in _LOSSY.values() else "pixels"
        return f"data:{self.media_type};base64,... (SHA-256 of the {of}: {self.digest})"

    @property
    def url(self) -> str:
        """The image as a data URL."""
        return f"data:{self.media_type};base64,{base64.b64encode(self._content).decode()}"

    @cached_property
    def _content(self) -> bytes:
        if not isinstance(self.source, Image.Image):
            return self.source
        bare, stream = self.source.copy(), io.BytesIO()
        bare.info = {}  # Pillow writes a colour space and a transparent colour of the file again
        bare.save(stream, format="PNG")
        return stream.getvalue()


def _plain_file(source: bytes | Path) -> tuple[str, bytes] | None:
    """Media type and bytes of a file whose notes change no pixel, whichever decoder reads them; None for any other
    file, and for notes that cannot be read.
    """
    try:
        with opened(source) as image:
            media_type = (_LOSSLESS | _LOSSY).get(image.format or "")
            if media_type is None or image.mode not in _MODES or image.has_transparency_data:
                return None
            is_whole = image.format != "GIF" or _extents(image) == [(0, 0, *image.size)]
            is_alone = getattr(image, "n_frames", 1) == 1
            is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            if not (is_whole and is_alone and is_upright) or any(name in image.info for name in _COLOUR_SPACE):
                return None
            content = source if isinstance(source, bytes) else source.read_bytes()
            is_deep = image.format == "PNG" and not (content[12:16] == b"IHDR" and content[_PNG_DEPTH] <= 8)
            return None if is_deep else (media_type, content)
    except UnreadableImageError:
        return None


def _extents(image: Image.Image) -> list[Sequence[int] | None]:
    """The part of the image that each block of its file fills."""
    return [block[1] for block in image.tile] if isinstance(image, ImageFile.ImageFile) else []


def _pixels_digest(image: Image.Image) -> str:
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()
