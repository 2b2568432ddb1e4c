"""Thumbnails of the images that samples name, small enough for one file."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import msgspec
from PIL import Image

from napo_bench.benchmarks.vlind.instance import Picture
from napo_bench.core.images import UnreadableImageError, eight_bits

Reference = tuple[str, str]
"""Benchmark, and the image's name in its samples."""

_BUDGET = 24_000_000  # bytes of all thumbnails in the page
_SMALLEST_SCALE = 0.2
_BYTES_A_PIXEL = 0.2  # of a photograph as JPEG of _QUALITY, a first guess
_QUALITY = 78
_THREADS = 4


class _Question(msgspec.Struct):
    image_id: int | str
    image: str


def thumbnails(references: Iterable[Reference], data_dir: Path) -> dict[Reference, str]:
    """`data:` addresses of the images that exist and can be decoded.

    The more images, the smaller each thumbnail. An image whose file is small enough is used unchanged. All thumbnails
    together fit into one page.

    Args:
        references: References to the images.
        data_dir: Folder with the benchmarks' data.
    """
    wanted = list(dict.fromkeys(references))
    embedded = _embedded(data_dir) if any(benchmark == "object_halbench" for benchmark, _ in wanted) else {}

    def shrink(reference: Reference, scale: float) -> str | None:
        try:
            return _address(_read(reference, data_dir, embedded), round(scale * _edge(reference)))
        except (OSError, SyntaxError, Image.DecompressionBombError, UnreadableImageError):
            return None

    # Base64 makes a thumbnail a third longer than its bytes, and 4:3 makes it a quarter smaller than a square.
    expected = _BYTES_A_PIXEL * sum(_edge(reference) ** 2 for reference in wanted)
    scale = min(1.0, math.sqrt(_BUDGET / max(expected, 1)))
    with ThreadPoolExecutor(_THREADS) as pool:
        while True:
            addresses = pool.map(partial(shrink, scale=scale), wanted)
            found = {reference: address for reference, address in zip(wanted, addresses, strict=True) if address}
            size = sum(map(len, set(found.values())))
            if size <= _BUDGET or scale < _SMALLEST_SCALE:
                return found
            scale *= 0.95 * math.sqrt(_BUDGET / size)


def _edge(reference: Reference) -> int:
    """Longer edge of a thumbnail without a limit of the page's size; VLind-Bench shows a dozen small ones side by
    side.
    """
    return 160 if reference[0] == "vlind" else 320


def _embedded(data_dir: Path) -> Mapping[str, str]:
    """Image id -> base64, of Object HalBench's questions."""
    path = data_dir / "object_halbench" / "questions.jsonl"
    if not path.is_file():
        return {}
    decoder = msgspec.json.Decoder(_Question)
    with path.open("rb") as stream:
        rows = [decoder.decode(line) for line in stream if line.strip()]
    return {str(row.image_id): row.image for row in rows}


def _read(reference: Reference, data_dir: Path, embedded: Mapping[str, str]) -> bytes:
    benchmark, name = reference
    if benchmark == "object_halbench":
        return base64.b64decode(embedded.get(name, ""))
    file, _, row = name.partition("#")
    path = (data_dir / ("amber/images" if benchmark == "amber" else "") / file).resolve()
    if not path.is_relative_to(data_dir.resolve()) or not path.is_file():
        raise FileNotFoundError(path)
    return Picture(path, int(row) if row else None).read()


def _address(encoded: bytes, edge: int) -> str:
    with Image.open(io.BytesIO(encoded)) as image:
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
