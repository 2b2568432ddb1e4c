"""AMBER's published files -> annotations and queries; its response format -> responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.amber.score import QUESTION_TYPES
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

FETCH_HINT = "Fetch it: napo-bench data fetch amber"
GENERATIVE = "generative"
QUERY_FILES = ("query_generative.json", "query_discriminative.json")


@dataclass(frozen=True)
class Annotation:
    """The truth of one item.

    Attributes:
        id: Position in annotations.json, from 1.
        type: "generative", or one of QUESTION_TYPES.
        truth: Words for the image's objects; for a question its answer, ("yes",) or ("no",).
        hallu: Words that models tend to hallucinate; empty for a question.
    """

    id: int
    type: str
    truth: tuple[str, ...]
    hallu: tuple[str, ...]


@dataclass(frozen=True)
class AmberData:
    """Annotations, associates (relation.json) and safe words, which the scores are computed from."""

    annotations: list[Annotation]
    associates: dict[str, list[str]]
    safe_words: frozenset[str]


@dataclass(frozen=True)
class Query:
    """One prompt for a model; `image` is the file's name in `images/`."""

    id: int
    image: str
    text: str


@dataclass(frozen=True)
class Response:
    """One answer of a model."""

    id: int
    text: str


def load_data(folder: Path) -> AmberData:
    """Read annotations.json, relation.json and safe_words.txt.

    Raises:
        NapoBenchError: a file is missing or malformed. The error names file, item and field.
    """
    associates = _associates(folder / "relation.json")
    return AmberData(
        annotations=_annotations(folder / "annotations.json", associates),
        associates=associates,
        safe_words=frozenset(files.read_text(folder / "safe_words.txt", FETCH_HINT).splitlines()),
    )


def load_queries(path: Path) -> list[Query]:
    """Read one of QUERY_FILES.

    Raises:
        NapoBenchError: the file is missing or malformed. The error names file, item and field.
    """
    return [
        Query(
            files.field(row, "id", int, f"{path}, item {number}"),
            files.field(row, "image", str, f"{path}, item {number}"),
            files.field(row, "query", str, f"{path}, item {number}"),
        )
        for number, row in enumerate(_list(path), start=1)
    ]


def read_responses(rows: Sequence[Mapping[str, Any]], source: str) -> list[Response]:
    """Response rows {id, response} -> responses.

    Raises:
        NapoBenchError: a field is missing or of another type. The error names row and field.
    """
    return [
        Response(
            files.field(row, "id", int, f"{source}, row {number}"),
            files.field(row, "response", str, f"{source}, row {number}"),
        )
        for number, row in enumerate(rows, start=1)
    ]


def _annotations(path: Path, associates: Mapping[str, Sequence[str]]) -> list[Annotation]:
    annotations = []
    for number, row in enumerate(_list(path), start=1):
        where = f"{path}, item {number}"
        if files.field(row, "id", int, where) != number:
            raise NapoBenchError(f"{where}: the field 'id' is {row['id']}; {number}, its position, is expected.")
        kind = files.field(row, "type", str, where)
        if kind == GENERATIVE:
            truth = _words(row, "truth", associates, where)
            hallu = _words(row, "hallu", associates, where)
        else:
            if kind not in QUESTION_TYPES:
                expected = ", ".join((GENERATIVE, *QUESTION_TYPES))
                raise NapoBenchError(f"{where}: the field 'type' is {kind!r}; one of {expected} is expected.")
            answer = files.field(row, "truth", str, where)
            if answer not in ("yes", "no"):
                raise NapoBenchError(f"{where}: the field 'truth' is {answer!r}; 'yes' or 'no' is expected.")
            truth, hallu = (answer,), ()
        annotations.append(Annotation(number, kind, truth, hallu))
    return annotations


def _words(row: Any, name: str, associates: Mapping[str, Sequence[str]], where: str) -> tuple[str, ...]:
    words = files.field(row, name, list, where)
    unknown = [word for word in words if not isinstance(word, str) or word not in associates]
    if unknown:
        raise NapoBenchError(f"{where}: {name} has {unknown[0]!r:.80}, which is no key of relation.json.")
    return tuple(words)


def _associates(path: Path) -> dict[str, list[str]]:
    relation = files.read_json(path, FETCH_HINT)
    if not isinstance(relation, dict):
        raise NapoBenchError(f"{path}: an object is expected, {type(relation).__name__} found.", FETCH_HINT)
    for word, associates in relation.items():
        if not isinstance(associates, list) or not all(isinstance(other, str) for other in associates):
            raise NapoBenchError(
                f"{path}: the associates of {word!r} are {associates!r:.80}; a list of words is expected."
            )
    return relation


def _list(path: Path) -> list[Any]:
    rows = files.read_json(path, FETCH_HINT)
    if not isinstance(rows, list):
        raise NapoBenchError(f"{path}: a list is expected, {type(rows).__name__} found.", FETCH_HINT)
    return rows
