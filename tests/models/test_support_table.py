"""docs/models.md says what the code does. The families that people use are measured again here."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import HELD, TYPES
from support_table import row_of, rows_of
from tiny_llava import ROOT

PAGE = rows_of((ROOT / "docs" / "models.md").read_text(encoding="utf-8"))


@pytest.mark.numeric
@pytest.mark.parametrize("family", HELD)
def test_the_row_of_a_family_is_measured(family: str, tmp_path: Path) -> None:
    row = row_of(family, tmp_path)
    assert row == PAGE[family]
    assert row.evaluated == "yes"
    assert row.training.startswith(("shared prefix", "each response with its own prompt: "))


def test_every_type_of_transformers_has_a_row() -> None:
    assert list(PAGE) == list(TYPES)


def test_the_families_that_are_asked_and_trained_do_not_become_fewer() -> None:
    assert sum(row.evaluated.startswith("yes") for row in PAGE.values()) >= 69
    assert sum(row.training == "shared prefix" for row in PAGE.values()) >= 41
    assert "wrong" not in {row.training for row in PAGE.values()}
