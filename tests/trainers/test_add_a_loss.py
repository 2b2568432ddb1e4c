"""docs/add-a-loss.md, followed literally: a function, an entry and a variant, and the loss trains."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from rounding import LOG_PROB
from tiny_rows import tiny_checkpoint, tiny_rows, write_rows

from napo_bench.trainers import losses, recipe
from napo_bench.trainers.run import train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "add-a-loss.md"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Makes the three edits of the page on copies, and puts the copies in the place of the originals."""
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    function, entry, variant = blocks
    source = Path(losses.__file__).read_text(encoding="utf-8")
    before, at, after = source.partition("@dataclass(frozen=True)\nclass Loss")
    table, end, rest = after.rpartition("}\n")
    (tmp_path / "losses.py").write_text(f"{before}{function}\n\n{at}{table}{entry}{end}{rest}", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("edited_losses", tmp_path / "losses.py")
    edited = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "edited_losses", edited)
    spec.loader.exec_module(edited)
    (name,) = edited.LOSSES.keys() - losses.LOSSES.keys()
    monkeypatch.setitem(losses.LOSSES, name, edited.LOSSES[name])
    shutil.copytree(recipe.RECIPES, tmp_path / "recipes")
    file, folder = re.search(r"the file `(.*)` in \[trainers/(.*?)\]", PAGE.read_text(encoding="utf-8")).groups()
    (tmp_path / folder / file).write_text(variant, encoding="utf-8")
    monkeypatch.setattr(recipe, "RECIPES", tmp_path / "recipes")
    return name


def test_the_page_s_loss_trains_by_its_recipe(added, tmp_path):
    checkpoint, rows = tiny_checkpoint(tmp_path / "base"), write_rows(tmp_path / "rows.parquet", tiny_rows(8))
    resolved = recipe.load_recipe(
        f"micro-{added}",
        [f"base={checkpoint}", f"data={rows}", "per_device_batch_size=4", "logging_steps=1", "learning_rate=1e-2"],
    )
    out = train(resolved, tmp_path / "out", cache=tmp_path / "cache")
    first, second = (json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines())
    assert first["loss"] == first["loss/rejected"] == pytest.approx(1, abs=LOG_PROB)
    assert second["loss"] != first["loss"]
    assert f"loss_rejected: {added}" in (out / "recipe.yaml").read_text()


def test_the_page_s_loss_has_the_values_of_its_equation(added):
    margins = torch.tensor([-30.0, -5.0, 0.0, 5.0, 30.0])
    assert losses.LOSSES[added].function(margins, beta=0.1).tolist() == pytest.approx([2, 1.5, 1, 0.5, 0])
