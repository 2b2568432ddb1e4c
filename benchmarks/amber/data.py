"""AMBER's data: its two halves as questions, and what their answers are scored by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from napo_bench.benchmarks.amber import official
from napo_bench.benchmarks.amber.official import GENERATIVE, QUERY_FILES, AmberData, Annotation, Query
from napo_bench.benchmarks.question import BenchmarkData, Question, Row

_HALVES = {"amber": QUERY_FILES[0], "amber_discriminative": QUERY_FILES[1]}
"""Task -> the file of its queries."""


@dataclass(frozen=True)
class AmberItem:
    """What an answer is scored by.

    Attributes:
        annotation: The truth.
        query: What is asked; None if the data folder has no queries.
    """

    annotation: Annotation
    query: Query | None


class Amber(BenchmarkData):
    """AMBER's data. Responses can be scored without the files of queries."""

    @cached_property
    def truth(self) -> AmberData:
        """The annotations, the associated words and the safe words."""
        return official.load_data(self.folder)

    @cached_property
    def _queries(self) -> dict[str, list[Query]]:
        return {
            task: official.load_queries(self.folder / name)
            for task, name in _HALVES.items()
            if (self.folder / name).exists()
        }

    @cached_property
    def known(self) -> dict[Hashable, Question]:
        """Id -> question, of both halves."""
        queries = {query.id: query for half in self._queries.values() for query in half}
        return {
            annotation.id: self._question(annotation, queries.get(annotation.id))
            for annotation in self.truth.annotations
        }

    def _question(self, annotation: Annotation, query: Query | None) -> Question:
        return Question(
            query.text if query else "",
            self.folder / "images" / (query.image if query else ""),
            _response_row(annotation.id),
            key=annotation.id,
            item=AmberItem(annotation, query),
        )

    def units(self, task: str) -> list[list[Question]]:
        """One question a unit: a description of each picture, or the yes/no questions."""
        if task not in self._queries:
            official.load_queries(self.folder / _HALVES[task])  # raises: there is no such file
        return [
            [
                self.known.get(query.id)
                or Question(query.text, self.folder / "images" / query.image, _response_row(query.id), key=query.id)
            ]
            for query in self._queries[task]
        ]

    def keys(self, rows: Sequence[Row], source: str) -> list[Hashable]:
        """The id of each row {id, response}."""
        return [response.id for response in official.read_responses(rows, source)]

    def expected(self, given: Collection[Question | Hashable]) -> list[Question]:
        """The questions of the halves that `given` touches; all questions if it touches none."""
        halves = [
            [question for question in self.known.values() if (_type_of(question) == GENERATIVE) is generative]
            for generative in (True, False)
        ]
        there = set(given)
        touched = [half for half in halves if not there.isdisjoint(half)]
        return [question for half in touched or halves for question in half]

    def picture(self, name: str) -> bytes:
        """The image of a name in `images/`."""
        return self.read_inside(Path("images", name))


def _type_of(question: Question) -> str:
    item: AmberItem = question.item
    return item.annotation.type


def _response_row(number: int) -> Callable[[str], Row]:
    return lambda text: {"id": number, "response": text}
