"""The micro world: drawn scenes with known truth, their benchmarks, and a tiny LLaVA that guesses from priors."""

from __future__ import annotations

from pathlib import Path

MICRO = "micro"


def named_checkpoint(name: str) -> str:
    """The folder of the base model that comes along, for the name "micro"; any other name or path as it is."""
    return str(Path(__file__).parent / "base") if name == MICRO else name
