"""Which rows repeat an earlier row about the same picture almost word by word."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORDS_A_SHINGLE = 3
_BANDS, _BAND = 8, 4  # finds texts that share 80% of their shingles with a probability of 98%
_SAME = 0.8
_WORD = re.compile(r"\w+")


class RowTexts:
    """Different rows, in the order in which they came.

    Two rows are the same if they are about the same picture and share at least 80% of their runs of three words. The
    words of a field (question, chosen, rejected) are compared with those of the same field. MinHash finds candidates.
    """

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._factors = generator.integers(2**32, size=_BANDS * _BAND, dtype=np.uint32) | np.uint32(1)
        self._shifts = generator.integers(2**32, size=_BANDS * _BAND, dtype=np.uint32)
        self._buckets: dict[tuple[int, int, bytes], list[int]] = {}
        self._shingles: list[NDArray[np.uint32]] = []

    def add(self, picture: int, fields: Sequence[str]) -> int:
        """Number of the row. A row that repeats an earlier one has the number of the earlier one.

        Args:
            picture: Number of the row's picture.
            fields: Question and responses.
        """
        shingles = _shingles(fields)
        least = (shingles[:, None] * self._factors + self._shifts).min(axis=0)
        keys = [(picture, band, least[band * _BAND : (band + 1) * _BAND].tobytes()) for band in range(_BANDS)]
        for number in dict.fromkeys(number for key in keys for number in self._buckets.get(key, ())):
            other = self._shingles[number]
            shared = len(np.intersect1d(shingles, other, assume_unique=True))
            if shared >= _SAME * (len(shingles) + len(other) - shared):
                return number
        for key in keys:
            self._buckets.setdefault(key, []).append(len(self._shingles))
        self._shingles.append(shingles)
        return len(self._shingles) - 1


def _shingles(fields: Sequence[str]) -> NDArray[np.uint32]:
    """Checksums of the runs of three words of each field, without duplicates."""
    found = set()
    for place, text in enumerate(fields):
        words = _WORD.findall(text.lower())
        for start in range(max(1, len(words) - _WORDS_A_SHINGLE + 1)):
            run = " ".join(words[start : start + _WORDS_A_SHINGLE])
            found.add(zlib.crc32(f"{place} {run}".encode()))
    return np.array(sorted(found), dtype=np.uint32)
