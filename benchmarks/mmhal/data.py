"""MMHal-Bench's data: its questions, and the judge's template."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from functools import cached_property

from napo_bench.benchmarks.mmhal.official import Item, load_items, load_judge_template, read_answers
from napo_bench.benchmarks.question import BenchmarkData, Question, Row


class Mmhal(BenchmarkData):
    """MMHal-Bench's data; a sampling unit is a question."""

    noun = "question"

    @cached_property
    def judge_template(self) -> str:
        """The judge's prompt with its four `{}`."""
        return load_judge_template(self.folder)

    @cached_property
    def items(self) -> list[Item]:
        """The rows of the template."""
        return load_items(self.folder)

    @cached_property
    def _questions(self) -> dict[Hashable, Question]:
        return {
            item.key: Question(item.question, item.image, _response_row(item), key=item.key, item=item)
            for item in self.items
        }

    def units(self, task: str) -> list[list[Question]]:
        """The questions, each a unit."""
        return [[question] for question in self._questions.values()]

    def find(self, rows: Sequence[Row], source: str, allow_partial: bool) -> list[Question | Hashable]:
        """The question of each row of the template, or of each sample of a run."""
        keys = [answer.key for answer in read_answers(rows, source)]
        return [self._questions.get(key, key) for key in keys]

    def expected(self, given: Collection[Question | Hashable]) -> list[Question]:
        """Every question."""
        return list(self._questions.values())


def _response_row(item: Item) -> Callable[[str], Row]:
    return lambda text: {**item.row, "model_answer": text}
