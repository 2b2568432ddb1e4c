"""Counts as a table, and as a sequence of mappings."""

import math

import numpy as np
import pytest

from napo_bench.core.counts import CountTable

ROWS = [{"n": 1.0, "x": 0.1}, {"n": 1.0}, {"n": 1.0, "x": 0.2, "y": 3.0}, {"n": 1.0, "x": 0.3}]


def test_a_table_reads_as_the_rows_with_0_for_what_a_row_lacks():
    table = CountTable.of(ROWS)
    full = [{"n": 0.0, "x": 0.0, "y": 0.0} | row for row in ROWS]
    assert list(table) == full and len(table) == 4
    assert table[2] == full[2] and list(table[1:3]) == full[1:3]
    assert CountTable.of(table) is table
    assert table.column("x").tolist() == [0.1, 0.0, 0.2, 0.3]
    assert table.columns(["y", "absent", "n"]).tolist() == [[0, 0, 1], [0, 0, 1], [3, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("rows", [[], [{}], [{}, {}]])
def test_a_table_may_be_empty(rows):
    table = CountTable.of(rows)
    assert list(table) == rows and table.total == {}
    assert list(table.by_cluster([0] * len(rows))) == rows[:1]


def test_sums_are_added_up_one_row_after_another_to_the_last_bit():
    rng = np.random.default_rng(0)
    rows = [{"x": float(value)} for value in rng.random(1000)]
    clusters = rng.integers(0, 7, 1000).tolist()
    total, of_cluster = 0.0, dict.fromkeys(clusters, 0.0)
    for row, cluster in zip(rows, clusters, strict=True):
        total += row["x"]
        of_cluster[cluster] += row["x"]
    assert total != math.fsum(row["x"] for row in rows)
    assert CountTable.of(rows).total == {"x": total}
    assert CountTable.of(rows).by_cluster(clusters).column("x").tolist() == list(of_cluster.values())
