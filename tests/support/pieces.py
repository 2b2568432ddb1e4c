"""Pieces of work for processes that run side by side: their functions can be imported by another process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import Progress
from napo_bench.core.remaining import Work

ROWS = Work("rows", 1)


@dataclass(frozen=True)
class Piece:
    """A piece that makes a file."""

    run: Callable[[Progress], None]
    makes: Path
    needs: Sequence[Path] = ()
    work: Work = ROWS


def write(path: Path, progress: Progress, seconds: float = 0.0) -> None:
    """Write which process this is and which of the other files exist; report progress and a line."""
    there = sorted(other.name for other in path.parent.glob("*.piece"))
    progress("Training", 1, 2)
    print(f"from {path.stem}")
    time.sleep(seconds)
    device = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    path.write_text(f"{os.getpid()} {device} {','.join(there)}")


def beside(path: Path, progress: Progress) -> None:
    """Write a file when another piece has begun."""
    path.with_suffix(".begun").touch()
    _wait_for_other(path)
    write(path, progress)


def fail(path: Path, progress: Progress, kind: str) -> None:
    """Fail in one of the ways in which a piece fails, when another piece has begun."""
    _wait_for_other(path)
    if kind == "user":
        raise NapoBenchError("The rows are missing.", "Fetch them.")
    if kind == "killed":
        os.kill(os.getpid(), 9)
    if kind == "full":
        raise OSError(28, "No space left on device", str(path))
    raise ValueError("a fault")


def _wait_for_other(path: Path) -> None:
    ends = time.monotonic() + 60
    while not any(begun.stem != path.stem for begun in path.parent.glob("*.begun")):
        assert time.monotonic() < ends
        time.sleep(0.01)


def go_on(path: Path, progress: Progress) -> None:
    """Work for ever, and write a file when the work is interrupted."""
    try:
        path.with_suffix(".begun").write_text(str(os.getpid()))
        while True:
            time.sleep(0.01)
            progress("Training", 1, 2)
    except KeyboardInterrupt:
        path.with_suffix(".saved").touch()
        raise


def piece(path: Path, needs: Sequence[Path] = (), work: float = 1, function: Callable[..., None] = write) -> Piece:
    """A piece that makes `path`."""
    return Piece(partial(function, path), path, needs, Work("training", work))
