"""Damage the metadata of a checkpoint in random ways, and check that each damage ends in one message, or does no harm.

    python scripts/fuzz_checkpoints.py --seconds 600

Each case changes one value in one JSON file of a copy of the micro world's base: to a value of another type, to a huge
or negative number, to an odd text; or removes it. Then the copy is opened as `eval` and `train` open a checkpoint
before they allocate weights. Every exception except NapoBenchError is a fault, and is printed with its case.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from napo_bench.core.errors import NapoBenchError
from napo_bench.micro.base import base_checkpoint
from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation

REMOVED = object()
VALUES: tuple[Any, ...] = (
    REMOVED, None, True, 0, -1, 1.5, 10**7, 10**30, "", "x", "\0", "../x", "user/kernel", [], [None], ["x"], [-1],
    {}, {"x": 1}, [[]], float("nan"),
)  # fmt: skip

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


def damage(content: Any, case: Case) -> Any:
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


def cases(folder: Path, seed: int) -> Iterator[Case]:
    """Random damages, without end. Every file of a checkpoint is drawn equally often."""
    rng = random.Random(seed)
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


def faults(seconds: float, seed: int, source: Path | None = None) -> tuple[int, list[tuple[Case, str]]]:
    """Number of cases within a time, and each case with an unexpected exception."""
    found = []
    tried = 0
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copytree(source or base_checkpoint(), Path(name) / "checkpoint"))
        for case in cases(folder, seed):
            if time.monotonic() > ends:
                break
            tried += 1
            path = folder / case.file
            whole = path.read_text(encoding="utf-8")
            path.write_text(json.dumps(damage(json.loads(whole), case)), encoding="utf-8")
            try:
                open_checkpoint(folder)
            except NapoBenchError:
                pass
            except Exception:
                found.append((case, traceback.format_exc(limit=-3)))
            finally:
                path.write_text(whole, encoding="utf-8")
    return tried, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tried, found = faults(options.seconds, options.seed)
    for case, trace in found:
        print(f"{case}\n{trace}")
    print(f"{tried} cases, {len(found)} faults")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
