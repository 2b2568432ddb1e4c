"""Measure the memory that loading a checkpoint in LLaVA's original layout needs.

    python scripts/measure_original_layout.py folder --dtype float16

The folder is any checkpoint of that layout. The script prints the size of the checkpoint's files, of the model, and the
memory of the process before the weights are loaded and at the peak.
"""

from __future__ import annotations

import argparse
import resource

import torch

from napo_bench.models.checkpoint import Checkpoint

MIB = 2**20


def peak() -> float:
    """The largest memory of the process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Load the checkpoint and print the memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    given = parser.parse_args()
    checkpoint = Checkpoint.open(given.folder)
    checkpoint.open_parts()
    if checkpoint.original is None:
        parser.error(f"{given.folder} is not in LLaVA's original layout")
    before = peak()
    model = checkpoint.load_model(torch.device("cpu"), getattr(torch, given.dtype))
    files = sum(path.stat().st_size for _, path in checkpoint.original.parts()) / MIB
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / MIB
    print(
        f"{given.dtype}: files {files:.0f} MiB, model {weights:.0f} MiB, before {before:.0f} MiB, peak {peak():.0f} MiB"
    )


if __name__ == "__main__":
    main()
