"""MMHal-Bench's data: its questions, and the judge's template."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
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
    def known(self) -> dict[Hashable, Question]:
        """Image id and prompt -> question."""
        return {
            item.key: Question(item.question, item.image, _response_row(item), key=item.key, item=item)
            for item in self.items
        }

    def keys(self, rows: Sequence[Row], source: str) -> list[Hashable]:
        """The key of each row of the template, or of each sample of a run."""
        return [answer.key for answer in read_answers(rows, source)]


def _response_row(item: Item) -> Callable[[str], Row]:
    # RLHF-V, RLAIF-V and NaPO fill the template in this way.
    return lambda text: {**item.row, "model_answer": text.replace("Assistant:", "").strip()}
