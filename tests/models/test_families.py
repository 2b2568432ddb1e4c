"""The table of model families, and the page that says how to add a row."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from families import make_family
from family_recipes import RECIPES, recipe
from PIL import Image
from rounding import LOG_PROB
from tiny_llava import ROOT

from napo_bench.models.checkpoint import Checkpoint
from napo_bench.models.conversation import Conversation
from napo_bench.models.families import FAMILIES, Family, family_of
from napo_bench.trainers.batches import Collator
from napo_bench.trainers.forward import obstacle_to_sharing, response_logps
from napo_bench.trainers.rows import PreferenceRow

PAGE = ROOT / "docs" / "add-a-model-family.md"


@pytest.mark.numeric
def test_the_page_adds_a_family_by_one_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)```", PAGE.read_text(), re.M | re.S)]
    row, entry = (eval(f"{{{block}}}", {**vars(recipe), "Family": Family}) for block in blocks)  # noqa: S307
    ((name, family),) = row.items()
    assert entry.keys() == {name} and name not in FAMILIES
    monkeypatch.setitem(RECIPES, name, entry[name])
    make_family(tmp_path, name)
    checkpoint = Checkpoint.open(str(tmp_path))
    model = checkpoint.load_model("cpu", torch.float32)
    conversation = Conversation.of(checkpoint.load_processor(), checkpoint.load_config())
    batch = Collator(conversation)([PreferenceRow(0, "0", "What?", ("a red car", "no"), Image.new("RGB", (30, 20)))])
    assert name in obstacle_to_sharing(model)
    with torch.no_grad():
        before = response_logps(model, batch.prompts)
        monkeypatch.setitem(FAMILIES, name, family)
        assert obstacle_to_sharing(model) is None
        after = response_logps(model, batch.prompts)
    torch.testing.assert_close(after.sum, before.sum, atol=LOG_PROB, rtol=0)


def test_the_page_names_every_field_of_a_row() -> None:
    named = re.findall(r"^ *\| `(\w+)` \|", PAGE.read_text(), re.M)
    assert named == list(Family.__dataclass_fields__)


def test_a_family_without_a_row_has_its_own_conversation_and_shares_nothing() -> None:
    unknown = family_of(SimpleNamespace(model_type="unheard_of"))
    assert (unknown.positions, unknown.conversation) == (None, "own")


def test_every_family_that_shares_a_prompt_has_a_tiny_checkpoint() -> None:
    assert {name for name, row in FAMILIES.items() if row.positions} <= set(RECIPES)
