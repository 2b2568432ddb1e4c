"""How many jobs a command has, and the device of each."""

from __future__ import annotations

import os

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def job_devices(jobs: int | None, device: str | None, small: bool) -> list[dict[str, str]]:
    """What each process of a command with several jobs has in its environment. On CUDA each has a GPU of its own.

    Args:
        jobs: Number of jobs, as the user says; None is the default.
        device: Device of the command, as the user says.
        small: Whether the model computes on one core. Then the default is 2 jobs, if the command runs on the CPU.

    Returns:
        One mapping for each job; the first job is this process.

    Raises:
        NapoBenchError: a launcher started several processes already, there are fewer GPUs, or the device is one GPU
            or all of them.
    """
    if not processes.is_alone():
        if jobs is not None and jobs > 1:
            raise NapoBenchError(
                f"--jobs {jobs} under a launcher, whose {processes.count()} processes do each step together.",
                "Leave --jobs out, or start the command without the launcher.",
            )
        return [{}]
    if (jobs is None and not small) or jobs == 1:
        return [{}]
    import torch

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    if jobs is None:
        return [{}] * (min(2, cores()) if on_cpu else 1)
    if on_cpu:
        return [{}] * jobs
    if device not in (None, "cuda"):
        raise NapoBenchError(
            f"--jobs {jobs} gives each job a GPU of its own, and --device is {device!r}.", "Leave --device out."
        )
    there = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    there = there if there != [""] else [f"{number}" for number in range(torch.cuda.device_count())]
    if len(there) < jobs:
        raise NapoBenchError(
            f"--jobs {jobs} gives each job a GPU of its own; torch finds {len(there)}.", f"--jobs {len(there)}"
        )
    return [{"CUDA_VISIBLE_DEVICES": name} for name in there[:jobs]]
