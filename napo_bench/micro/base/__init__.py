"""The micro world's base model, as `scripts/make_micro_base.py` makes it."""

from __future__ import annotations

from pathlib import Path


def base_checkpoint() -> Path:
    """The folder of the checkpoint; `AutoModelForImageTextToText.from_pretrained` loads it."""
    return Path(__file__).parent
