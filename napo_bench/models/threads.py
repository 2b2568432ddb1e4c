"""How many threads torch computes with. A small model runs on one.

Threads of OpenMP spin while they wait for each other. For a small model this waiting is most of the work: on two busy
cores the micro world's evaluation took 140 s with two threads and 37 s with one, and on two idle ones 35 s and 36 s.
"""

from __future__ import annotations

import os
from pathlib import Path

USERS_OWN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables of a user's choice; torchrun and accelerate launch set the first one too."""

SMALL = 16 * 2**20
"""Bytes of weights below which a model is small: layers of width 256, whose products take less than a switch of
threads."""

_several: int | None = None


def choose_threads(folder: Path, device_type: str) -> None:
    """Use one thread if a checkpoint's model is small and runs on the CPU, else torch's own number.

    To be called before the model is loaded: the first computation starts the threads, which then spin.

    Args:
        folder: Holds `*.safetensors`.
        device_type: "cpu", "cuda", ...
    """
    import torch

    global _several
    if any(os.environ.get(name) for name in USERS_OWN):
        return
    _several = _several or torch.get_num_threads()
    small = device_type == "cpu" and sum(path.stat().st_size for path in folder.glob("*.safetensors")) < SMALL
    torch.set_num_threads(1 if small else _several)
