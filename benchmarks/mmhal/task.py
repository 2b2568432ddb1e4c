"""MMHal-Bench as questions to a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.mmhal.official import load_questions
from napo_bench.benchmarks.question import Question
from napo_bench.core import files


def load_units(folder: Path) -> list[list[Question]]:
    """The questions, each a unit. Raises NapoBenchError where data is missing."""
    questions = load_questions(folder)
    rows = files.read_json(folder / "template.json")
    return [
        [Question(question.question, question.image, _response_row(row))]
        for question, row in zip(questions, rows, strict=True)
    ]


def _response_row(row: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
    return lambda text: {**row, "model_answer": text}
