"""AMBER as questions to a model: the generative half, the discriminative half."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.amber.official import QUERY_FILES, load_queries
from benchmarks.question import Question


def load_generative_units(folder: Path) -> list[list[Question]]:
    """One description for each picture. Raises NapoBenchError where data is missing."""
    return _units(folder, QUERY_FILES[0], answer=str)


def load_discriminative_units(folder: Path) -> list[list[Question]]:
    """The yes/no questions, each a unit. Raises NapoBenchError where data is missing."""
    return _units(folder, QUERY_FILES[1], answer=yes_or_no)


def yes_or_no(text: str) -> str:
    """A free answer as the exact "Yes" or "No" that AMBER's format asks for: its first word, if it is one of them.

    Any other answer stays as it is, and counts as neither.
    """
    word = re.match(r"\W*(yes|no)\b", text, flags=re.IGNORECASE)
    return word[1].capitalize() if word else text


def _units(folder: Path, queries: str, answer: Callable[[str], str]) -> list[list[Question]]:
    def response_row(number: int) -> Callable[[str], dict[str, Any]]:
        return lambda text: {"id": number, "response": answer(text)}

    return [
        [Question(query.text, folder / "images" / query.image, response_row(query.id))]
        for query in load_queries(folder / queries)
    ]
