"""The micro world: drawn scenes with known truth, their benchmarks, and a tiny LLaVA that guesses from priors."""

from __future__ import annotations

from napo_bench.core.names import MICRO
from napo_bench.micro.base import base_checkpoint

__all__ = ["MICRO", "MICRO_TASKS", "named_checkpoint"]

MICRO_TASKS = ("vlind", "object_halbench", "amber", "amber_discriminative", "mmhal")
"""The tasks that the micro world has data for."""


def named_checkpoint(name: str) -> str:
    """The folder of the base model that ships with napo-bench for the name "micro"; any other name or path
    unchanged.
    """
    return str(base_checkpoint()) if name == MICRO else name
