"""Random draws over clusters: bootstrap resamples, and exchanges of the labels of pairs.

Rows that are equal are interchangeable, so a resample is drawn as one multinomial over the distinct rows: exact, and
independent of how many clusters share a row. If few clusters share a row, clusters are drawn one by one, which is
faster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napo_bench.core.counts import Array, CountTable

Frequency = NDArray[np.int64]

_CELLS_A_CHUNK = 4_000_000
_SHARED = 2  # clusters a distinct row, above which a draw a distinct row is faster than a draw a cluster


def distinct_clusters(sides: Sequence[Sequence[Mapping[str, float]]]) -> tuple[list[str], Array, Frequency]:
    """Names of the counts `[K]`, the counts of the distinct clusters `[D, S, K]`, and how often each occurs `[D]`.

    Args:
        sides: Counts of each cluster on each side; the same clusters in the same order.
    """
    tables = [CountTable.of(side) for side in sides]
    names = sorted({name for table in tables for name in table.names})
    clusters = np.ascontiguousarray(np.concatenate([table.columns(names) for table in tables], axis=1))
    rows, frequency = distinct(*_counted(clusters))
    return names, rows.reshape(len(rows), len(sides), len(names)), frequency


def _counted(rows: Array) -> tuple[Array, Frequency]:
    """The distinct rows `[D, K]` as they first occur, and how often each occurs `[D]`."""
    if not rows.size:
        return rows, np.ones(len(rows), dtype=np.int64)
    seen: Counter[Any] = Counter(rows.view(np.dtype((np.void, rows.strides[0]))).ravel().tolist())
    return np.frombuffer(b"".join(seen)).reshape(len(seen), -1), np.array(list(seen.values()), dtype=np.int64)


def distinct(rows: Array, frequency: Frequency) -> tuple[Array, Frequency]:
    """The distinct rows `[D, K]` in lexicographic order, and the summed frequency of each."""
    if not rows.size:
        return rows[:1], frequency.sum(keepdims=True)[: len(rows)]
    order = np.lexsort(rows.T[::-1])
    rows = rows[order]
    first = np.concatenate([[True], np.any(rows[1:] != rows[:-1], axis=1)])
    return rows[first], np.add.reduceat(frequency[order], np.flatnonzero(first))


def resampled(rows: Array, frequency: Frequency, resamples: int, generator: np.random.Generator) -> Array:
    """The summed counts of bootstrap resamples, `[B, ...]`.

    Args:
        rows: Counts of the distinct clusters `[D, ...]`.
        frequency: How often each occurs `[D]`.
        resamples: Number of resamples.
        generator: Generator.
    """
    draw = _draw_multinomial if _are_shared(frequency) else _draw_one_by_one
    return np.concatenate(
        [np.tensordot(draw(frequency, size, generator), rows, 1) for size in _chunks(resamples, rows)]
    )


def exchanged(gains: Array, frequency: Frequency, permutations: int, generator: np.random.Generator) -> Array:
    """The summed gains of the pairs that exchange their labels, each with probability 1/2, `[B, K]`.

    Args:
        gains: Differences of the distinct pairs `[D, K]`.
        frequency: How often each occurs `[D]`.
        permutations: Number of permutations.
        generator: Generator.
    """
    exchange = _exchange_binomial if _are_shared(frequency) else _exchange_one_by_one
    return np.concatenate([exchange(frequency, size, generator) @ gains for size in _chunks(permutations, gains)])


def _are_shared(frequency: Frequency) -> bool:
    return bool(frequency.sum() > _SHARED * len(frequency))


def _chunks(draws: int, rows: Array) -> Iterator[int]:
    size = max(1, _CELLS_A_CHUNK // max(1, len(rows)))
    for start in range(0, draws, size):
        yield min(size, draws - start)


def _draw_multinomial(frequency: Frequency, resamples: int, generator: np.random.Generator) -> Array:
    """How often each resample contains each distinct row, `[B, D]`. The cost grows with D."""
    n = int(frequency.sum())
    return generator.multinomial(n, frequency / n, size=resamples).astype(np.float64)


def _draw_one_by_one(frequency: Frequency, resamples: int, generator: np.random.Generator) -> Array:
    """As `_draw_multinomial`. The cost grows with n, but a draw costs a fifth of a binomial."""
    row_of = np.repeat(np.arange(len(frequency)), frequency)
    drawn = row_of[generator.integers(0, len(row_of), (resamples, len(row_of)), dtype=np.uint32)]
    drawn += len(frequency) * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * len(frequency))
    return counts.reshape(resamples, len(frequency)).astype(np.float64)


def _exchange_binomial(frequency: Frequency, permutations: int, generator: np.random.Generator) -> Array:
    """How many of the equal pairs `[B, D]` exchange their labels in each permutation. The cost grows with D."""
    return generator.binomial(frequency, 0.5, (permutations, len(frequency))).astype(np.float64)


def _exchange_one_by_one(frequency: Frequency, permutations: int, generator: np.random.Generator) -> Array:
    """As `_exchange_binomial`. The cost grows with the number of pairs, but a bit costs less than a binomial."""
    if not len(frequency):
        return np.zeros((permutations, 0))
    pairs = int(frequency.sum())
    octets = np.frombuffer(generator.bytes(permutations * -(-pairs // 8)), dtype=np.uint8).reshape(permutations, -1)
    bits = np.unpackbits(octets, axis=1, count=pairs)
    return np.add.reduceat(bits, np.cumsum(frequency) - frequency, axis=1, dtype=np.float64)
