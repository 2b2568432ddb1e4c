"""A hundred image files of odd sizes and kinds, the same pixels under every version of every package."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

SIZES = (
    (1, 2000),
    (2000, 1),
    (7, 5),
    (2, 9),
    (336, 336),
    (335, 337),
    (640, 427),
    (427, 640),
    (500, 375),
    (97, 800),
)
KINDS = ("RGB", "L", "1", "P", "P transparent", "LA", "RGBA", "CMYK", "EXIF", "I;16")
_ORIENTATION, _TURNED = 0x0112, 6


def odd_pictures() -> dict[str, bytes]:
    """Kind and size, such as "CMYK 640x427" -> the bytes of a lossless image file of noise."""
    return {f"{kind} {width}x{height}": _file(kind, (width, height)) for kind in KINDS for width, height in SIZES}


def is_narrow(name: str) -> bool:
    """Whether an image is so narrow that its shorter side, made 336 pixels, would make the image huge."""
    width, height = map(int, name.rpartition(" ")[2].split("x"))
    return max(width, height) > 10 * min(width, height)


def levels_hash(pixels: ArrayLike, mean: Sequence[float], std: Sequence[float]) -> str:
    """Hash of the levels from 0 to 255 of normalised pixels, `[3, H, W]`."""
    of_mean, of_std = (np.array(values, dtype=np.float64)[:, None, None] for values in (mean, std))
    levels = (np.asarray(pixels, dtype=np.float64) * of_std + of_mean) * 255
    assert np.abs(levels - np.rint(levels)).max() < 0.01
    return hashlib.sha256(np.rint(levels).astype(np.uint8).tobytes()).hexdigest()[:16]


def _file(kind: str, size: tuple[int, int]) -> bytes:
    mode = {"P transparent": "P", "EXIF": "RGB"}.get(kind, kind)
    length = len(Image.new(mode, size).tobytes())
    image = Image.frombytes(mode, size, _noise(f"{kind} {size}", length))
    options = {}
    if mode == "P":
        image.putpalette(_noise("palette", 3 * 256))
    if kind == "P transparent":
        options["transparency"] = _noise("transparency", 256)
    if kind == "EXIF":
        options["exif"] = Image.Exif()
        options["exif"][_ORIENTATION] = _TURNED
    stream = io.BytesIO()
    image.save(stream, "TIFF" if mode == "CMYK" else "PNG", **options)
    return stream.getvalue()


def _noise(seed: str, length: int) -> bytes:
    return hashlib.shake_256(seed.encode()).digest(length)
