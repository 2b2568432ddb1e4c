"""Object HalBench as questions to a model."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from napo_bench.benchmarks.object_halbench.official import FETCH_HINT, load_questions
from napo_bench.benchmarks.object_halbench.official import Question as OfficialQuestion
from napo_bench.benchmarks.question import Question
from napo_bench.core.errors import NapoBenchError


class _PictureRow(msgspec.Struct):
    image: str


def load_units(folder: Path) -> list[list[Question]]:
    """The questions, each a unit; their pictures stay in the file. Raises NapoBenchError where data is missing."""
    path = folder / "questions.jsonl"
    questions = load_questions(path)
    return [
        [Question(question.text, path, _response_row(question), _picture(path, offset), f", question {number}")]
        for number, (question, offset) in enumerate(zip(questions, _line_offsets(path), strict=True), start=1)
    ]


def _response_row(question: OfficialQuestion) -> Callable[[str], dict[str, Any]]:
    return lambda text: {"image_id": question.image_id, "question": question.text, "text": text}


def _line_offsets(path: Path) -> list[int]:
    """Where each line that is not blank begins, in bytes."""
    offsets = []
    offset = 0
    with path.open("rb") as stream:
        for line in stream:
            if line.strip():
                offsets.append(offset)
            offset += len(line)
    return offsets


def _picture(path: Path, offset: int) -> Callable[[], bytes]:
    def read() -> bytes:
        with path.open("rb") as stream:
            stream.seek(offset)
            line = stream.readline()
        try:
            return base64.b64decode(msgspec.json.decode(line, type=_PictureRow).image)
        except (msgspec.DecodeError, binascii.Error) as error:
            raise NapoBenchError(
                f"{path}, at byte {offset}: no base64 in the field 'image': {error}.", FETCH_HINT
            ) from None

    return read
