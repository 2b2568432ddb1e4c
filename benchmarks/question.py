"""What a benchmark puts to a model, from the data file to the score: questions, their data, their answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

if TYPE_CHECKING:
    from PIL import Image

Read = TypeVar("Read")
Row = dict[str, Any]
"""One response in the benchmark's official format."""


@dataclass(frozen=True, eq=False)
class Question:
    """One question about an image, or about several. Each question is one object, from the data file to the score.

    Attributes:
        prompt: Prompt of the question. If there are several images, `napo_bench.core.images.PLACE` may mark the place
            of each image; without marks the images come first.
        file: File of the image, or file that contains the image.
        response_row: Function from an answer to its row in the benchmark's official response format.
        picture: Reads the encoded picture; None if `file` is the picture.
        place: Where in the file the picture is, for messages: ", line 3".
        key: What names the question in a file of responses.
        item: The benchmark's own data of the question, which its answer is scored by.
        further: Files of the images after the first.
    """

    prompt: str
    file: Path
    response_row: Callable[[str], Row]
    picture: Callable[[], bytes] | None = None
    place: str = ""
    key: Hashable = None
    item: Any = None
    further: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all images."""
        return self.file, *self.further

    def open_picture(self) -> Image.Image:
        """The image in RGB. Raises NapoBenchError if the image cannot be decoded."""
        from napo_bench.core.images import open_rgb

        return self.read_picture(open_rgb)

    def read_picture(self, read: Callable[[bytes | Path], Read]) -> Read:
        """What `read`, a function of a file or of its bytes, makes of the image.

        Raises:
            NapoBenchError: the image cannot be decoded.
        """
        return _read(read, self.picture() if self.picture else self.file, f"{self.file}{self.place}")

    def read_further(self, read: Callable[[bytes | Path], Read], file: Path) -> Read:
        """What `read` makes of one of the images after the first. Raises NapoBenchError as `read_picture`."""
        return _read(read, file, str(file))


def _read(read: Callable[[bytes | Path], Read], source: bytes | Path, where: str) -> Read:
    from napo_bench.core.images import UnreadableImageError

    try:
        return read(source)
    except UnreadableImageError as error:
        raise NapoBenchError(
            f"{where}: the image cannot be decoded: {error}.", "Fetch or copy the file again."
        ) from None


@dataclass(frozen=True)
class Answer:
    """A question and what a model answered.

    Attributes:
        question: The question.
        text: The answer, without thoughts.
        row: The response row.
    """

    question: Question
    text: str
    row: Row


@dataclass(frozen=True)
class Answers:
    """The answers to score, in the benchmark's order.

    Attributes:
        answers: Each question with an answer, once.
        notes: One line for each kind of difference between the answers and the benchmark's questions.
        unanswered: {"sample_id", "reason"} of each question that has a row without an answer.
    """

    answers: list[Answer]
    notes: list[str] = field(default_factory=list)
    unanswered: list[dict[str, str]] = field(default_factory=list)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.answers)

    @property
    def texts(self) -> list[str]:
        """The texts of the answers."""
        return [answer.text for answer in self.answers]

    @property
    def is_complete(self) -> bool:
        """Whether every question of the benchmark has an answer."""
        return not self.notes


class BenchmarkData(ABC):
    """The data of a benchmark in its folder. Every file is read once, when it is first needed.

    A subclass says which questions there are (`known`) and how a response names its question (`keys`). It overrides
    the other methods if the benchmark has several tasks, sampling units of several questions, or images in other
    places.

    Attributes:
        folder: The benchmark's folder in the data folder.
        noun: What the key of a question is called in messages.
    """

    noun = "id"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    @abstractmethod
    def known(self) -> Mapping[Hashable, Question]:
        """Key -> question, of every task, in the order of the score. Read once: a `functools.cached_property`.

        Raises:
            NapoBenchError: data is missing or malformed. The error names file, row and field.
        """

    @abstractmethod
    def keys(self, rows: Sequence[Row], source: str) -> list[Hashable]:
        """The key that each response row of a file names.

        Raises:
            NapoBenchError: a field of a row is missing or of another type; names `source`, row and field.
        """

    def under(self, profile: str) -> Self:
        """The data as a generation profile asks it; by default the same data for every profile."""
        return self

    def units(self, task: str) -> list[list[Question]]:
        """The questions of each sampling unit of a task; by default each question is a unit.

        Raises:
            NapoBenchError: data is missing or malformed. The error names file, row and field.
        """
        return [[question] for question in self.known.values()]

    def find(self, rows: Sequence[Row], source: str, allow_partial: bool) -> list[Question | Hashable]:
        """The question of each response row of a file; its key if the benchmark has no such question."""
        return [self.known.get(key, key) for key in self.keys(rows, source)]

    def expected(self, given: Collection[Question | Hashable]) -> list[Question]:
        """The questions that a complete file with these answers has, in the order of the score; by default all."""
        return list(self.known.values())

    def require_inside(self, questions: Iterable[Question]) -> None:
        """Refuse an image outside the benchmark's folder, whatever the data calls it, before a model sees it.

        Raises:
            NapoBenchError: the file of a question is outside the folder, or a link there leads out of the folder.
        """
        for file in dict.fromkeys(file for question in questions for file in question.files):
            files.inside(self.folder, file.absolute())

    def picture(self, name: str) -> bytes:
        """The encoded image that a sample names; by default the file of that path in the data folder.

        Raises:
            NapoBenchError: the name leads out of the benchmark's folder, or there is no such file.
        """
        return self.read_inside(self.folder.parent.absolute() / name)

    def read_inside(self, name: str | Path) -> bytes:
        """The content of a file of the benchmark's folder. Raises NapoBenchError for any other name."""
        return files.require_file(files.inside(self.folder, name)).read_bytes()
