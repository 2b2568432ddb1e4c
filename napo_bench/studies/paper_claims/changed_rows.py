"""Preference rows with changes: swapped labels in a share of the rows, or another kind of negative."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from napo_bench.core import files
from napo_bench.micro.language import answers, imagine_all, typical_scene, understand
from napo_bench.micro.truth import is_right
from napo_bench.micro.world import Scene
from napo_bench.trainers.negatives import LANGUAGE

SEED = 0


def swapped_positions(rows: int, percent: int, seed: int = SEED) -> NDArray[np.int64]:
    """The rows whose labels are swapped, in ascending order. The rows of a smaller share are among those of a larger
    share.

    Args:
        rows: Number of all rows.
        percent: Percentage of swapped rows, 0 to 100.
        seed: Seed of the draw.
    """
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[: round(rows * percent / 100)])


def swap_labels(table: pa.Table, percent: int, seed: int = SEED) -> pa.Table:
    """Preference rows with `chosen` and `rejected` swapped in a share of them.

    Args:
        table: Rows with the columns `chosen` and `rejected`.
        percent: See `swapped_positions`.
        seed: See `swapped_positions`.
    """
    chosen, rejected = table["chosen"].to_pylist(), table["rejected"].to_pylist()
    for position in swapped_positions(len(chosen), percent, seed).tolist():
        chosen[position], rejected[position] = rejected[position], chosen[position]
    return _with_texts(_with_texts(table, "chosen", chosen), "rejected", rejected)


def reject_custom(table: pa.Table) -> pa.Table:
    """Micro preference rows with a biased `rejected`: the response that the prior suggests for the image, if that
    response is wrong.

    Args:
        table: Rows with the columns `question`, `chosen`, `rejected` and `scene`.
    """
    rows = table.select(["question", "chosen", "rejected", "scene"]).to_pylist()
    return _with_texts(table, "rejected", [_expected(**row) for row in rows])


def expect_things_shown(table: pa.Table) -> pa.Table:
    """Micro preference rows with plausible language-biased negatives if the question names no object.

    A model always gives the same answer to "describe this image" without an image. Here the answer is what is typical
    of an object in the image, as if the question had named the object.

    Args:
        table: Rows with a question, a language-biased negative and a scene.
    """
    column = LANGUAGE.column
    rows = table.select(["question", column, "scene"]).to_pylist()
    return _with_texts(table, column, [_plausible(row["question"], row[column], row["scene"]) for row in rows])


def _plausible(question: str, negative: str, scene: str) -> str:
    asked = understand(question)
    if asked.thing:
        return negative
    named = random.Random(scene).choice(Scene.from_json(scene).groups).thing
    return answers(asked, typical_scene(named))[0]


def _expected(question: str, chosen: str, rejected: str, scene: str) -> str:
    asked, shown = understand(question), Scene.from_json(scene)
    expected = answers(*imagine_all(asked, shown))
    if is_right(expected[0], asked, shown):
        return rejected
    wording = answers(asked, shown).index(chosen)
    return expected[min(wording, len(expected) - 1)]


def _with_texts(table: pa.Table, name: str, texts: list[str]) -> pa.Table:
    index = table.column_names.index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array(texts, field.type))


def write_changed_rows(source: Path, out: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write `out`: the rows of `source`, a parquet file or a folder of them, after `change`."""
    paths = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    with files.atomic_path(out) as temporary:
        parquet.write_table(change(pa.concat_tables([parquet.read_table(path) for path in paths])), temporary)
