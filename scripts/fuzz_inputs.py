"""Damage images, JSON files and replies at random, and check that each damage ends in one message, or does no harm.

    python scripts/fuzz_inputs.py --seconds 600

Each case changes, cuts, repeats or removes bytes of a sound input, and reads the result as napo-bench does. Every
exception except NapoBenchError is a fault, and so is a case that takes more than 10 s.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from napo_bench.benchmarks.amber.score import yes_or_no
from napo_bench.benchmarks.mmhal.score import parse_rating
from napo_bench.benchmarks.object_halbench.extractor import parse_objects
from napo_bench.benchmarks.vlind.score import parse_answer
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.images import open_rgb
from napo_bench.core.thoughts import split_thoughts

SLOW_SECONDS = 10.0
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_ODD = (b"\0", b"\xff", b"\xed\xa0\x80", b"[", b"{", b'"', b"\\u", b"9" * 400, b"-", b"1e999", b"<think>", b"Rating: 7")
REPLIES = (
    "The answer names a dog. Rating: 4, rating of hallucination.",
    '["dog", "cat", "red car"]',
    "<think>Is it true?</think>True.",
    "Yes, there is a dog in the image.",
)
DOCUMENT = [{"id": 1, "image": "a.jpg", "query": "Is it?", "counts": {"answers": 1.5}, "truth": ["dog", None, True]}]

Read = Callable[[bytes], object]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A copy with one to eight damages."""
    found = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(found) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(found):
            found[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del found[place : place + rng.randint(1, 64)]
        elif kind == 2:
            found[place:place] = rng.choice(_ODD) * rng.choice((1, 1, 1, 3000))
        elif kind == 3:
            found[place:place] = found[place : place + rng.randint(1, 200)]
        else:
            found[place : place + 4] = rng.randbytes(4)
    return bytes(found)


def images() -> Iterator[bytes]:
    """A small image in each format and in several modes."""
    picture = Image.effect_noise((24, 16), 60)
    for form in FORMATS:
        for mode in ("L", "RGB", "P"):
            stream = io.BytesIO()
            try:
                picture.convert(mode).save(stream, form)
            except (OSError, ValueError):
                continue
            yield stream.getvalue()


def read_document(folder: Path, content: bytes) -> None:
    """Read bytes as a JSON file and as a file of JSON lines."""
    path = folder / "x.json"
    path.write_bytes(content)
    for read in (files.read_json, files.read_jsonl):
        try:
            read(path)
        except NapoBenchError:
            continue


def read_reply(content: bytes) -> None:
    """Read bytes as the reply of a model, a judge and an extractor."""
    text = content.decode(errors="replace")
    split_thoughts(text)
    for parse in (parse_rating, parse_objects, parse_answer, yes_or_no):
        parse(text)


def faults(seconds: float, seed: int) -> tuple[int, list[str]]:
    """Number of cases within a time, and a text about each fault."""
    rng = random.Random(seed)
    found: list[str] = []
    tried = 0
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kinds: list[tuple[str, list[bytes], Read]] = [
            ("image", list(images()), open_rgb),
            ("JSON", [json.dumps(DOCUMENT).encode()], lambda content: read_document(Path(name), content)),
            ("reply", [reply.encode() for reply in REPLIES], read_reply),
        ]
        while time.monotonic() < ends:
            kind, sound, read = rng.choice(kinds)
            content = damaged(rng.choice(sound), rng)
            tried += 1
            began = time.monotonic()
            try:
                read(content)
            except NapoBenchError:
                pass
            except Exception:
                found.append(f"{kind} {content[:200]!r}\n{traceback.format_exc(limit=-3)}")
            if time.monotonic() - began > SLOW_SECONDS:
                found.append(f"{kind} {content[:200]!r} took {time.monotonic() - began:.0f} s")
    return tried, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tried, found = faults(options.seconds, options.seed)
    print("\n".join(found))
    print(f"{tried} cases, {len(found)} faults")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
