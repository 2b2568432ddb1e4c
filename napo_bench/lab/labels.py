"""Noise in labels, put there on purpose: chosen and rejected of a share of the rows change places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from napo_bench import files

SEED = 0


def swapped_positions(rows: int, percent: int, seed: int = SEED) -> NDArray[np.int64]:
    """The rows whose labels are swapped, in ascending order; those of a smaller share are among those of a larger one.

    Args:
        rows: How many there are.
        percent: Of them that are swapped, 0 to 100.
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(rows)
    return np.sort(order[: round(rows * percent / 100)])


def swap_labels(table: pa.Table, percent: int, seed: int = SEED) -> pa.Table:
    """Preference rows with `chosen` and `rejected` swapped in a share of them.

    Args:
        table: With the columns `chosen` and `rejected`.
        percent: As of `swapped_positions`.
        seed: As of `swapped_positions`.
    """
    chosen, rejected = table["chosen"].to_pylist(), table["rejected"].to_pylist()
    for position in swapped_positions(len(chosen), percent, seed).tolist():
        chosen[position], rejected[position] = rejected[position], chosen[position]
    for name, texts in (("chosen", chosen), ("rejected", rejected)):
        index = table.column_names.index(name)
        table = table.set_column(index, table.schema.field(index), pa.array(texts, table.schema.field(index).type))
    return table


def write_swapped_rows(source: Path, out: Path, percent: int) -> None:
    """Write `out`: the rows of the parquet file `source` after `swap_labels`."""
    with files.atomic_path(out) as temporary:
        parquet.write_table(swap_labels(parquet.read_table(source), percent), temporary)
