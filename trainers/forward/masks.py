"""The attention masks of packed rows, made from the masks that the model itself makes for a sequence.

A model of transformers describes the mask of each kind of layer (full, sliding, chunked; images that are read both
ways) as a function of the places of query and key. For packed rows the function is asked with the places of the tokens
in their own sequences, and a token of another response is hidden. So each kind of layer keeps its own mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import pad
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, causal_mask_function

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.forward.attention import CAUSAL_THEN_MASKED, apart_saves
from napo_bench.trainers.forward.packing import PROMPT, PackedRows

BLOCK = 128
Visible = Callable[[Any, Any, Any, Any], Any]
"""Whether a query sees a key: from row, head, query and key as indices (numbers, or tensors that broadcast)."""


def in_own_branch(visible: Visible, rows: PackedRows) -> Visible:
    """The mask of packed rows that belongs to the mask of a sequence.

    Args:
        visible: Mask of one sequence, by the places of query and key in the sequence.
        rows: The packed rows.

    Returns:
        The mask by places in the packed row: a token sees those tokens of its prompt and of its own branch that
        `visible` shows it.
    """

    def in_packed_row(row: Any, head: Any, query: Any, key: Any) -> Any:
        branch = rows.branches[row, key]
        shown = visible(row, head, rows.places[row, query], rows.places[row, key])
        return shown & ((branch == PROMPT) | (branch == rows.branches[row, query]))

    return in_packed_row


def block_mask(visible: Visible, shape: torch.Size, device: torch.device) -> BlockMask:
    """The mask of flex attention over packed rows.

    The queries of one block are evaluated at a time, because a mask over all queries and keys at once would need 10
    bytes for each of its `B * L**2` entries.

    Args:
        visible: Whether a query sees a key.
        shape: `[B, L]`.
        device: Device of the tokens.
    """
    rows, length = shape
    blocks = -(-length // BLOCK)
    row, head = torch.arange(rows, device=device)[:, None, None], torch.zeros((), dtype=torch.long, device=device)
    place = torch.arange(length, device=device)
    some, every = [], []
    for queries in torch.split(place, BLOCK):
        shown = visible(row, head, queries[None, :, None], place[None, None]).expand(rows, len(queries), length)
        padded = pad(shown, (0, blocks * BLOCK - length, 0, BLOCK - len(queries)))
        of_blocks = padded.view(rows, BLOCK, blocks, BLOCK).transpose(1, 2).flatten(2)
        some.append(of_blocks.any(2))
        every.append(of_blocks.all(2))
    full = torch.stack(every, 1)[:, None]
    partial = torch.stack(some, 1)[:, None] & ~full
    return BlockMask.from_kv_blocks(
        *_listed(partial), *_listed(full), BLOCK_SIZE=BLOCK, mask_mod=visible, seq_lengths=(length, length)
    )


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """The number of the key blocks of each query block `[B, 1, Q]`, and these key blocks first `[B, 1, Q, K]`."""
    ordered = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32), ordered.to(torch.int32)


@contextmanager
def masks_of_packed_rows(text_model: Any, rows: PackedRows) -> Iterator[None]:
    """During the context the text model makes its masks for packed rows `[B, L]`.

    With `CAUSAL_THEN_MASKED`, a causal mask is one of those that `causal_then_masked` knows.

    Raises:
        NapoBenchError: the text model made no mask, so responses saw each other.
    """
    config = text_model.config
    of_sequence = ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation]
    made = []

    def of_packed_rows(*, config: Any, mask_function: Visible = causal_mask_function, **options: Any) -> Any:
        if not isinstance(config, type(text_model.config)):  # the mask of a vision tower
            return of_sequence(config=config, mask_function=mask_function, **options)
        made.append(mask_function)
        own = in_own_branch(mask_function, rows)
        if config._attn_implementation == "flex_attention":
            return block_mask(own, rows.branches.shape, rows.branches.device)
        causal = config._attn_implementation == CAUSAL_THEN_MASKED and mask_function is causal_mask_function
        if causal and apart_saves(rows.branches):
            return rows.branches[:, None, None]
        early = int((rows.branches == PROMPT).sum(1).min()) if causal else 0
        ours = {"attention_mask": None, "allow_is_causal_skip": False, "mask_function": own}
        queries = {"q_length": rows.branches.shape[1] - early, "q_offset": early}
        return of_sequence(config=config, **{**options, **ours, **queries})

    ALL_MASK_ATTENTION_FUNCTIONS[config._attn_implementation] = of_packed_rows
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS.pop(config._attn_implementation)
    if not made:
        raise NapoBenchError(
            f"{type(text_model).__name__} makes its attention masks itself, so responses cannot share their prompt.",
            "Set shared_prefix: false in the recipe.",
        )
