"""VLind-Bench's data: instances, and the questions of each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from napo_bench.benchmarks.question import BenchmarkData, Question, Row
from napo_bench.benchmarks.vlind.instance import BEST_IMG_ID, MOST_VOTES, RULES, Instance, Picture
from napo_bench.benchmarks.vlind.official import AnswerKey, load_instances, read_answers
from napo_bench.benchmarks.vlind.prompts import Statement, statements
from napo_bench.core import files

_RULES = {"paper": MOST_VOTES}
"""Generation profile -> how the image of VP and CB is chosen, if not as VLind-Bench chooses it."""


class Vlind(BenchmarkData):
    """VLind-Bench's data; a sampling unit is an instance.

    Args:
        folder: The benchmark's folder.
        rule: How the image of VP and CB is chosen when a model is asked, of `instance.RULES`.
    """

    noun = "answer"

    def __init__(self, folder: Path, rule: str = BEST_IMG_ID) -> None:
        super().__init__(folder)
        self._rule = rule

    def under(self, profile: str) -> Self:
        """See BenchmarkData: NaPO's script chooses the image of VP and CB by votes."""
        return type(self)(self.folder, _RULES.get(profile, BEST_IMG_ID))

    @cached_property
    def _read(self) -> list[tuple[Instance, dict[Hashable, Question]]]:
        """Each instance with its questions under every rule."""
        return [
            (instance, {asked.key: _question(asked) for rule in RULES for asked in statements(instance, rule)})
            for instance in load_instances(self.folder)
        ]

    def instances(self, rule: str) -> list[tuple[Instance, list[Question]]]:
        """Each instance with its questions under a rule, in the order CK, VP, CB, LP."""
        return [
            (instance, [questions[asked.key] for asked in statements(instance, rule)])
            for instance, questions in self._read
        ]

    def rule_of(self, given: Iterable[Question | Hashable]) -> str:
        """The rule that asks the most of some questions; of two such rules, the rule of this data."""
        keys = {question.key for question in given if isinstance(question, Question)}
        rules = sorted(RULES, key=lambda rule: rule != self._rule)
        return max(rules, key=lambda rule: len(keys.intersection(question.key for question in self._asked(rule))))

    def _asked(self, rule: str) -> list[Question]:
        return [question for _, questions in self.instances(rule) for question in questions]

    @cached_property
    def known(self) -> dict[Hashable, Question]:
        """Concept, context, test, statement and image -> question, under every rule."""
        return {key: question for _, questions in self._read for key, question in questions.items()}

    def units(self, task: str) -> list[list[Question]]:
        """The questions of each instance."""
        return [questions for _, questions in self.instances(self._rule)]

    def expected(self, given: Collection[Question | Hashable]) -> list[Question]:
        """Every question under the rule of the given questions."""
        return self._asked(self.rule_of(given))

    def keys(self, rows: Sequence[Row], source: str) -> list[Hashable]:
        """The key of each row {context_id, concept, test, statement, image_id, text}."""
        return [answer.key for answer in read_answers(rows, source)]

    def picture(self, name: str) -> bytes:
        """The image of a name as `Picture.name` gives it."""
        file, _, row = name.rpartition("#")
        if file.endswith(".parquet") and row.isdecimal():
            path = files.inside(self.folder, self.folder.parent.absolute() / file)
            return Picture(path, int(row)).read()
        return super().picture(name)


def _question(asked: Statement) -> Question:
    picture = asked.picture
    return Question(asked.prompt, picture.path, _response_row(asked.key), picture.read, key=asked.key, item=asked)


def _response_row(key: AnswerKey) -> Callable[[str], Row]:
    return lambda text: {**key._asdict(), "text": text}
