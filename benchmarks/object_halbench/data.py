"""Object HalBench's data: its questions, the synonyms, and what COCO knows of the images."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from napo_bench.benchmarks.object_halbench import coco, official
from napo_bench.benchmarks.object_halbench.official import FETCH_HINT, ListedQuestion
from napo_bench.benchmarks.object_halbench.score import Synonyms
from napo_bench.benchmarks.question import BenchmarkData, Question, Row
from napo_bench.core.errors import NapoBenchError


@dataclass(frozen=True)
class HalbenchItem:
    """What an answer is scored by.

    Attributes:
        sample_id: The image's id; from the second question about an image on, with the question's number.
        image_id: The image in COCO.
    """

    sample_id: str
    image_id: int


class _PictureRow(msgspec.Struct):
    image: str


class ObjectHalbench(BenchmarkData):
    """Object HalBench's data. A part of the responses can be scored without questions.jsonl, unchecked.

    The only question about an image is known by the image's id, several questions by id and text.
    """

    noun = "image_id"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._images: dict[int, coco.CocoImage] = {}

    @property
    def questions_file(self) -> Path:
        """The questions, with their pictures."""
        return self.folder / "questions.jsonl"

    @cached_property
    def synonyms(self) -> Synonyms:
        """Term -> COCO class."""
        return official.load_synonyms(self.folder / "synonyms_refine.txt")

    def images(self, image_ids: set[int]) -> dict[int, coco.CocoImage]:
        """What COCO knows of the images, of those that it knows."""
        if missing := image_ids - self._images.keys():
            self._images |= coco.load_images(self.folder / "annotations", missing)
        return self._images

    @cached_property
    def _listed(self) -> list[Question]:
        rows = official.load_questions(self.questions_file)
        asked: dict[int, list[ListedQuestion]] = {}
        for row in rows:
            asked.setdefault(row.image_id, []).append(row)
        numbers = {id(row): number for same in asked.values() for number, row in enumerate(same, start=1)}
        return [
            Question(
                row.text,
                self.questions_file,
                _response_row(row.image_id, row.text),
                _picture(self.questions_file, row.offset),
                f", question {place}",
                _key(row.image_id, row.text, len(asked[row.image_id])),
                _item(row.image_id, numbers[id(row)]),
            )
            for place, row in enumerate(rows, start=1)
        ]

    @cached_property
    def known(self) -> dict[Hashable, Question]:
        """Key -> question, the questions about one image side by side."""
        by_image: dict[int, list[Question]] = {}
        for question in self._listed:
            by_image.setdefault(question.item.image_id, []).append(question)
        return {question.key: question for same in by_image.values() for question in same}

    def units(self, task: str) -> list[list[Question]]:
        """The questions, each a unit; their pictures stay in the file."""
        return [[question] for question in self._listed]

    def keys(self, rows: Sequence[Row], source: str) -> list[Hashable]:
        """The key of each row {image_id, question or prompt, text or answer}."""
        count = Counter(question.item.image_id for question in self._listed)
        return [
            _key(answer.image_id, answer.question, count[answer.image_id])
            for answer in official.read_answers(rows, source)
        ]

    def find(self, rows: Sequence[Row], source: str, allow_partial: bool) -> list[Question | Hashable]:
        """The question of each row; without questions.jsonl, the question that the row itself names."""
        if allow_partial and not self.questions_file.exists():
            answers = official.read_answers(rows, source)
            return list(self._unlisted((answer.image_id, answer.question) for answer in answers))
        return super().find(rows, source, allow_partial)

    def _unlisted(self, asked: Iterable[tuple[int, str]]) -> Iterable[Question]:
        """The questions that the rows themselves name."""
        seen: dict[int, int] = {}
        for image_id, text in asked:
            number = seen[image_id] = seen.get(image_id, 0) + 1
            item = _item(image_id, number)
            yield Question(text, self.questions_file, _response_row(image_id, text), key=item.sample_id, item=item)

    def expected(self, given: Collection[Question | Hashable]) -> list[Question]:
        """Every question; without questions.jsonl, those that are given."""
        if not self.questions_file.exists():
            return [question for question in given if isinstance(question, Question)]
        return super().expected(given)

    @cached_property
    def _pictures(self) -> dict[str, Question]:
        return {str(question.item.image_id): question for question in self._listed}

    def picture(self, name: str) -> bytes:
        """The image of an image id."""
        question = self._pictures.get(name) if self.questions_file.is_file() else None
        if question is None or question.picture is None:
            raise FileNotFoundError(f"{self.questions_file}, image {name}")
        return question.picture()


def _item(image_id: int, number: int) -> HalbenchItem:
    return HalbenchItem(str(image_id) if number == 1 else f"{image_id}/{number}", image_id)


def _key(image_id: int, text: str, questions: int) -> Hashable:
    return (image_id, text) if questions > 1 else image_id


def _response_row(image_id: int, question: str) -> Callable[[str], Row]:
    return lambda text: {"image_id": image_id, "question": question, "text": text}


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
