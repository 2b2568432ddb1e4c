"""Damage what comes from outside at random, and check that each damage ends in one message, or does no harm.

    python scripts/fuzz.py images JSON replies --seconds 600
    python scripts/fuzz.py checkpoints --seconds 600

A case changes, cuts, repeats or removes bytes of an image, a JSON file or a reply, and reads the result as napo-bench
does. Or a case changes one value in one JSON file of a copy of the micro world's base: to a value of another type, to a
huge or negative number, to an odd text; or removes the value. Then the copy is opened as `eval` and `train` open a
checkpoint before they allocate weights. Every exception except NapoBenchError is a fault, and so is a case that takes
more than 10 s or 8 GiB.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from napo_bench.benchmarks.amber.score import yes_or_no
from napo_bench.benchmarks.mmhal.score import parse_rating
from napo_bench.benchmarks.object_halbench.extractor import parse_objects
from napo_bench.benchmarks.vlind.score import parse_answer
from napo_bench.core import files
from napo_bench.core.encoded import EncodedImage
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import split_thoughts
from napo_bench.micro.base import base_checkpoint
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation

KINDS = ("images", "JSON", "replies", "checkpoints")
SLOW_SECONDS = 10.0
MOST_BYTES = 8 * 2**30
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_ODD = (b"\0", b"\xff", b"\xed\xa0\x80", b"[", b"{", b'"', b"\\u", b"9" * 400, b"-", b"1e999", b"<think>", b"Rating: 7")
REPLIES = (
    "The answer names a dog. Rating: 4, rating of hallucination.",
    '["dog", "cat", "red car"]',
    "<think>Is it true?</think>True.",
    "Yes, there is a dog in the image.",
)
DOCUMENT = [{"id": 1, "image": "a.jpg", "query": "Is it?", "counts": {"answers": 1.5}, "truth": ["dog", None, True]}]

REMOVED = object()
VALUES: tuple[Any, ...] = (
    REMOVED, None, True, 0, -1, 1.5, 10**7, 10**30, "", "x", "\0", "../x", "user/kernel", [], [None], ["x"], [-1],
    {}, {"x": 1}, [[]], float("nan"),
)  # fmt: skip

Attempt = tuple[str, Callable[[], object]]
"""Text about a case, and the function that tries it."""


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


Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Case:
    """One damage.

    Attributes:
        file: Name of the damaged file.
        place: Keys and positions of the value in the file.
        value: New value.
    """

    file: str
    place: Place
    value: Any

    def __str__(self) -> str:
        value = "removed" if self.value is REMOVED else json.dumps(self.value)
        return f"{self.file}: {'.'.join(map(str, self.place))} = {value}"


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """The place of every value in a JSON value. Of a long list, only the first two."""
    if place:
        yield place
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())[:200]
    elif isinstance(value, list):
        items = list(enumerate(value))[:2]
    for key, item in items:
        yield from places(item, (*place, key))


def damaged_value(content: Any, case: Case) -> Any:
    """A copy of a JSON value with the damage."""
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in case.place[:-1]:
        inner = inner[key]
    if case.value is REMOVED:
        del inner[case.place[-1]]
    else:
        inner[case.place[-1]] = case.value
    return copy


def cases(folder: Path, rng: random.Random) -> Iterator[Case]:
    """Random damages, without end. Every file of a checkpoint is drawn equally often."""
    files = {path.name: list(places(json.loads(path.read_text()))) for path in sorted(folder.glob("*.json"))}
    while True:
        file = rng.choice(list(files))
        yield Case(file, rng.choice(files[file]), rng.choice(VALUES))


def open_checkpoint(folder: Path) -> None:
    """Open a checkpoint as far as before its weights are allocated."""
    config, processor = Checkpoint.open(str(folder)).open_parts()
    conversation = Conversation.of(processor, config)
    prompt = conversation.prompt("Is there a dog?", has_image=True)
    conversation.encode([prompt], [Image.new("RGB", (48, 32), "red")])


def read_damaged(folder: Path, case: Case) -> None:
    """Open a copy of a checkpoint with a damage, and repair the copy."""
    path = folder / case.file
    whole = path.read_text(encoding="utf-8")
    path.write_text(json.dumps(damaged_value(json.loads(whole), case)), encoding="utf-8")
    try:
        open_checkpoint(folder)
    finally:
        path.write_text(whole, encoding="utf-8")


def of_bytes(sound: Sequence[bytes], read: Callable[[bytes], object], rng: random.Random) -> Iterator[Attempt]:
    """Damages of bytes, without end."""
    while True:
        content = damaged(rng.choice(sound), rng)
        yield f"{content[:200]!r}", partial(read, content)


def attempts(kind: str, folder: Path, rng: random.Random) -> Iterator[Attempt]:
    """The cases of a kind, without end.

    Args:
        kind: One of `KINDS`.
        folder: Folder for files.
        rng: Generator.
    """
    if kind == "images":
        return of_bytes(list(images()), EncodedImage.read, rng)
    if kind == "JSON":
        return of_bytes([json.dumps(DOCUMENT).encode()], partial(read_document, folder), rng)
    if kind == "replies":
        return of_bytes([reply.encode() for reply in REPLIES], read_reply, rng)
    copy = Path(shutil.copytree(base_checkpoint(), folder / "checkpoint"))
    open_checkpoint(copy)  # imports what the first case would be slow for
    return ((str(case), partial(read_damaged, copy, case)) for case in cases(copy, rng))


def faults(kinds: Sequence[str], seconds: float, seed: int) -> tuple[int, list[str]]:
    """Number of cases within a time, and a text about each fault. No case gets more than `MOST_BYTES`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, hard))
    try:
        return _faults(kinds, seconds, seed)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _faults(kinds: Sequence[str], seconds: float, seed: int) -> tuple[int, list[str]]:
    rng = random.Random(seed)
    found: list[str] = []
    tried = 0
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_kinds = [(kind, attempts(kind, Path(name), rng)) for kind in kinds]
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            kind, following = rng.choice(open_kinds)
            about, attempt = next(following)
            tried += 1
            began = time.monotonic()
            try:
                attempt()
            except NapoBenchError:
                pass
            except Exception:  # every other exception is what this script looks for
                found.append(f"{kind} {about}\n{traceback.format_exc(limit=-3)}")
            if time.monotonic() - began > SLOW_SECONDS:
                found.append(f"{kind} {about} took {time.monotonic() - began:.0f} s")
    return tried, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tried, found = faults(options.kinds or KINDS, options.seconds, options.seed)
    print("\n".join(found))
    print(f"{tried} cases, {len(found)} faults")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
