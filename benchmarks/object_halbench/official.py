"""Object HalBench's published files -> questions and synonyms; response rows -> answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from napo_bench.benchmarks.object_halbench.score import Synonyms, parse_synonyms
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

FETCH_HINT = "Fetch it: napo-bench data fetch object-halbench"


@dataclass(frozen=True)
class ListedQuestion:
    """One of the benchmark's questions; its line in the file begins at `offset` bytes."""

    image_id: int
    text: str
    offset: int


@dataclass(frozen=True)
class Answer:
    """One answer of a model; `question` is empty if the row has no question."""

    image_id: int
    question: str
    text: str


class _QuestionRow(msgspec.Struct):
    image_id: int | str
    question: str


def load_questions(path: Path) -> list[ListedQuestion]:
    """The rows {image_id, question, image} of questions.jsonl, line by line, without the images.

    Raises:
        NapoBenchError: the file is missing or malformed. The error names line and field.
    """
    decoder = msgspec.json.Decoder(_QuestionRow)
    questions = []
    with files.require_file(path, FETCH_HINT).open("rb") as stream:
        end = 0
        for number, line in enumerate(stream, start=1):
            offset, end = end, end + len(line)
            if not line.strip():
                continue
            try:
                row = decoder.decode(line)
            except msgspec.DecodeError as error:
                raise NapoBenchError(f"{path}, line {number}: {error}.", FETCH_HINT) from None
            image_id = _image_id(row.image_id, f"{path}, line {number}")
            questions.append(ListedQuestion(image_id, row.question, offset))
    return questions


def load_synonyms(path: Path) -> Synonyms:
    """Read synonyms_refine.txt. Raises NapoBenchError if the file is missing."""
    return parse_synonyms(files.read_text(path, FETCH_HINT))


def load_extractor_template(path: Path) -> str:
    """Read extractor_template.txt. Raises NapoBenchError if the file is missing or has no {question} or no {answer}."""
    template = files.read_text(path, FETCH_HINT)
    for place in ("{question}", "{answer}"):
        if place not in template:
            raise NapoBenchError(f"{path}: {place} is not in the template.", FETCH_HINT)
    return template


def read_answers(rows: Sequence[Mapping[str, Any]], source: str) -> list[Answer]:
    """Response rows {image_id, question or prompt, text or answer} -> answers, "Assistant:" removed, stripped.

    Raises:
        NapoBenchError: a field is missing or of another type. The error names row and field.
    """
    answers = []
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        image_id = _image_id(files.field(row, "image_id", (int, str), where), where)
        question = next((files.field(row, name, str, where) for name in ("prompt", "question") if name in row), "")
        text = files.field(row, "answer" if "answer" in row and "text" not in row else "text", str, where)
        answers.append(Answer(image_id, question, text.replace("Assistant:", "").strip()))
    return answers


def _image_id(value: int | str, where: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise NapoBenchError(f"{where}: the field 'image_id' is {value!r}; a COCO image id is expected.") from None
