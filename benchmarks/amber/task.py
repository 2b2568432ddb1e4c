"""AMBER as questions to a model: the generative half, the discriminative half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.amber.official import QUERY_FILES, load_queries
from napo_bench.benchmarks.amber.score import yes_or_no
from napo_bench.benchmarks.question import Question


def load_generative_units(folder: Path) -> list[list[Question]]:
    """One description for each picture. Raises NapoBenchError where data is missing."""
    return _units(folder, QUERY_FILES[0], answer=str)


def load_discriminative_units(folder: Path) -> list[list[Question]]:
    """The yes/no questions, each a unit. Raises NapoBenchError where data is missing."""
    return _units(folder, QUERY_FILES[1], answer=yes_or_no)


def _units(folder: Path, queries: str, answer: Callable[[str], str]) -> list[list[Question]]:
    def response_row(number: int) -> Callable[[str], dict[str, Any]]:
        return lambda text: {"id": number, "response": answer(text)}

    return [
        [Question(query.text, folder / "images" / query.image, response_row(query.id))]
        for query in load_queries(folder / queries)
    ]
