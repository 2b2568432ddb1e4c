"""One instance of VLind-Bench and its pictures, whichever layout they come from."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.vlind.score import best_image, good_images
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError

FETCH_HINT = "Fetch it with `napo-bench data fetch vlind`."
VOTES = "aggregated_human_label_good_images"

_TEXTS = ("context", "factual_context", "true_statement", "false_statement", "existent_noun")
_NOUN_SPELLINGS = ("non-existent_noun", "non_existent_noun")


@dataclass(frozen=True)
class Picture:
    """One picture of the benchmark, read when it is needed.

    Attributes:
        path: The picture's file, or the parquet file that holds it.
        row: Its row in the parquet file, None where it has a file of its own.
    """

    path: Path
    row: int | None = None

    def name(self, data_dir: Path) -> str:
        """What the picture is called in results: its path in the data dir, with `#row` in a parquet file."""
        return str(self.path.relative_to(data_dir)) + ("" if self.row is None else f"#{self.row}")

    def read(self) -> bytes:
        """The encoded picture. Raises NapoBenchError where it is not there."""
        if self.row is None:
            return files.require_file(self.path, FETCH_HINT).read_bytes()
        return _parquet_picture(self.path, self.row)


@dataclass(frozen=True)
class Instance:
    """One instance with at least one good picture. Its statements are named from the counterfactual's point of view.

    Attributes:
        concept: What it is about: climate, color, ...
        context_id: Unique within its concept.
        context: The counterfactual world, in words.
        factual_context: The real world, in words.
        true_statement: True of the counterfactual world, false of the real one.
        false_statement: The other way round.
        existent_noun: Something that the best counterfactual picture shows.
        non_existent_noun: Something that it does not show.
        best_image: Id of the picture of the tests VP and CB.
        good_images: Ids of the pictures of the test LP.
        factual: The picture of the test CK.
        counterfactual: Id -> picture, for the best and the good ones.
    """

    concept: str
    context_id: str
    context: str
    factual_context: str
    true_statement: str
    false_statement: str
    existent_noun: str
    non_existent_noun: str
    best_image: str
    good_images: tuple[str, ...]
    factual: Picture
    counterfactual: Mapping[str, Picture]


def make_instance(
    row: Mapping[str, Any], where: str, votes: Mapping[str, int], factual: Picture, pictures: Mapping[str, Picture]
) -> Instance | None:
    """The instance of a published row; None where no picture has two votes.

    Args:
        row: The published fields; the non-existent noun may be spelt with a hyphen or an underscore.
        where: What the row is, for messages.
        votes: Image id -> votes.
        factual: The real world.
        pictures: Image id -> counterfactual picture.

    Raises:
        NapoBenchError: a field is missing or no text.
    """
    shown = {image: count for image, count in votes.items() if image in pictures}
    good = good_images(shown)
    if not good:
        return None
    named = image_id(row, "best_img_id")
    best = best_image(named if named in pictures else None, shown)
    spelling = next((name for name in _NOUN_SPELLINGS if name in row), _NOUN_SPELLINGS[0])
    concept, context_id = identity(row, where)
    return Instance(
        concept,
        context_id,
        **{name: files.field(row, name, str, where) for name in _TEXTS},
        non_existent_noun=files.field(row, spelling, str, where),
        best_image=best,
        good_images=tuple(good),
        factual=factual,
        counterfactual={image: pictures[image] for image in (*good, best)},
    )


def identity(row: Any, where: str) -> tuple[str, str]:
    """(concept, context_id) of a published row or of a response row."""
    return files.field(row, "concept", str, where), str(files.field(row, "context_id", (str, int), where))


def image_id(row: Mapping[str, Any], name: str) -> str | None:
    """The image id in a field, None where it holds none."""
    text = str(row.get(name, ""))
    return text if text.isdigit() else None


def read_votes(row: Mapping[str, Any], where: str) -> dict[str, int]:
    """Image id -> votes, from an object or the JSON text of one. Raises NapoBenchError where it is neither."""
    given = files.field(row, VOTES, (dict, str), where)
    try:
        votes = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError:
        votes = None
    if not isinstance(votes, dict) or not all(key.isdigit() and isinstance(n, int) for key, n in votes.items()):
        raise NapoBenchError(
            f"{where}: the field {VOTES!r} is {given!r:.80}; an object of image id -> votes is expected."
        )
    return votes


def _parquet_picture(path: Path, row: int) -> bytes:
    group, index = next((group, row - first) for group, first, after in _row_groups(path) if first <= row < after)
    return _group_pictures(path, group)[index]


@functools.lru_cache(maxsize=8)
def _row_groups(path: Path) -> list[tuple[int, int, int]]:
    """Number, first row and row after the last of each row group."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(path)
    groups = []
    first = 0
    for group in range(metadata.num_row_groups):
        after = first + metadata.row_group(group).num_rows
        groups.append((group, first, after))
        first = after
    return groups


@functools.lru_cache(maxsize=2)
def _group_pictures(path: Path, group: int) -> list[bytes]:
    import pyarrow.parquet

    column = pyarrow.parquet.ParquetFile(path).read_row_group(group, columns=["image"])["image"]
    return [picture["bytes"] for picture in column.to_pylist()]
