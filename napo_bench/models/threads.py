"""The number of threads that torch computes with. A small model runs on one thread.

Threads of OpenMP spin while they wait for each other. For a small model this waiting is most of the work: on two busy
cores the micro world's evaluation took 140 s with two threads and 37 s with one thread, and on two idle cores 35 s and
36 s.
"""

from __future__ import annotations

import os
from pathlib import Path

USERS_OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables with the user's choice. torchrun and accelerate launch also set the first variable."""

SMALL = 16 * 2**20
"""Limit of a small model's weights in bytes. A product of such a model (width 256) takes less time than a switch of
threads."""

_several: int | None = None


def choose_threads(folder: Path, device_type: str) -> None:
    """Use one thread if a checkpoint's model is small and runs on the CPU, else torch's default number.

    Call this function before the model is loaded: the first computation starts the threads, which then spin.

    Args:
        folder: Folder of the weights.
        device_type: "cpu", "cuda", ...
    """
    import torch

    global _several
    if any(os.environ.get(name) for name in USERS_OWN):
        return
    _several = _several or torch.get_num_threads()
    torch.set_num_threads(1 if device_type == "cpu" and is_small(folder) else _several)


def is_small(folder: Path) -> bool:
    """Whether the weights in a folder of a checkpoint are those of a small model."""
    weights = [path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)]
    return sum(path.stat().st_size for path in weights) < SMALL
