"""One instance of VLind-Bench and its images, from any layout."""

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

BEST_IMG_ID = "best_img_id"
MOST_VOTES = "most votes"
RULES = (BEST_IMG_ID, MOST_VOTES)
"""How the image of VP and CB is chosen: by the authors' field (VLind-Bench), or by votes (NaPO's script)."""

_TEXTS = ("context", "factual_context", "true_statement", "false_statement", "existent_noun")
_NOUN_SPELLINGS = ("non-existent_noun", "non_existent_noun")


@dataclass(frozen=True)
class Picture:
    """One image of the benchmark, which is read when needed.

    Attributes:
        path: File of the image, or parquet file that contains the image.
        row: Row in the parquet file; None if the image is a file of its own.
    """

    path: Path
    row: int | None = None

    def name(self, data_dir: Path) -> str:
        """The name of the image in results: its path in the data folder, with `#row` in a parquet file."""
        return str(self.path.relative_to(data_dir)) + ("" if self.row is None else f"#{self.row}")

    def read(self) -> bytes:
        """The encoded image. Raises NapoBenchError if the image does not exist."""
        if self.row is None:
            return files.require_file(self.path, FETCH_HINT).read_bytes()
        return _parquet_picture(self.path, self.row)


@dataclass(frozen=True)
class Instance:
    """One instance with at least one good image. The names of its statements are those in the counterfactual world.

    Attributes:
        concept: Concept of the instance: climate, color, ...
        context_id: Id, unique within the concept.
        context: Counterfactual world, in words.
        factual_context: Real world, in words.
        true_statement: Statement that is true in the counterfactual world and false in the real world.
        false_statement: Statement that is false in the counterfactual world and true in the real world.
        existent_noun: Object that is in the best counterfactual image.
        non_existent_noun: Object that is not in the best counterfactual image.
        best_images: Rule -> id of the image for the tests VP and CB.
        good_images: Ids of the images for the test LP.
        factual: Image for the test CK.
        counterfactual: Id -> image, for the best images and the good images.
    """

    concept: str
    context_id: str
    context: str
    factual_context: str
    true_statement: str
    false_statement: str
    existent_noun: str
    non_existent_noun: str
    best_images: Mapping[str, str]
    good_images: tuple[str, ...]
    factual: Picture
    counterfactual: Mapping[str, Picture]


def make_instance(
    row: Mapping[str, Any], where: str, votes: Mapping[str, int], factual: Picture, pictures: Mapping[str, Picture]
) -> Instance | None:
    """The instance of a published row; None if no image has two votes.

    Args:
        row: The published fields; the non-existent noun may be spelt with a hyphen or an underscore.
        where: Name of the row, for messages.
        votes: Image id -> votes.
        factual: Image of the real world.
        pictures: Image id -> counterfactual image.

    Raises:
        NapoBenchError: a field is missing or no text.
    """
    shown = {image: count for image, count in votes.items() if image in pictures}
    good = good_images(shown)
    if not good:
        return None
    named = image_id(row, "best_img_id")
    most_votes = best_image(None, shown)
    best = {BEST_IMG_ID: best_image(named if named in pictures else None, shown), MOST_VOTES: most_votes}
    spelling = next((name for name in _NOUN_SPELLINGS if name in row), _NOUN_SPELLINGS[0])
    concept, context_id = identity(row, where)
    return Instance(
        concept,
        context_id,
        **{name: files.field(row, name, str, where) for name in _TEXTS},
        non_existent_noun=files.field(row, spelling, str, where),
        best_images=best,
        good_images=tuple(good),
        factual=factual,
        counterfactual={image: pictures[image] for image in (*good, *best.values())},
    )


def identity(row: Any, where: str) -> tuple[str, str]:
    """(concept, context_id) of a published row or of a response row."""
    return files.field(row, "concept", str, where), str(files.field(row, "context_id", (str, int), where))


def image_id(row: Mapping[str, Any], name: str) -> str | None:
    """The image id in a field; None if the field contains no id."""
    text = str(row.get(name, ""))
    return text if text.isdigit() else None


def read_votes(row: Mapping[str, Any], where: str) -> dict[str, int]:
    """Image id -> votes, from an object or the JSON text of an object. Raises NapoBenchError for any other value."""
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
