"""Images of every mode become 8-bit RGB: deep grey levels by their range, every other mode as Pillow converts it."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napo_bench.benchmarks.question import Question
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import UnreadableImageError, eight_bits, open_rgb, to_rgb
from napo_bench.report.pictures import thumbnails
from napo_bench.trainers.stored.cells import decoded, named_image

RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey(levels: Any, kind: Any = np.uint16) -> Image.Image:
    return Image.fromarray(np.asarray(levels).astype(kind))


DEEP = {
    "16-bit PNG": encoded(grey(RAMP)),
    "16-bit TIFF": encoded(grey(RAMP), "TIFF"),
    "16-bit TIFF, big-endian": encoded(grey(RAMP, ">u2"), "TIFF"),
    "16-bit PGM": encoded(grey(RAMP, np.int32), "PPM"),
    "floating-point TIFF": encoded(grey(RAMP / 65535, np.float32), "TIFF"),
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_grey_levels_are_scaled_by_their_range(name: str) -> None:
    with Image.open(io.BytesIO(DEEP[name])) as opened:
        assert opened.mode in ("I", "I;16", "I;16B", "F"), "the test needs a deep mode"
    image = open_rgb(DEEP[name])
    assert (image.mode, image.size) == ("RGB", (64, 48))
    np.testing.assert_allclose(np.asarray(image)[..., 1], RAMP / 257, atol=0.51)


def test_a_tiff_whose_zero_is_white_is_turned_round() -> None:
    image = grey(RAMP)
    image.tag_v2 = {262: 0, 258: (16,)}  # type: ignore[attr-defined]  # as Pillow's TIFF reader leaves it
    assert np.asarray(eight_bits(image))[[0, -1], [0, -1]].tolist() == [255, 0]


def test_levels_of_12_bits_have_4095_as_white() -> None:
    image = grey(RAMP / 65535 * 4095)
    image.tag_v2 = {258: (12,)}  # type: ignore[attr-defined]
    assert abs(np.asarray(eight_bits(image)).mean() - 127.5) < 0.5


@pytest.mark.parametrize(
    ("image", "kind", "reason"),
    [
        (grey(RAMP / 200, np.float32), "TIFF", "from 0 to 327.675; levels from 0 to 1 are expected"),
        (grey(RAMP / 65535 - 0.5, np.float32), "TIFF", "from -0.5 to 0.5"),
        (grey(np.where(RAMP > 9, np.nan, 0.5), np.float32), "TIFF", "from nan to nan"),
        (grey(RAMP, np.int32), "TIFF", "32-bit grey levels, here from 0 to 65535, have no known range"),
    ],
)
def test_levels_of_an_unknown_range_are_refused(image: Image.Image, kind: str, reason: str) -> None:
    with pytest.raises(UnreadableImageError, match=reason):
        open_rgb(encoded(image, kind))
    assert decoded(encoded(image, kind)) is None


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_other_mode_is_converted_as_pillow_does(mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(noise[..., 0]))
    assert to_rgb(image).tobytes() == image.convert("RGB").tobytes()


def test_a_turned_photograph_stays_as_it_is_stored() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    photograph = encoded(grey(RAMP / 257, np.uint8), "JPEG", exif=turned)
    assert open_rgb(photograph).size == (64, 48)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", encoded(Image.new("RGB", (64, 48)), "JPEG")[:300]])
def test_what_is_no_image_is_refused_without_an_address_in_memory(content: bytes) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        open_rgb(content)
    assert caught.value.message and "BytesIO" not in caught.value.message


def test_an_image_with_more_pixels_than_memory_is_refused() -> None:
    with pytest.raises(UnreadableImageError, match="decompression bomb"):
        open_rgb(encoded(Image.new("1", (20000, 20000))))


def test_questions_training_rows_and_the_explorer_see_the_same_grey_levels(tmp_path: Path) -> None:
    folder = tmp_path / "amber/images"
    folder.mkdir(parents=True)
    (folder / "ramp.png").write_bytes(encoded(grey(RAMP)))
    (folder / "float.tiff").write_bytes(DEEP["floating-point TIFF"])
    for name in ("ramp.png", "float.tiff"):
        asked = Question("Why?", folder / name, lambda text: {}).open_picture()
        trained = decoded(named_image(folder, name))
        assert trained is not None and trained.tobytes() == asked.tobytes()
        (address,) = thumbnails([("amber", name)], tmp_path).values()
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as shown:
            assert abs(np.asarray(to_rgb(shown)).mean() - 127.5) < 2


def test_a_question_whose_image_has_no_known_range_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "depth.tiff"
    path.write_bytes(encoded(grey(RAMP, np.float32), "TIFF"))
    with pytest.raises(NapoBenchError, match=r"depth.tiff: the image cannot be decoded: its grey levels are from 0"):
        Question("Why?", path, lambda text: {}).open_picture()


def test_a_file_that_another_program_would_read_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UnreadableImageError, match="cannot identify"):
        open_rgb(tmp_path / "x.png")


@pytest.mark.parametrize("size", [(65_500, 1), (1, 65_500)])
def test_an_image_whose_square_is_larger_than_memory_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UnreadableImageError, match=r"65,500.* a side of 13,377 is the longest"):
        open_rgb(encoded(Image.new("1", size)))


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(UnreadableImageError, match="there is no such file"):
        open_rgb(tmp_path / "x.png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_damaged_image_is_an_image_or_one_message(kind: str) -> None:
    rng = np.random.default_rng(0)
    whole = encoded(Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)), kind)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 120), rng.integers(1, 5)):
            damaged[place] = rng.integers(0, 256)
        try:
            assert open_rgb(bytes(damaged)).mode == "RGB"
        except UnreadableImageError as error:
            assert error.message


def test_an_exception_that_pillow_never_named_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(self: object, *arguments: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'x'")

    content = encoded(Image.new("RGB", (8, 8)))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", stumble)
    with pytest.raises(UnreadableImageError, match="NoneType"):
        open_rgb(content)
