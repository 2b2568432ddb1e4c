"""Which pictures are the same picture, also after it was resized or encoded again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napo_bench.core.images import UnreadableImageError, open_rgb

_SIDE = 16
_HASH_WIDTH, _HASH_HEIGHT = 9, 8
_LEVELS = 2  # a flat area has no edge, and what encoding adds to it is none
_MOST_BITS = 10
_MOST_LEVELS = 20


@dataclass(frozen=True)
class Look:
    """What a picture looks like, in 776 bytes.

    Attributes:
        edges: 64-bit difference hash: where the picture gets brighter from left to right.
        colours: Mean colours of 16 x 16 cells, as `[768]` of 8 bits.
    """

    edges: np.uint64
    colours: NDArray[np.uint8]


def look_of(picture: bytes | Path) -> Look | None:
    """The look of an encoded picture or a file; None if the picture cannot be decoded."""
    try:
        image = open_rgb(picture)
    except UnreadableImageError:
        return None
    colours = np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.uint8).reshape(-1)
    grey = np.asarray(image.convert("L").resize((_HASH_WIDTH, _HASH_HEIGHT), Image.Resampling.BOX), dtype=np.int16)
    bits = (np.diff(grey, axis=1) > _LEVELS).reshape(-1)
    return Look(np.packbits(bits).view(np.uint64)[0], colours)


class Looks:
    """Different pictures, in the order in which they came.

    Two pictures are the same if at most 10 of the 64 bits of their edges differ, and no cell's mean colour differs by
    more than 20 of 255 levels. The second condition tells pictures apart that differ in the colour of one thing.
    """

    def __init__(self) -> None:
        self._edges = np.zeros(1024, dtype=np.uint64)
        self._colours = np.zeros((1024, _SIDE * _SIDE * 3), dtype=np.uint8)
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def find(self, look: Look) -> int | None:
        """Number of the most similar of the same pictures; None if there is no such picture."""
        bits = np.bitwise_count(self._edges[: self._number] ^ look.edges)
        near = np.flatnonzero(bits <= _MOST_BITS)
        if not near.size:
            return None
        levels = np.abs(self._colours[near].astype(np.int16) - look.colours).max(axis=1)
        best = int(levels.argmin())
        return int(near[best]) if levels[best] <= _MOST_LEVELS else None

    def add(self, look: Look) -> int:
        """Number of the picture. A picture that is the same as an earlier one has the number of the earlier one."""
        found = self.find(look)
        if found is not None:
            return found
        if self._number == len(self._edges):
            self._edges = np.concatenate([self._edges, np.zeros_like(self._edges)])
            self._colours = np.concatenate([self._colours, np.zeros_like(self._colours)])
        self._edges[self._number] = look.edges
        self._colours[self._number] = look.colours
        self._number += 1
        return self._number - 1
