"""The table of model families, and the page that says how to add a row."""

from __future__ import annotations

import re
import textwrap
from types import SimpleNamespace

import pytest
import tiny_models
import torch
import transformers
from rounding import LOG_PROB
from tiny_llava import ROOT

from napo_bench.models.families import FAMILIES, Family, family_of
from napo_bench.trainers.forward.logps import obstacle_to_sharing, response_logps

PAGE = ROOT / "docs" / "add-a-model-family.md"


@pytest.mark.numeric
def test_the_page_adds_a_family_by_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [textwrap.dedent(block) for block in re.findall(r"^ *```python\n(.*?)```", PAGE.read_text(), re.M | re.S)]
    ((name, row),) = eval(f"{{{blocks[0]}}}", {"Family": Family}).items()  # noqa: S307
    config = eval(blocks[1], {**vars(tiny_models), "text": tiny_models._TEXT})  # noqa: S307
    assert config.model_type == name not in FAMILIES
    torch.manual_seed(0)
    model = getattr(transformers, type(config).__name__.removesuffix("Config") + "ForConditionalGeneration")(config)
    batch = tiny_models.tiny_batch()
    assert name in obstacle_to_sharing(model)
    with torch.no_grad():
        before = response_logps(model, batch)
        monkeypatch.setitem(FAMILIES, name, row)
        assert obstacle_to_sharing(model) is None
        after = response_logps(model, batch)
    torch.testing.assert_close(after.sum, before.sum, atol=LOG_PROB, rtol=0)


def test_the_page_names_every_field_of_a_row() -> None:
    named = re.findall(r"^ *\| `(\w+)` \|", PAGE.read_text(), re.M)
    assert named == list(Family.__dataclass_fields__)


def test_a_family_without_a_row_has_its_own_conversation_and_shares_nothing() -> None:
    unknown = family_of(SimpleNamespace(model_type="unheard_of"))
    assert unknown == Family(None, None, "own", {}, False)


def test_every_family_with_known_positions_has_a_tiny_model() -> None:
    assert {name for name, row in FAMILIES.items() if row.positions} == set(tiny_models.FAMILIES)
