"""The micro world's base model, as `python -m napo_bench.micro.train_base` makes it."""

from __future__ import annotations

from pathlib import Path


def base_checkpoint() -> Path:
    """The folder of the checkpoint; `AutoModelForImageTextToText.from_pretrained` loads it."""
    return Path(__file__).parent
