"""VLind-Bench as one row an image, in parquet or in JSON lines.

A row needs the image's id and the votes of its instance. The hub's `MM-Hallu/VLind-Bench` has neither, so its best
image and its good images are unknown. Such files are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from napo_bench.benchmarks.vlind.instance import (
    FETCH_HINT,
    VOTES,
    Instance,
    Picture,
    identity,
    image_id,
    make_instance,
    read_votes,
)
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError


class MirrorRow(NamedTuple):
    """One image with the fields of its instance; `where` names the row in messages."""

    fields: dict[str, Any]
    where: str
    picture: Picture


def read_parquet(paths: Iterable[Path]) -> list[MirrorRow]:
    """The rows of the mirror's parquet files. Images stay on disk. Raises NapoBenchError if a file cannot be read."""
    import pyarrow
    import pyarrow.parquet

    rows = []
    for path in paths:
        try:
            with pyarrow.parquet.ParquetFile(path) as file:
                names = file.schema_arrow.names
                table = file.read(columns=[name for name in names if name != "image"])
        except (pyarrow.ArrowException, OSError) as error:
            raise NapoBenchError(f"{path} is no readable parquet file: {error}", FETCH_HINT) from None
        if "image" not in names:
            raise NapoBenchError(f"{path}: the column 'image' is missing (columns: {', '.join(names)}).", FETCH_HINT)
        rows += [
            MirrorRow(fields, f"{path}, row {number + 1}", Picture(path, number))
            for number, fields in enumerate(table.to_pylist())
        ]
    return rows


def read_jsonl(paths: Iterable[Path]) -> list[MirrorRow]:
    """The rows of the mirror as JSON lines; `image` is a path relative to the file."""
    rows = []
    for path in paths:
        for number, fields in enumerate(files.read_jsonl(path, FETCH_HINT), start=1):
            where = f"{path}, row {number}"
            rows.append(MirrorRow(fields, where, Picture(path.parent / files.field(fields, "image", str, where))))
    return rows


def instances(rows: Iterable[MirrorRow]) -> list[Instance]:
    """The instances of the mirror's rows. An instance without a factual image or without a good image is left out.

    Raises:
        NapoBenchError: a row is malformed. The error names file, row and field.
    """
    factual: dict[tuple[str, str], Picture] = {}
    counterfactual: dict[tuple[str, str], list[MirrorRow]] = {}
    for row in rows:
        kind = files.field(row.fields, "image_type", str, row.where)
        if kind == "factual":
            factual[identity(row.fields, row.where)] = row.picture
        elif kind == "counterfactual":
            counterfactual.setdefault(identity(row.fields, row.where), []).append(row)
        else:
            raise NapoBenchError(
                f"{row.where}: the field 'image_type' is {kind!r}; 'factual' or 'counterfactual' is expected."
            )
    made = (_instance(shown, factual[key]) for key, shown in counterfactual.items() if key in factual)
    return [instance for instance in made if instance is not None]


def _instance(shown: Sequence[MirrorRow], factual: Picture) -> Instance | None:
    fields, where, _ = shown[0]
    ids = [_image_id(row) for row in shown]
    if len(set(ids)) < len(ids):
        raise NapoBenchError(f"{where}: the instance has two images of the same image_id ({', '.join(ids)}).")
    pictures = {image: row.picture for image, row in zip(ids, shown, strict=True)}
    return make_instance(fields, where, read_votes(fields, where), factual, pictures)


def _image_id(row: MirrorRow) -> str:
    found = image_id(row.fields, "image_id")
    if found is None or not row.fields.get(VOTES):
        raise NapoBenchError(
            f"{row.where}: without the fields 'image_id' and {VOTES!r}, the images of VP, CB and LP cannot be known.",
            "The hub's MM-Hallu/VLind-Bench lacks both. The authors' data has them: napo-bench data fetch vlind",
        )
    return found
