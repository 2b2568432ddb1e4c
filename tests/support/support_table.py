"""The rows of docs/models.md: what `eval` and `train` do with each image-text-to-text type of transformers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from families import TYPES, make_family
from family_checks import evaluation_of, several_of, training_of
from family_recipes import NOT_TRIED, RECIPES
from transformers import AutoConfig

from napo_bench.engines.hf import HFEngine
from napo_bench.models.families import refusal_of

_NONE = "\u2013"


@dataclass(frozen=True)
class SupportRow:
    """One row of the table.

    Attributes:
        family: `model_type` of config.json.
        evaluated: "yes", or why not.
        several: Whether a prompt may have several images: "yes", or why not.
        training: How the responses of a preference row are computed.
    """

    family: str
    evaluated: str
    several: str = _NONE
    training: str = _NONE

    def line(self) -> str:
        """The row in Markdown."""
        return f"| `{self.family}` | {self.evaluated} | {self.several} | {self.training} |"


def row_of(family: str, folder: Path) -> SupportRow:
    """The row of a family, from its tiny checkpoint, which is written into `folder`."""
    if family in NOT_TRIED:
        return SupportRow(family, f"not tried: {NOT_TRIED[family]}")
    if family not in RECIPES:
        reason = refusal_of(AutoConfig.for_model(family))
        assert reason, f"{family} has no recipe, no refusal, and no reason why it was not tried"
        return SupportRow(family, f"refused: {reason}")
    make_family(folder, family)
    engine = HFEngine(str(folder), device="cpu", dtype="float32")
    return SupportRow(family, evaluation_of(engine), several_of(engine), training_of(folder))


def rows_of(page: str) -> dict[str, SupportRow]:
    """The rows of a page, by family."""
    cells = re.findall(r"^\| `([^`]+)` \| (.+) \| (.+) \| (.+) \|$", page, re.M)
    return {cell[0]: SupportRow(*cell) for cell in cells}


__all__ = ["TYPES", "SupportRow", "row_of", "rows_of"]
