"""Attention over packed rows: the mask between tokens, and the kernels that use the mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from napo_bench.trainers.forward.packing import PROMPT

CAUSAL_THEN_MASKED = "causal_then_masked_sdpa"
TAKES_A_MASK = ("eager", "sdpa", "flex_attention", CAUSAL_THEN_MASKED)
FLEX_HEAD_SIZE = 16


def fastest_attention(text_model: Any) -> str:
    """The implementation for packed rows: flex attention on CUDA if the model has it, else SDPA in two calls."""
    heads = text_model.config.num_attention_heads
    head_size = getattr(text_model.config, "head_dim", None) or text_model.config.hidden_size // heads
    flexible = text_model.device.type == "cuda" and text_model._supports_flex_attn and head_size >= FLEX_HEAD_SIZE
    return "flex_attention" if flexible else CAUSAL_THEN_MASKED


def branch_mask(branches: Tensor, implementation: str, dtype: torch.dtype) -> Tensor | BlockMask:
    """The attention mask of packed rows: a token attends to the earlier tokens of the prompt and of its own branch.

    Args:
        branches: Branches of `PackedRows`, `[B, L]`.
        implementation: One of `TAKES_A_MASK`.
        dtype: Type of the attention scores, for eager attention, which adds the mask to the scores.

    Returns:
        `[B, 1, L, L]`; for `CAUSAL_THEN_MASKED` only the queries after the end of the shortest prompt.
    """

    def visible(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        branch = branches[row, key]
        return (key <= query) & ((branch == PROMPT) | (branch == branches[row, query]))

    rows, length = branches.shape
    if implementation == "flex_attention":
        return create_block_mask(visible, rows, None, length, length, device=str(branches.device))
    causal = int((branches == PROMPT).sum(1).min()) if implementation == CAUSAL_THEN_MASKED else 0
    place = torch.arange(length, device=branches.device)
    row = torch.arange(rows, device=branches.device)[:, None, None, None]
    mask = visible(row, row, place[causal:, None], place)
    return torch.where(mask, 0.0, torch.finfo(dtype).min).to(dtype) if implementation == "eager" else mask


def causal_then_masked(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """SDPA whose mask may cover only the last queries `[B, 1, M, L]`. The queries before them are causal.

    The causal kernel skips the half of the scores that it need not compute, and the masked kernel does not compute the
    prompt's queries: with 600 prompt tokens of 1,000 this saves 40% of the scores. Any other mask goes to SDPA
    unchanged.
    """
    causal = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if causal <= 0:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    early, late = torch.split(query, [causal, query.shape[2] - causal], dim=2)
    first, _ = sdpa_attention_forward(module, early, key[:, :, :causal], value[:, :, :causal], None, **options)
    last, _ = sdpa_attention_forward(module, late, key, value, attention_mask, **options)
    return torch.cat([first, last], dim=1), None


AttentionInterface.register(CAUSAL_THEN_MASKED, causal_then_masked)
AttentionMaskInterface.register(CAUSAL_THEN_MASKED, sdpa_mask)
