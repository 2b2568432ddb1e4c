"""A cache of keys and values that grows in steps, branches, drops rows, and gets its rows in parts.

The cache of transformers copies all keys and values at every token. This cache has room for the next tokens, so a token
is written in its place. What a forward gets is a view, which ends with the last token: the result is that of a cache
without room.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_LEAST_ROOM = 32
_ROOM = 8  # a copy makes room for an eighth of the tokens


class GrowingLayer(CacheLayerMixin):
    """Keys and values of one layer, `[rows, heads, room, width]` each, of which a part is in use.

    Args:
        rows: Number of rows.
    """

    is_sliding = False

    def __init__(self, rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._states: tuple[Tensor, ...] = ()
        self._rows = rows
        self._updated = 0  # rows that have the next tokens already
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Make room for the first tokens."""
        self._states = tuple(_roomy(state, self._rows, state.shape[2]) for state in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add the keys and values of further tokens, and return those of all tokens.

        The tokens are of all rows, or of the rows that follow those of the last call. Each row gets as many tokens.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self._length + key_states.shape[2]
        if end > self._states[0].shape[2]:
            self._copy(torch.arange(self._rows, device=key_states.device), end)
        part = slice(self._updated, self._updated + len(key_states))
        for states, further in zip(self._states, (key_states, value_states), strict=True):
            states[part, :, self._length : end] = further
        self._updated = part.stop
        if self._updated == self._rows:
            self._updated, self._length = 0, end
        keys, values = self._states
        return keys[part, :, :end], values[part, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Number of keys for a query of this length, and the place of the first one."""
        return self._length + query_length, 0

    def get_seq_length(self) -> int:
        """Number of tokens."""
        return self._length

    def get_max_length(self) -> int:
        """-1: there is no maximum."""
        return -1

    def branch(self, sources: Tensor, further: int) -> None:
        """Give each new row the keys and values of a row of before, and room for further tokens."""
        self._copy(sources, self._length + further)

    def reorder(self, sources: Tensor, start: int) -> None:
        """Give each row the tokens from `start` on of another row. The tokens before are the same in both rows."""
        for states in self._states:
            part = states[: self._rows, :, start : self._length]
            part.copy_(part.index_select(0, sources.to(states.device)))

    def keep(self, rows: Tensor) -> None:
        """Keep some rows. Each row from behind the kept ones moves into the place of a row that is dropped.

        Args:
            rows: The row of before for each row. Most are in their own place.
        """
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        if len(moved):
            for states in self._states:
                targets, sources = moved.to(states.device), rows[moved].to(states.device)
                states[targets, :, : self._length] = states[sources, :, : self._length]
        self._rows = len(rows)

    def _copy(self, sources: Tensor, length: int) -> None:
        """The rows `sources` in new tensors with room for `length` tokens and more."""
        copied: list[Tensor] = []
        for states in self._states:
            copied.append(_roomy(states, len(sources), length))
            new, old = copied[-1][:, :, : self._length], states[:, :, : self._length]
            torch.index_select(old, 0, sources.to(states.device), out=new)
        self._states = tuple(copied)
        self._rows = len(sources)


class GrowingCache(Cache):
    """The cache of a batch: a `GrowingLayer` for each layer of the model.

    Args:
        rows: Number of rows.
    """

    def __init__(self, rows: int) -> None:
        class Layer(GrowingLayer):  # type: ignore[no-untyped-call]
            def __init__(self) -> None:
                super().__init__(rows)

        super().__init__(layer_class_to_replicate=Layer)

    def branch(self, sources: Tensor, further: int) -> None:
        """See GrowingLayer. One layer after another, so that both copies of one layer alone are in memory."""
        for layer in self._growing:
            layer.branch(sources, further)

    def reorder(self, sources: Tensor, start: int) -> None:
        """See GrowingLayer."""
        for layer in self._growing:
            layer.reorder(sources, start)

    def keep(self, rows: Tensor) -> None:
        """See GrowingLayer."""
        for layer in self._growing:
            layer.keep(rows)

    @property
    def _growing(self) -> Iterator[GrowingLayer]:
        return (layer for layer in self.layers if isinstance(layer, GrowingLayer))


def _roomy(states: Tensor, rows: int, length: int) -> Tensor:
    """A tensor without values for `length` tokens and more, of the heads and width of `states`."""
    room = length + max(_LEAST_ROOM, length // _ROOM)
    return states.new_empty(rows, states.shape[1], room, states.shape[3])
