"""The model card of a trained checkpoint: what it was made from, and the licences that apply."""

from __future__ import annotations

import json
from pathlib import Path

from napo_bench.core import files
from napo_bench.core.names import CONTROLS
from napo_bench.trainers.published import hub_revision, licence_of
from napo_bench.trainers.recipe import Recipe
from napo_bench.trainers.rows import RowReport

CARD_NAME = "README.md"


def write_card(out: Path, recipe: Recipe, report: RowReport, asked_in: str | None) -> None:
    """Write the model card into the folder of a trained checkpoint.

    Args:
        out: Folder of the checkpoint.
        recipe: Recipe of the training.
        report: Report about the rows.
        asked_in: Name of LLaVA-1.5's conversation in the training; None for a checkpoint with one conversation.
    """
    base, data = _public(recipe.base), _public(recipe.data)
    kind = "adapter" if recipe.lora_r else "checkpoint"
    header = {"library_name": "peft" if recipe.lora_r else "transformers", "pipeline_tag": "image-text-to-text"}
    if base == recipe.base:
        header["base_model"] = base
    licence = licence_of(recipe.data) or f"unknown to napo-bench; ask the authors of `{data}`"
    lines = [
        "---",
        *(f"{name}: {json.dumps(value)}" for name, value in header.items()),
        *([f"datasets: [{json.dumps(hub_revision(data)[0])}]"] if data == recipe.data else []),
        "---",
        "",
        f"# {out.resolve().name}",
        "",
        f"An {kind} of `{base}`," if recipe.lora_r else f"A {kind} that started from `{base}`,",
        f"trained by napo-bench on {report.used:,} of {report.total:,} preference rows of `{data}`.",
        *([f"**A control ({recipe.control})**: every row has {CONTROLS[recipe.control]}."] if recipe.control else []),
        *([f"Its prompts are in the conversation {asked_in}, in training and in evaluation."] if asked_in else []),
        "`recipe.yaml` has every setting, `training.json` what determines the run, `rows.json` the rows left out.",
        "",
        "## Licences",
        "",
        f"- Base `{base}`: its licence applies to these weights.",
        f"- Rows `{data}`: {licence}.",
    ]
    files.write_text(out / CARD_NAME, "\n".join(lines) + "\n")


def _public(name: str) -> str:
    """A name on the hub as it is; of a local path, only the last part."""
    path = Path(name).expanduser()
    is_hub = not path.exists() and not name.startswith((".", "/", "~")) and name.count("/") == 1
    return name if is_hub else path.resolve().name
