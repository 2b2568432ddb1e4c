"""Counts of many samples or clusters as one table, which reads as a sequence of mappings."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class CountTable(Sequence[Mapping[str, float]]):
    """Counts of N samples or clusters. A count that a sample lacks is 0.

    Args:
        names: Names of the counts, K.
        values: The counts, `[N, K]`.
    """

    def __init__(self, names: Sequence[str], values: Array) -> None:
        self.names = tuple(names)
        self.values = values

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, float]]) -> CountTable:
        """The table of some rows; the same object if the rows are a table already.

        Raises:
            ValueError: a count is no number.
        """
        if isinstance(rows, CountTable):
            return rows
        column = {name: index for index, name in enumerate(dict.fromkeys(name for row in rows for name in row))}
        values = np.zeros((len(rows), len(column)))
        samples = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        columns = np.array([column[name] for row in rows for name in row], dtype=np.int64)
        found = np.array([value for row in rows for value in row.values()])
        if found.size and found.dtype.kind not in "biuf":
            raise ValueError("a count is no number")
        values[samples, columns] = found
        return cls(tuple(column), values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Mapping[str, float]]:
        return (dict(zip(self.names, row, strict=True)) for row in self.values.tolist())

    @overload
    def __getitem__(self, index: int) -> Mapping[str, float]: ...

    @overload
    def __getitem__(self, index: slice) -> Self: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, float] | Self:
        if isinstance(index, slice):
            return type(self)(self.names, self.values[index])
        return dict(zip(self.names, self.values[index].tolist(), strict=True))

    def column(self, name: str) -> Array:
        """One count of every row, `[N]`."""
        return self.values[:, self.names.index(name)] if name in self.names else np.zeros(len(self))

    def columns(self, names: Sequence[str]) -> Array:
        """Some counts of every row, `[N, len(names)]`."""
        if tuple(names) == self.names:
            return self.values
        return np.stack([self.column(name) for name in names], axis=1) if names else self.values[:, :0]

    @property
    def total(self) -> dict[str, float]:
        """The sums of the counts, added up one row after another."""
        return dict(zip(self.names, self.values.cumsum(axis=0)[-1].tolist(), strict=True)) if len(self) else {}

    def by_cluster(self, clusters: Sequence[Hashable]) -> CountTable:
        """The sums of each cluster, in the order in which the clusters first occur.

        Args:
            clusters: Cluster of each row.
        """
        place = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
        if len(place) == len(self):
            return self
        of_row = np.fromiter((place[cluster] for cluster in clusters), dtype=np.int64, count=len(self))
        sums = [np.bincount(of_row, column, len(place)) for column in self.values.T]
        return CountTable(self.names, np.stack(sums, axis=1) if sums else np.zeros((len(place), 0)))
