"""The questions of a run, read once: what is asked, rehearsed and scored."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.benchmark import Benchmark, Task
from napo_bench.benchmarks.question import BenchmarkData, Question
from napo_bench.core.encoded import EncodedImage
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.files import is_whole
from napo_bench.core.images import open_rgb
from napo_bench.engines.request import Generation, Picture, Request


@dataclass(frozen=True)
class TaskQuestions:
    """The questions that a run asks of one task.

    Attributes:
        benchmark: The benchmark that the task is a part of.
        data: The benchmark's data, which the questions are from.
        questions: The questions, in the benchmark's order.
        settings: The generation settings, as the run names them.
        name: Name of the task.
    """

    benchmark: Benchmark
    data: BenchmarkData
    questions: Sequence[Question]
    settings: dict[str, Any]
    name: str

    @classmethod
    def read(
        cls, benchmark: Benchmark, data: BenchmarkData, task: Task, profile: str, limit: int | None
    ) -> TaskQuestions:
        """Read the questions of a task.

        Args:
            benchmark: The benchmark that the task is a part of.
            data: The benchmark's data.
            task: The task.
            profile: Name of a generation profile.
            limit: Only the first units; None is all of them.

        Raises:
            NapoBenchError: data is missing or malformed, or an image is missing.
        """
        questions = [question for unit in data.units(task.name)[:limit] for question in unit]
        read = cls(benchmark, data, questions, task.generation(profile), task.name)
        read._require_pictures()
        return read

    @property
    def most_pictures(self) -> int:
        """The largest number of images of a question."""
        return max((1 + len(question.further) for question in self.questions), default=0)

    def requests(self, limit: int | None = None) -> list[Request]:
        """The first questions as requests to a model; None is all questions.

        Raises:
            NapoBenchError: a question marks the places of another number of images than it has.
        """
        generation = Generation.of(self.settings)
        return [
            Request(
                question.prompt,
                _picture((question.file, question.place), question.read_picture),
                generation,
                tuple(_picture((file, ""), partial(question.read_further, file=file)) for file in question.further),
            )
            for question in self.questions[:limit]
        ]

    def _require_pictures(self) -> None:
        self.data.require_inside(self.questions)
        wanted = {file: None for question in self.questions for file in question.files}
        missing = [path for path in wanted if not is_whole(path)]
        if missing:
            name = self.benchmark.name
            raise NapoBenchError(
                f"{len(missing)} of {len(wanted)} pictures of {name} are missing or Git LFS pointers; the first is "
                f"{missing[0]}.",
                f"napo-bench data fetch {name}",
            )


def _picture(name: Hashable, read: Callable[[Callable[[bytes | Path], Any]], Any]) -> Picture:
    """A picture of a question, in pixels and as it is sent.

    Args:
        name: Name of the picture.
        read: `Question.read_picture`, or `Question.read_further` of a file.
    """
    return Picture(name, partial(read, open_rgb), partial(read, EncodedImage.read))
