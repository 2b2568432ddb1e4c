"""Cells of the column `image`: {bytes, path}, bytes, or a path."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from PIL import Image

from napo_bench.core import digests, files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import UnreadableImageError, open_rgb


def image_path(cell: Any) -> str | None:
    """The path of an image cell that names its image by path: {bytes: None, path}, or the path alone."""
    if isinstance(cell, dict):
        return cell.get("path") if cell.get("bytes") is None else None
    return cell if isinstance(cell, str) else None


def named_image(folder: Path, path: str) -> bytes | Path:
    """The file of an image that a row names by a path from `folder`; b"" if the path leads out of the folder."""
    try:
        return files.inside(folder, path)
    except NapoBenchError:
        return b""


def digest_of(encoded: bytes | Path) -> str:
    """SHA-256 of an encoded image, in hex; "" if there is no image."""
    if isinstance(encoded, Path):
        return digests.sha256([encoded])[0] if encoded.is_file() else ""
    return hashlib.sha256(encoded).hexdigest() if encoded else ""


def decoded(encoded: bytes | Path) -> Image.Image | None:
    """The image of a file, or of a file's bytes; None if the image cannot be decoded."""
    try:
        return open_rgb(encoded)
    except UnreadableImageError:
        return None
