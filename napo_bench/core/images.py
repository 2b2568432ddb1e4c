"""Open an image in 8-bit RGB. Evaluation, training rows, biased negatives and the explorer all use this module.

A leaf: `benchmarks` and `trainers` use it too, and it imports only errors and limits of `napo_bench.core`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.limits import IMAGE_SIDE

_DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""The formats that are read. Pillow knows more, and hands one of them (EPS) to another program."""
PLACE = "\ufffc"
"""Mark of an image's place in a question about several images: Unicode's object replacement character."""


class UnreadableImageError(NapoBenchError):
    """The image cannot be decoded, or the range of its grey levels is unknown. The text is the reason."""


def open_rgb(source: bytes | Path) -> Image.Image:
    """The image of a file, or of a file's bytes, in RGB.

    Raises:
        UnreadableImageError: see `opened`; or the grey levels have an unknown range.
    """
    with opened(source) as image:
        return to_rgb(image)


@contextmanager
def opened(source: bytes | Path) -> Iterator[Image.Image]:
    """The image of a file, or of a file's bytes, as Pillow opens it. In this block every failure is one message.

    Raises:
        UnreadableImageError: there is no such file, its format is none of `FORMATS`, it has too many pixels, or it
            cannot be decoded.
    """
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # lmms-eval switches this on for the whole process
    longest = IMAGE_SIDE.value
    Image.MAX_IMAGE_PIXELS = longest**2
    try:
        if isinstance(source, Path) and not source.is_file():  # a pipe would be waited for
            raise UnreadableImageError("there is no such file")
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(stream, formats=FORMATS) as image:
            if max(image.size) > longest:  # an image is padded to a square
                width, height = image.size
                raise UnreadableImageError(
                    f"it has {width:,} x {height:,} pixels; a side of {longest:,} is the longest "
                    f"({IMAGE_SIDE.variable})"
                )
            yield image
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        # Pillow names the stream by its address in memory. Only the words before the address are useful.
        reason = str(error).partition(" <")[0] or type(error).__name__
        raise UnreadableImageError(reason) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB; see `eight_bits`."""
    return eight_bits(image).convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16-bit or floating-point grey levels in 8 bits; every other image unchanged.

    Pillow's own conversion cuts such levels at 255: a 16-bit image becomes white, and a floating-point image black.

    Raises:
        UnreadableImageError: the level of white is unknown.
    """
    if image.mode not in _DEEP_MODES:
        return image
    levels = np.asarray(image).astype(np.float32)
    white = _white(image, levels)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = white - levels
    return Image.fromarray(np.rint(levels / white * 255).astype(np.uint8))


def _white(image: Image.Image, levels: NDArray[np.float32]) -> float:
    """The level of white."""
    low, high = float(levels.min()), float(levels.max())
    if image.mode == "F":
        white, known = 1.0, "from 0 to 1"
    elif image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise UnreadableImageError(f"32-bit grey levels, here from {low:g} to {high:g}, have no known range")
    else:
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        white, known = float(2**bits - 1), f"of {bits} bits"
    if not 0 <= low <= high <= white:
        raise UnreadableImageError(f"its grey levels are from {low:g} to {high:g}; levels {known} are expected")
    return white
