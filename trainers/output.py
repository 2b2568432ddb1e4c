"""The output folder of a run: the run's identity, the remains of a killed run, and the messages of a full disk or
device.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napo_bench.core import disk, files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.locks import LOCK_NAME
from napo_bench.core.names import TRAINING

LOG = "train_log.jsonl"
UNLOGGED = "unlogged_{rank}.json"
"""File in a checkpoint with a process's sums since the last log line."""


def describe(out: Path, run: Mapping[str, Any], *, finished: bool) -> None:
    """Write the determinants of the run, and whether the run is finished."""
    files.write_json(out / TRAINING, {**run, "finished": finished})


def is_finished(out: Path, run: Mapping[str, Any], resume: bool) -> bool:
    """Whether `out` contains the finished run; False for a new folder and for the same run if it is not finished.

    Raises:
        NapoBenchError: `out` has other content, or contains the unfinished run and `resume` is False.
    """
    path = out / TRAINING
    if not path.is_file():
        if out.is_dir() and any(path.name != LOCK_NAME for path in out.iterdir()):
            raise NapoBenchError(f"{out} is not empty, and what it holds is no training run.", "Choose another --out.")
        return False
    held = files.read_json(path)
    finished = bool(held.pop("finished", False))
    state = "finished" if finished else "not finished"
    then, now = _flat(held), _flat(run)
    for name in {**now, **then}:
        if then.get(name) != now.get(name):
            raise NapoBenchError(
                f"{out} holds another run, {state}: its {name} is {then.get(name)}; here {name} is {now.get(name)}.",
                "Choose another --out. To go on with that run: the command that began it, on as many processes, with "
                "--resume.",
            )
    if not resume:
        hint = "Choose another --out to train anew." if finished else "Add --resume to go on with it."
        raise NapoBenchError(f"{out} holds this run, {state}.", hint)
    return finished


def last_checkpoint(folder: Path, processes: int) -> Path | None:
    """The newest complete checkpoint."""

    def is_whole(path: Path) -> bool:
        states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{rank}.pth" for rank in range(processes)]
        states += [UNLOGGED.format(rank=rank) for rank in range(processes)]
        return _has_state(path) and all((path / name).is_file() for name in states)

    return max((path for path in folder.glob("checkpoint-*") if is_whole(path)), key=step_of, default=None)


def drop_cut_off(folder: Path) -> None:
    """Delete incomplete checkpoints, which take the space of the next checkpoint."""
    for path in folder.glob("checkpoint-*"):
        if not _has_state(path):
            shutil.rmtree(path, ignore_errors=True)


def _has_state(checkpoint: Path) -> bool:
    """Whether the file that the Trainer writes last is complete."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def step_of(checkpoint: Path | None) -> int:
    """The number of optimizer steps before a checkpoint; 0 without a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0


def cut_log(log: Path, last: Path | None) -> None:
    """Delete the lines of steps that are run again, and an incomplete line."""
    if log.is_file():
        whole = [line for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
        files.write_text(log, "".join(line for line in whole if json.loads(line)["step"] <= step_of(last)))


@contextmanager
def limits_explained(out: Path) -> Iterator[None]:
    """Turn the exceptions of Python, safetensors and torch about a full disk or device into one message."""
    import torch
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise NapoBenchError(
            "The device has not enough memory for a batch of this size.",
            "Halve per_device_batch_size and double gradient_accumulation, set gradient_checkpointing: true, take a "
            "-lora recipe, or launch with FSDP; --dry-run estimates what each needs.",
        ) from None
    except (OSError, SafetensorError, RuntimeError) as error:
        why = disk.reason(error)
        if why is None:
            raise
        name = error.filename if isinstance(error, OSError) else None
        raise disk.unwritable(
            Path(os.fsdecode(name)) if isinstance(name, str | bytes) else out,
            why,
            "Free space, then run the same command with --resume. The run continues from the last complete checkpoint.",
        ) from None


def _flat(run: Mapping[str, Any]) -> dict[str, Any]:
    """The determinants by name. Base and data are compared by their fingerprints, not by their paths."""
    flat = {**run, **run.get("recipe", {})}
    return {name: value for name, value in flat.items() if name not in ("recipe", "base", "data")}
