"""Measure how preference rows grow: CPU seconds until a command begins its work, and bytes of the copies of the rows.

    OMP_NUM_THREADS=1 python scripts/measure_rows.py --against ../older-checkout

Each command runs in a process of its own on this checkout and on the other one, by turns, with a cache folder for each
checkout: `build-bias` and DPO on given rows, NaPO on the same rows with biased negatives in shards, and DPO on a copy
of the file. The rows have tiny images, all different. The clock runs from the call, with all modules imported, to the
first answer of `build-bias` or the first batch of the reference pass, where the command is stopped. Seconds are those
of the CPU, which hardly depend on the other work of the machine.

A second table has the seconds in which `build-bias` writes its rows from a full journal, with images of 640 x 480.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
SETTLED, SHARD, TINY, LARGE = 2.5, 500, (12, 10), (640, 480)
BIASED = ("question_only", "image_only")


class BegunError(Exception):
    """A command has begun its work."""


class Stop:
    """A progress that stops the command at its first report of work."""

    def __call__(self, stage: str, done: int, total: int | None, values: Any = None, /) -> None:
        """Stop the command."""
        if done:
            raise BegunError

    def note(self, text: str) -> None:
        """Nothing."""


def rows(count: int, size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Rows of RLAIF-V-Bias with texts of the lengths of RLAIF-V and a different image each."""
    draw = random.Random(0)
    pixels = np.random.default_rng(0)
    words = [f"word{number}" for number in range(500)]

    def text(most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(most // 2, most)))

    for number in range(count):
        stream = io.BytesIO()
        coarse = Image.fromarray(pixels.integers(0, 256, (10, 12, 3), dtype=np.uint8))
        coarse.resize(size).save(stream, "PNG" if size == TINY else "JPEG")
        yield {
            "idx": str(number),
            "question": text(16),
            "chosen": text(60),
            "rejected": text(60),
            "image": {"bytes": stream.getvalue(), "path": f"{number}.png"},
            "question_only": text(60),
            "image_only": text(60),
        }


def write_rows(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Write `given.parquet` without the biased negatives, and the folder `biased` with them in shards."""
    (folder / "biased").mkdir(parents=True)
    writer, number = None, 0
    source = rows(count, size)
    while part := [row for row, _ in zip(source, range(SHARD), strict=False)]:
        table = pa.Table.from_pylist(part)
        given = table.drop_columns(list(BIASED))
        writer = writer or parquet.ParquetWriter(folder / "given.parquet", given.schema)
        writer.write_table(given)
        parquet.write_table(table, folder / f"biased/part-{number:05}.parquet")
        number += 1
    assert writer is not None
    writer.close()


def step(command: str, data: str, out: str) -> None:
    """Run a command until it begins its work, and print the seconds. The journal is written to its end."""
    from napo_bench.engines.hf import HFEngine  # noqa: F401
    from napo_bench.micro import named_checkpoint
    from napo_bench.trainers.bias import PUBLISHED, build_bias
    from napo_bench.trainers.recipe import load_recipe
    from napo_bench.trainers.run import train

    base = named_checkpoint("micro")
    short = dataclasses.replace(PUBLISHED, max_new_tokens=1, num_beams=1)
    stop: Any = (lambda *_: None) if command == "journal" else Stop()
    began = time.process_time()
    try:
        if command in ("build-bias", "journal"):
            build_bias(base, data, Path(out), device="cpu", dtype="float32", generation=short, progress=stop)
        else:
            train(load_recipe(command, [f"base={base}", f"data={data}", "workers=0"]), Path(out), progress=stop)
    except BegunError:
        pass
    print(json.dumps(time.process_time() - began))


def run(checkout: Path, cache: Path, command: str, data: Path, out: Path) -> float:
    """The seconds of a command of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    arguments = [sys.executable, str(Path(__file__)), "--step", command, str(data), str(out)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, cwd=cache)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def bytes_of(cache: Path) -> int:
    """Bytes of the copies of rows in a cache folder, without the log-probs and digests."""
    paths = [path for path in cache.rglob("*") if path.is_file() and "rows" in path.parts and "out" not in path.parts]
    return sum(path.stat().st_size for path in paths)


def measure_growth(counts: list[int], checkouts: dict[str, Path], folder: Path) -> Table:
    """Seconds of the first and the second run of each command, and bytes of the copies after all commands."""
    table = Table(title="Rows and their copies")
    for heading in ("rows", "command", *(f"{name}, {turn} run" for name in checkouts for turn in ("first", "second"))):
        table.add_column(heading, justify="right")
    for count in counts:
        data = folder / str(count)
        write_rows(data, count, TINY)
        (data / "moved").mkdir()
        shutil.copy(data / "given.parquet", data / "moved" / "again.parquet")
        time.sleep(SETTLED)
        caches = {name: data / "cache" / name for name in checkouts}
        for cache in caches.values():
            cache.mkdir(parents=True)
        for title, command, path in (
            ("build-bias", "build-bias", data / "given.parquet"),
            ("DPO", "micro-dpo", data / "given.parquet"),
            ("NaPO", "micro-napo", data / "biased"),
            ("DPO, file moved", "micro-dpo", data / "moved"),
        ):
            seconds: dict[str, list[float]] = {name: [] for name in checkouts}
            for turn in range(2):
                for name, checkout in checkouts.items():
                    out = caches[name] / "out" / f"{title}-{turn}"
                    seconds[name].append(run(checkout, caches[name], command, path, out))
            table.add_row(f"{count:,}", title, *(f"{one:.2f}" for both in seconds.values() for one in both))
        sizes = {name: bytes_of(cache) / 1e6 for name, cache in caches.items()}
        given = (data / "given.parquet").stat().st_size / 1e6
        table.add_row(f"{count:,}", f"MB of copies ({given:,.1f} MB of rows)",
                      *(cell for size in sizes.values() for cell in ("", f"{size:,.1f}")))  # fmt: skip
        shutil.rmtree(data)
    return table


def measure_journal(count: int, checkouts: dict[str, Path], folder: Path) -> Table:
    """Seconds of `build-bias` from a full journal."""
    data = folder / "journal"
    write_rows(data, count, LARGE)
    time.sleep(SETTLED)
    table = Table(title=f"build-bias of {count:,} rows of {LARGE[0]} x {LARGE[1]}")
    for heading in ("", "whole build, s", "from its journal, s", "ms a row"):
        table.add_column(heading, justify="right")
    seconds: dict[str, list[float]] = {name: [] for name in checkouts}
    for _ in range(2):
        for name, checkout in checkouts.items():
            cache = data / name
            cache.mkdir(exist_ok=True)
            seconds[name].append(run(checkout, cache, "journal", data / "given.parquet", cache / "out"))
            for path in (*(cache / "out").glob("*.parquet"), cache / "out/README.md"):
                path.unlink()
    for name, (first, second) in seconds.items():
        table.add_row(name, f"{first:.2f}", f"{second:.2f}", f"{second / count * 1000:.2f}")
    return table


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout, which is measured by turns with this one")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 80_000])
    parser.add_argument("--journal-rows", type=int, default=1_000)
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(*options.step)
        return
    checkouts = {"before": options.against.resolve()} if options.against else {}
    checkouts["now"] = ROOT
    with tempfile.TemporaryDirectory() as folder:
        console = Console(width=140)
        console.print(measure_growth(options.rows, checkouts, Path(folder)))
        if options.journal_rows:
            console.print(measure_journal(options.journal_rows, checkouts, Path(folder)))


if __name__ == "__main__":
    main()
