"""VLind-Bench's published layouts -> instances; response rows -> answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from napo_bench.benchmarks.vlind import mirror
from napo_bench.benchmarks.vlind.instance import (
    FETCH_HINT,
    Instance,
    Picture,
    identity,
    image_id,
    make_instance,
    read_votes,
)
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

TESTS = ("ck", "vp", "cb", "lp")
FACTUAL_IMAGE = "0"


class AnswerKey(NamedTuple):
    """The key of an answer's question; `statement` 1 must be True, and 2 False."""

    concept: str
    context_id: str
    test: str
    statement: int
    image_id: str


class Answer(NamedTuple):
    """One answer of a model."""

    key: AnswerKey
    text: str


def load_instances(folder: Path) -> list[Instance]:
    """The instances of a VLind-Bench folder. Instances without an image of two votes are left out.

    Args:
        folder: Folder with `data.json` and `images/`, or with `*.parquet` or `*.jsonl` of one row an image.

    Raises:
        NapoBenchError: the folder has neither layout, or a row is malformed. The error names file, row and field.
    """
    sources = data_files(folder)
    if not sources:
        raise NapoBenchError(
            f"{folder} holds no VLind-Bench: neither data.json nor *.parquet or *.jsonl of one row an image.",
            FETCH_HINT,
        )
    if sources[0].name == "data.json":
        instances = _from_data_json(sources[0])
    else:
        read = mirror.read_parquet if sources[0].suffix == ".parquet" else mirror.read_jsonl
        instances = mirror.instances(read(sources))
    if not instances:
        raise NapoBenchError(f"{sources[0]}: no instance has an image with two votes.", FETCH_HINT)
    return instances


def data_files(folder: Path) -> list[Path]:
    """The files that the instances are read from: data.json, else parquet files, else JSON lines."""
    if (folder / "data.json").exists():
        return [folder / "data.json"]
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("*.jsonl"))


def read_answers(rows: Sequence[Mapping[str, Any]], source: str) -> list[Answer]:
    """Response rows {context_id, concept, test, statement, image_id, text} -> answers.

    Args:
        rows: Response rows, with ids as numbers or texts, or the samples of a run, which contain such rows as
            `responses`.
        source: Source of the rows, for messages.

    Raises:
        NapoBenchError: a field is missing or has an invalid value. The error names row and field.
    """
    answers = []
    single = [single for row in rows for single in row.get("responses", [row])]
    for number, row in enumerate(single, start=1):
        where = f"{source}, row {number}"
        test = files.field(row, "test", str, where)
        if test not in TESTS:
            raise NapoBenchError(f"{where}: the field 'test' is {test!r}; one of {', '.join(TESTS)} is expected.")
        statement = files.field(row, "statement", int, where)
        if statement not in (1, 2):
            raise NapoBenchError(f"{where}: the field 'statement' is {statement}; 1 (True) or 2 (False) is expected.")
        # An instance has one factual image, whatever its id in a response file.
        image = FACTUAL_IMAGE if test == "ck" else str(files.field(row, "image_id", (str, int), where))
        key = AnswerKey(*identity(row, where), test, statement, image)
        answers.append(Answer(key, files.field(row, "text", str, where)))
    return answers


def _from_data_json(path: Path) -> list[Instance]:
    rows = files.read_json(path, FETCH_HINT)
    if not isinstance(rows, list):
        raise NapoBenchError(f"{path}: a list of instances is expected, {type(rows).__name__} found.", FETCH_HINT)
    instances: dict[tuple[str, str], Instance] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{path}, instance {number}"
        concept, context_id = key = identity(row, where)
        if key in instances:
            raise NapoBenchError(f"{where}: context_id {context_id!r} of the concept {concept!r} is there twice.")
        votes = read_votes(row, where)
        images = path.parent / "images"
        factual = images / "factual" / concept / f"{context_id}_{row.get('factual_context')}"
        counterfactual = images / "counterfactual" / concept / f"{context_id}_{row.get('context')}"
        ids = {*votes, image_id(row, "best_img_id")} - {None}
        pictures = {str(image): Picture(counterfactual / f"{image}.jpg") for image in ids}
        instance = make_instance(row, where, votes, Picture(factual / f"{FACTUAL_IMAGE}.jpg"), pictures)
        if instance is not None:
            instances[key] = instance
    return list(instances.values())
