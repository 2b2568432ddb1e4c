"""Which CHAIR a published number is: results/paper says it row by row."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pytest

from napo_bench.core.paths import results_dir

DEFINITION = "object_halbench.chair_definition"


def rows(table: int) -> Iterator[dict[str, str]]:
    with (results_dir() / "paper" / f"table{table}.csv").open(encoding="utf-8", newline="") as stream:
        yield from (row for row in csv.DictReader(stream) if row["object_halbench.chair_s"])


@pytest.mark.parametrize("table", range(1, 7))
def test_every_published_chair_has_its_definition(table: int) -> None:
    known = {"words", "llm:gpt-3.5-turbo-0613", "not stated"}
    assert [row for row in rows(table) if row[DEFINITION] not in known] == []


@pytest.mark.parametrize("table", range(1, 7))
def test_the_papers_own_chairs_are_shares_of_300_answers(table: int) -> None:
    """Word mode divides by 300 answers. The LLM mode of RLAIF-V's tables divides by the answers with an object."""
    thirds = {f"{k / 3:.1f}" for k in range(301)}
    own = [row for row in rows(table) if row[DEFINITION] == "words"]
    assert own
    # 25.8, DPO of 13B, is the one exception: 77 of 300 are 25.7.
    assert {row["object_halbench.chair_s"] for row in own} - thirds <= {"25.8"}
    of_llm = [row["object_halbench.chair_s"] for row in rows(table) if row[DEFINITION].startswith("llm:")]
    assert not of_llm or set(of_llm) - thirds
