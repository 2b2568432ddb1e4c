"""The parquet files of preference rows: where they are, and whether they have the needed columns."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from napo_bench.core import digests, files, hub
from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.negatives import BIASED, column_of
from napo_bench.trainers.published import hub_revision

FETCH_AGAIN = "Fetch it again."
IMAGE = "image"
"""Name of the column of images."""


@dataclass(frozen=True)
class DataFiles:
    """The parquet files of a data set, in the order of its rows.

    Attributes:
        name: Path of the data set, or its name on the hub.
        paths: The files.
        ends: Number of rows up to the end of each file.
        schema: The columns that all files with rows have, each with a type that every file's column can be cast to.
        uncommon: Names of the other columns.
    """

    name: str
    paths: tuple[Path, ...]
    ends: tuple[int, ...]
    schema: pa.Schema
    uncommon: tuple[str, ...] = ()

    @property
    def with_rows(self) -> list[Path]:
        """The files that have rows."""
        counts = zip(self.paths, itertools.pairwise((0, *self.ends)), strict=True)
        return [path for path, (before, end) in counts if end > before]

    def folder(self, position: int) -> Path:
        """The folder at which image paths of the row start: the folder of the row's own file."""
        return self.paths[bisect.bisect_right(self.ends, position)].parent

    def place(self, position: int) -> str:
        """File, and number of the row in the file from 1, for messages."""
        file = bisect.bisect_right(self.ends, position)
        return f"{self.paths[file]}, row {position + 1 - (self.ends[file - 1] if file else 0)}"

    def fingerprint(self, named: Iterable[tuple[int, str]]) -> str:
        """SHA-256, in hex, over the contents of the files, and of the images that the rows name by path.

        Args:
            named: Position and path of each image that a row names by path.

        Raises:
            NapoBenchError: a path leads out of the folder of its file.
        """
        digest = hashlib.sha256("".join(digests.sha256(self.paths)).encode())
        images = dict.fromkeys(
            files.inside(self.folder(position), path, self.place(position)) for position, path in named
        )
        if not images:
            return digest.hexdigest()
        there = [path for path in images if path.is_file()]
        contents = dict(zip(there, digests.sha256(there), strict=True))
        found = [contents.get(path, "") for path in images]
        return hashlib.sha256(f"{digest.hexdigest()}{''.join(found)}".encode()).hexdigest()


def open_files(data: str | Path, needed: Iterable[str]) -> DataFiles:
    """The files of a data set, without a look at their rows.

    Args:
        data: A parquet file, a folder of them, or a data set on the Hugging Face hub: `name`, or `name@revision`.
        needed: Columns that must exist; all except `image` must be text.

    Raises:
        NapoBenchError: the data does not exist or has no rows, a file is no parquet, a column is missing or of another
            type, or a row has several images.
    """
    wanted = set(needed)
    paths = parquet_files(data)
    counts, schemas = [], []
    for path in paths:
        metadata, schema = _metadata(path)
        if missing := sorted(wanted - set(schema.names)):
            raise NapoBenchError(f"{path} lacks the columns {', '.join(missing)}.", _missing_hint(missing, data))
        counts.append(metadata.num_rows)
        if metadata.num_rows:
            schemas.append((path, schema))
    if not schemas:
        raise NapoBenchError(f"{data} has no rows.")
    schema = pa.schema([field for name in schemas[0][1].names if (field := _common(name, schemas, wanted)) is not None])
    for name in sorted(wanted - {IMAGE}):
        stored = schema.field(name).type
        if not (pa.types.is_string(stored) or pa.types.is_large_string(stored)):
            raise NapoBenchError(f"{data}: the column {name} is {stored}; text is expected.")
    stored = schema.field(IMAGE).type
    if pa.types.is_nested(stored) and not pa.types.is_struct(stored):
        raise NapoBenchError(
            f"{data}: the column image is {stored}; one image a row is expected. Training takes one image a prompt.",
            "Write one row for each image, or leave out the rows with several images. `eval` takes several images.",
        )
    others = dict.fromkeys(name for _, one in schemas for name in one.names if name not in schema.names)
    name = str(Path(data).expanduser().resolve()) if Path(data).expanduser().exists() else str(data)
    return DataFiles(name, tuple(paths), tuple(itertools.accumulate(counts)), schema, tuple(others))


def lacks_negatives(data: str | Path, negatives: Iterable[str]) -> bool:
    """Whether the rows have no column for one of these negatives.

    Args:
        data: See `open_files`.
        negatives: Names in `NEGATIVES`.

    Raises:
        NapoBenchError: the data does not exist or is no parquet.
    """
    _, schema = _metadata(parquet_files(data)[0])
    return any(column_of(name) not in schema.names for name in negatives)


def parquet_files(data: str | Path) -> list[Path]:
    """The parquet files of a data set, see `open_files`. A data set on the hub is fetched.

    Raises:
        NapoBenchError: there is none.
    """
    path = Path(data).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        path = _fetched(str(data))
    found = sorted(path.rglob("*.parquet"))
    if not found:
        raise NapoBenchError(f"{data} holds no .parquet file.", "Give the parquet file of the rows, or its folder.")
    return found


def _metadata(path: Path) -> tuple[Any, pa.Schema]:
    try:
        metadata = parquet.read_metadata(path)
        return metadata, metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        files.refuse_lfs_pointer(path)
        raise NapoBenchError(
            f"{path} is not a parquet file, or it is cut off: {str(error).rstrip('.')}.", FETCH_AGAIN
        ) from None


def _common(name: str, schemas: Sequence[tuple[Path, pa.Schema]], needed: set[str]) -> pa.Field | None:
    """A column with a type that every file's column can be cast to; None if a file lacks it, or if there is none."""
    fields = [schema.field(name) for _, schema in schemas if name in schema.names]
    if len(fields) < len(schemas):
        return None
    bare = [field.remove_metadata() for field in fields]
    try:
        return pa.unify_schemas([pa.schema([field]) for field in bare], promote_options="permissive").field(0)
    except pa.ArrowException:
        if name not in needed:
            return None
    types = {str(field.type): path for field, (path, _) in zip(reversed(bare), reversed(schemas), strict=True)}
    held = ", and ".join(f"{kind} in {path}" for kind, path in types.items())
    raise NapoBenchError(f"The column {name} has several types: {held}.", "Write the files again with one type.")


def _fetched(data: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if data.startswith((".", "/", "~")) or data.count("/") != 1 or data.endswith(".parquet"):
        raise NapoBenchError(f"{data} does not exist.", "Give a parquet file of preference rows, or its folder.")
    name, revision = hub_revision(data)
    try:
        fetched = snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"])
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        page = f"https://huggingface.co/datasets/{name}"
        raise hub.not_fetched(page, error, f"{data} is no folder here, and {page}") from None
    return Path(fetched)


def _missing_hint(missing: Sequence[str], data: str | Path) -> str:
    if set(missing) <= {negative.column for negative in BIASED.values()}:
        return (
            "These are the biased negatives, which the base model writes: "
            f"napo-bench data build-bias --ckpt BASE --data {data} --out DIR, then --data DIR. "
            f"A recipe without them ({', '.join(f'loss_{name}: none' for name in BIASED)}) needs none."
        )
    return "RLAIF-V's columns are: question, image, chosen, rejected, idx."
