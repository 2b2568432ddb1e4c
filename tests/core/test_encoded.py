"""The bytes of an image that are sent: those of its file, if every decoder gives the pixels that we read."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from napo_bench.core.encoded import EncodedImage
from napo_bench.core.images import UnreadableImageError, open_rgb

NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8))
GREY = NOISE.convert("L")


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return exif


def noted(**notes: bytes) -> bytes:
    """A PNG with further chunks."""
    info = PngImagePlugin.PngInfo()
    for name, content in notes.items():
        info.add(name.encode(), content)
    return file_of(NOISE, "PNG", pnginfo=info)


def deep() -> bytes:
    """A PNG with 16 bits a level in RGB, which Pillow opens in 8 bits."""
    levels = np.random.default_rng(1).integers(0, 65536, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def late_head() -> bytes:
    """A PNG with a chunk before its head, so the bits of a level are in another place."""
    content, chunk = file_of(NOISE, "PNG"), b"abCd" + bytes(16)
    return content[:8] + struct.pack(">I", 16) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[8:]


def partial_gif() -> bytes:
    """A GIF whose one frame leaves a part of the image free."""
    content = bytearray(file_of(NOISE.convert("P"), "GIF"))
    content[6:10] = struct.pack("<HH", 60, 50)
    return bytes(content)


LOSSLESS = {
    "PNG": (file_of(NOISE, "PNG"), "image/png"),
    "grey PNG": (file_of(GREY, "PNG"), "image/png"),
    "black and white PNG": (file_of(GREY.convert("1"), "PNG"), "image/png"),
    "palette PNG": (file_of(NOISE.quantize(16), "PNG"), "image/png"),
    "PNG with orientation 1": (file_of(NOISE, "PNG", exif=turned(1)), "image/png"),
    "GIF": (file_of(NOISE.quantize(16), "GIF"), "image/gif"),
}
LOSSY = {
    "JPEG": (file_of(NOISE, "JPEG"), "image/jpeg"),
    "grey JPEG": (file_of(GREY, "JPEG"), "image/jpeg"),
    "progressive JPEG": (file_of(NOISE, "JPEG", progressive=True), "image/jpeg"),
    "JPEG with a camera's notes": (file_of(NOISE, "JPEG", exif=turned(1)), "image/jpeg"),
    "JPEG with damaged notes": (file_of(NOISE, "JPEG", exif=b"Exif\0\0no notes"), "image/jpeg"),
    "WebP": (file_of(NOISE, "WEBP"), "image/webp"),
    "lossless WebP": (file_of(NOISE, "WEBP", lossless=True), "image/webp"),
}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OTHER = {
    "BMP": file_of(NOISE, "BMP"),
    "TIFF": file_of(NOISE, "TIFF"),
    "PPM": file_of(NOISE, "PPM"),
    "JPEG turned by its notes": file_of(NOISE, "JPEG", exif=turned(6)),
    "PNG turned by its notes": file_of(NOISE, "PNG", exif=turned(3)),
    "WebP turned by its notes": file_of(NOISE, "WEBP", exif=turned(8)),
    "JPEG in CMYK": file_of(NOISE.convert("CMYK"), "JPEG"),
    "JPEG with a colour space": file_of(NOISE, "JPEG", icc_profile=SRGB),
    "PNG with a colour space": file_of(NOISE, "PNG", icc_profile=SRGB),
    "PNG with a gamma": noted(gAMA=struct.pack(">I", 100_000)),
    "PNG with the chromaticities of its colours": noted(cHRM=struct.pack(">8I", *range(30_000, 38_000, 1_000))),
    "PNG with an alpha channel": file_of(NOISE.convert("RGBA"), "PNG"),
    "PNG with a transparent colour": file_of(NOISE, "PNG", transparency=(1, 2, 3)),
    "palette PNG with a transparent entry": file_of(NOISE.quantize(16), "PNG", transparency=3),
    "GIF with a transparent entry": file_of(NOISE.quantize(16), "GIF", transparency=3),
    "WebP with an alpha channel": file_of(Image.new("RGBA", (9, 9), (1, 2, 3, 99)), "WEBP"),
    "GIF of two frames": file_of(NOISE, "GIF", save_all=True, append_images=[GREY]),
    "PNG of two frames": file_of(NOISE, "PNG", save_all=True, append_images=[GREY.convert("RGB")]),
    "WebP of two frames": file_of(NOISE, "WEBP", save_all=True, append_images=[GREY.convert("RGB")]),
    "JPEG of two images": file_of(NOISE, "MPO", save_all=True, append_images=[GREY.convert("RGB")]),
    "GIF with a free part": partial_gif(),
    "PNG of 16 bits": deep(),
    "PNG whose head comes late": late_head(),
    "PNG with notes that cannot be read": file_of(NOISE, "PNG", exif=b"no notes"),
    "grey PNG of 16 bits": file_of(Image.fromarray(np.full((3, 3), 40_000, np.uint16)), "PNG"),
}


def sent(image: EncodedImage) -> tuple[str, bytes]:
    head, _, body = image.url.partition(";base64,")
    return head, base64.b64decode(body, validate=True)


def pixels_digest(content: bytes) -> str:
    """The digest that the journals of earlier versions have."""
    image = open_rgb(content)
    return hashlib.sha256(repr(("RGB", image.size)).encode() + image.tobytes()).hexdigest()


@pytest.fixture(params=[lambda content, path: content, lambda content, path: path], ids=["bytes", "file"])
def source_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], bytes | Path]:
    def make(content: bytes) -> bytes | Path:
        (tmp_path / "image").write_bytes(content)
        source: bytes | Path = request.param(content, tmp_path / "image")
        return source

    return make


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_the_bytes_of_a_plain_file_are_sent(name: str, source_of: Callable[[bytes], bytes | Path]) -> None:
    content, media_type = (LOSSLESS | LOSSY)[name]
    image = EncodedImage.read(source_of(content))
    assert sent(image) == (f"data:{media_type}", content)
    assert image.memory == len(content)


@pytest.mark.parametrize("name", OTHER)
def test_any_other_image_is_sent_as_the_png_of_its_pixels(
    name: str, source_of: Callable[[bytes], bytes | Path]
) -> None:
    image = EncodedImage.read(source_of(OTHER[name]))
    head, content = sent(image)
    assert head == "data:image/png" and content != OTHER[name]
    assert image.memory == len(open_rgb(OTHER[name]).tobytes())
    with Image.open(io.BytesIO(content)) as png:
        assert (png.format, png.mode, dict(png.getexif()), png.info) == ("PNG", "RGB", {}, {})
        assert png.tobytes() == open_rgb(OTHER[name]).tobytes()


@pytest.mark.parametrize("name", [*LOSSLESS, *OTHER])
def test_an_image_with_certain_pixels_is_known_by_them(name: str) -> None:
    content = OTHER[name] if name in OTHER else LOSSLESS[name][0]
    image = EncodedImage.read(content)
    assert image.digest == pixels_digest(content) == EncodedImage.of(open_rgb(content)).digest
    assert image.name.endswith(f"(SHA-256 of the pixels: {image.digest})")


@pytest.mark.parametrize("name", LOSSY)
def test_an_image_whose_pixels_depend_on_the_decoder_is_known_by_its_file(name: str) -> None:
    content, _ = LOSSY[name]
    image = EncodedImage.read(content)
    assert image.digest == hashlib.sha256(content).hexdigest()
    assert image.name.endswith(f"(SHA-256 of the file: {image.digest})")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_half_a_file_is_found_before_it_is_sent(kind: str) -> None:
    content = file_of(NOISE, kind)
    with pytest.raises(UnreadableImageError):
        EncodedImage.read(content[: len(content) // 2])
