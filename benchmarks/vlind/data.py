"""VLind-Bench's data: instances, and the questions of each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cached_property

from napo_bench.benchmarks.question import BenchmarkData, Question, Row, file_in
from napo_bench.benchmarks.vlind.instance import Instance, Picture
from napo_bench.benchmarks.vlind.official import AnswerKey, load_instances, read_answers
from napo_bench.benchmarks.vlind.prompts import statements


class Vlind(BenchmarkData):
    """VLind-Bench's data; a sampling unit is an instance."""

    noun = "answer"

    @cached_property
    def instances(self) -> list[tuple[Instance, list[Question]]]:
        """Each instance with its questions, in the order CK, VP, CB, LP."""
        return [
            (
                instance,
                [
                    Question(
                        asked.prompt,
                        asked.picture.path,
                        _response_row(asked.key),
                        asked.picture.read,
                        key=asked.key,
                        item=asked,
                    )
                    for asked in statements(instance)
                ],
            )
            for instance in load_instances(self.folder)
        ]

    @cached_property
    def known(self) -> dict[Hashable, Question]:
        """Concept, context, test, statement and image -> question."""
        return {question.key: question for _, questions in self.instances for question in questions}

    def units(self, task: str) -> list[list[Question]]:
        """The questions of each instance."""
        return [questions for _, questions in self.instances]

    def keys(self, rows: Sequence[Row], source: str) -> list[Hashable]:
        """The key of each row {context_id, concept, test, statement, image_id, text}."""
        return [answer.key for answer in read_answers(rows, source)]

    def picture(self, name: str) -> bytes:
        """The image of a name as `Picture.name` gives it."""
        file, _, row = name.partition("#")
        return Picture(file_in(self.folder.parent, file), int(row) if row else None).read()


def _response_row(key: AnswerKey) -> Callable[[str], Row]:
    return lambda text: {**key._asdict(), "text": text}
