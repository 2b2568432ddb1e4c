"""VLind-Bench as questions to a model; a sampling unit is an instance with all its questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.question import Question
from napo_bench.benchmarks.vlind.official import AnswerKey, load_instances
from napo_bench.benchmarks.vlind.prompts import questions


def load_units(folder: Path) -> list[list[Question]]:
    """The questions of each instance, in the order CK, VP, CB, LP. Raises NapoBenchError where data is missing."""
    return [
        [
            Question(asked.prompt, asked.picture.path, _response_row(asked.key), asked.picture.read)
            for asked in questions(instance)
        ]
        for instance in load_instances(folder)
    ]


def _response_row(key: AnswerKey) -> Callable[[str], dict[str, Any]]:
    return lambda text: {**key._asdict(), "text": text}
