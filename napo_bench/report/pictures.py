"""Thumbnails of the images that samples name, small enough for one file."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from napo_bench.benchmarks import benchmark_named
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import eight_bits, opened

Reference = tuple[str, str]
"""Benchmark, and the image's name in its samples."""

_BUDGET = 24_000_000  # bytes of all thumbnails in the page
_SMALLEST_SCALE = 0.2
_BYTES_A_PIXEL = 0.2  # of a photograph as JPEG of _QUALITY, a first guess
_QUALITY = 78
_THREADS = 4


def thumbnails(references: Collection[Reference], data_dir: Path, *, follow: bool = True) -> dict[Reference, str]:
    """`data:` addresses of the images that exist and can be decoded.

    The more images, the smaller each thumbnail. An image whose file is small enough is used unchanged. All thumbnails
    together fit into one page.

    Args:
        references: References to the images.
        data_dir: Folder with the benchmarks' data.
        follow: Whether a benchmark's folder in `data_dir` may be a link to another place.
    """
    named = {name: benchmark_named(name) for name in dict.fromkeys(name for name, _ in references)}
    usable = [name for name in named if follow or _is_inside(data_dir, name)]
    wanted = [reference for reference in dict.fromkeys(references) if reference[0] in usable]
    data = {name: benchmark.open(data_dir / name) for name, benchmark in named.items()}
    edges = [named[name].thumbnail for name, _ in wanted]

    def shrink(reference: Reference, edge: int, scale: float) -> str | None:
        name, image = reference
        try:
            return _address(data[name].picture(image), round(scale * edge))
        except (OSError, ValueError, LookupError, NapoBenchError):
            return None

    # Base64 makes a thumbnail a third longer than its bytes, and 4:3 makes it a quarter smaller than a square.
    expected = _BYTES_A_PIXEL * sum(edge**2 for edge in edges)
    scale = min(1.0, math.sqrt(_BUDGET / max(expected, 1)))
    with ThreadPoolExecutor(_THREADS) as pool:
        while True:
            addresses = pool.map(partial(shrink, scale=scale), wanted, edges)
            found = {reference: address for reference, address in zip(wanted, addresses, strict=True) if address}
            size = sum(map(len, set(found.values())))
            if size <= _BUDGET or scale < _SMALLEST_SCALE:
                return found
            scale *= 0.95 * math.sqrt(_BUDGET / size)


def _is_inside(folder: Path, name: str) -> bool:
    try:
        files.inside(folder, name)
    except NapoBenchError:
        return False
    return True


def _address(encoded: bytes, edge: int) -> str:
    with opened(encoded) as image:
        kind = Image.MIME.get(image.format or "", "")
        small = len(encoded) <= edge * edge * _BYTES_A_PIXEL
        if not small or max(image.size) > 2 * edge or kind not in ("image/png", "image/jpeg", "image/webp"):
            scale = edge / max(image.size)
            image.draft("RGB", (round(image.width * scale), round(image.height * scale)))
            thumbnail = eight_bits(image)
            thumbnail.thumbnail((edge, edge), reducing_gap=2.0)
            stream = io.BytesIO()
            thumbnail.convert("RGB").save(stream, format="JPEG", quality=_QUALITY)
            encoded, kind = stream.getvalue(), "image/jpeg"
        else:
            image.load()
    return f"data:{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
