"""MMHal-Bench's published files -> questions and judge template; response rows -> answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from napo_bench.benchmarks.mmhal.score import QUESTION_TYPES, judge_prompt
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

_HINT = "Fetch it with `napo-bench data fetch mmhal`."


class AnswerKey(NamedTuple):
    """Which question an answer is of."""

    image_id: str
    question: str


@dataclass(frozen=True)
class Item:
    """One of the 96 questions.

    Attributes:
        index: Position in the template, from 0.
        image_id: Id of the image in OpenImages.
        image: File of the image.
        image_content: Content of the image in words.
        question: The prompt.
        gt_answer: Answer of a human.
        row: The row of the template, which a response fills.
    """

    index: int
    image_id: str
    image: Path
    image_content: tuple[str, ...]
    question: str
    gt_answer: str
    row: Mapping[str, Any]

    @property
    def key(self) -> AnswerKey:
        """The key of the question's answer."""
        return AnswerKey(self.image_id, self.question)

    @property
    def question_type(self) -> str:
        """The type of the question, by its position."""
        return QUESTION_TYPES[self.index % len(QUESTION_TYPES)]

    def judge_prompt(self, template: str, model_answer: str) -> str:
        """The judge's question about an answer."""
        return judge_prompt(template, self.image_content, self.question, self.gt_answer, model_answer)


class Answer(NamedTuple):
    """One answer of a model; `judge_reply` is the stored reply, None if the row has none."""

    key: AnswerKey
    text: str
    judge_reply: dict[str, Any] | None


def load_items(folder: Path) -> list[Item]:
    """The questions of `template.json`.

    Args:
        folder: Folder with template.json and images/.

    Raises:
        NapoBenchError: the file is missing or a row is malformed. The error names row and field.
    """
    path = folder / "template.json"
    rows = files.read_json(path, _HINT)
    if not isinstance(rows, list) or not rows:
        raise NapoBenchError(f"{path}: a list of questions is expected.", _HINT)
    items: dict[AnswerKey, Item] = {}
    for index, row in enumerate(rows):
        where = f"{path}, row {index + 1}"
        source = files.field(row, "image_src", str, where)
        content = files.field(row, "image_content", list, where)
        if not all(isinstance(word, str) for word in content):
            raise NapoBenchError(f"{where}: the field 'image_content' is {content!r:.80}; a list of words is expected.")
        item = Item(
            index=index,
            image_id=files.field(row, "image_id", str, where),
            image=folder / "images" / PurePosixPath(urlsplit(source).path).name,
            image_content=tuple(content),
            question=files.field(row, "question", str, where),
            gt_answer=files.field(row, "gt_answer", str, where),
            row=row,
        )
        if item.key in items:
            raise NapoBenchError(f"{where}: the same question about the image {item.image_id!r} is there twice.")
        kind = files.field(row, "question_type", str, where)
        if kind != item.question_type:
            raise NapoBenchError(
                f"{where}: the field 'question_type' is {kind!r}; {item.question_type!r} is expected in this place."
            )
        items[item.key] = item
    return list(items.values())


def load_judge_template(folder: Path) -> str:
    """The judge's prompt with its four `{}`. Raises NapoBenchError if the file is missing or has not four."""
    path = folder / "judge_template.txt"
    template = files.read_text(path, _HINT)
    try:
        judge_prompt(template, [], "", "", "")
    except ValueError as error:
        raise NapoBenchError(f"{path}: {error}.", _HINT) from None
    return template


def read_answers(rows: Sequence[Mapping[str, Any]], source: str) -> list[Answer]:
    """Response rows -> answers.

    Args:
        rows: Template rows with `model_answer` filled, or the samples of a run, which name these fields `prompt` and
            `response` and may contain the judge's reply.
        source: Source of the rows, for messages.

    Raises:
        NapoBenchError: a field is missing or no text. The error names row and field.
    """
    answers = []
    for number, row in enumerate(rows, start=1):
        where = f"{source}, row {number}"
        question = files.field(row, "prompt" if "prompt" in row else "question", str, where)
        text = files.field(row, "response" if "response" in row else "model_answer", str, where)
        stored = files.field(row, "judge_reply", dict, where) if "judge_reply" in row else None
        answers.append(Answer(AnswerKey(files.field(row, "image_id", str, where), question), text, stored))
    return answers
