"""Attention over packed rows: the kernels that use the mask, and the choice among them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from napo_bench.trainers.forward.packing import PROMPT

CAUSAL_THEN_MASKED = "causal_then_masked_sdpa"
TAKES_A_MASK = ("eager", "sdpa", "flex_attention", CAUSAL_THEN_MASKED)
FLEX_HEAD_SIZE = 16
SAVED_SCORES = 2**15
"""Scores of one head that a further call of SDPA must save."""
BLOCK_OF_QUERIES = 256
"""Queries of a block of a very long response. A response of fewer than twice as many is one block."""


def fastest_attention(text_model: Any) -> str:
    """The implementation for packed rows: flex attention on CUDA if the model has it, else SDPA in parts."""
    sizes = [module.head_dim for module in text_model.modules() if isinstance(getattr(module, "head_dim", None), int)]
    large = min(sizes, default=0) >= FLEX_HEAD_SIZE
    flexible = text_model.device.type == "cuda" and text_model._supports_flex_attn and large
    return "flex_attention" if flexible else CAUSAL_THEN_MASKED


def apart_saves(branches: Tensor) -> bool:
    """Whether attention branch by branch over packed rows `[B, L]` is faster than one masked call over all branches."""
    prompts, responses = _lengths(branches)
    masked = branches.numel() * (branches.shape[1] - min(prompts))
    apart = sum(length * (prompt + length) for prompt, row in zip(prompts, responses, strict=True) for length in row)
    return masked - apart > SAVED_SCORES * sum(map(len, responses))


def causal_then_masked(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """SDPA over packed rows without most of the scores that the mask hides.

    The prompt's queries are causal, and the causal kernel skips the half of the scores that it need not compute: with
    600 prompt tokens of 1,000 this saves 40% of the scores. The queries after the shortest prompt have one mask over
    all keys, or, if responses are long, each response is computed apart, and a very long one in blocks of its queries.

    Args:
        module: Layer of attention.
        query: `[B, H, L, D]`.
        key: `[B, K, L, D]`.
        value: `[B, K, L, D]`.
        attention_mask: Of the last queries, `[B, 1, M, L]`; the queries before them are causal. Integers are the rows'
            branches `[B, 1, 1, L]`, for each response apart. Any other mask goes to SDPA unchanged.
        **options: Of SDPA.
    """
    if attention_mask is not None and attention_mask.dtype == torch.long:
        return _branch_by_branch(module, query, key, value, attention_mask[:, 0, 0], **options), None
    causal = 0 if attention_mask is None else query.shape[2] - attention_mask.shape[2]
    if causal <= 0:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    early, late = torch.split(query, [causal, query.shape[2] - causal], dim=2)
    first, _ = sdpa_attention_forward(module, early, key[:, :, :causal], value[:, :, :causal], None, **options)
    last, _ = sdpa_attention_forward(module, late, key, value, attention_mask, **options)
    return torch.cat([first, last], dim=1), None


def _branch_by_branch(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, branches: Tensor, **options: Any
) -> Tensor:
    """Attention `[B, L, H, D]` of each prompt, and of each response to its prompt and itself; 0 on padding."""
    rows = []
    states = zip(*(torch.split(whole, 1) for whole in (query, key, value)), strict=True)
    for of_row, prompt, responses in zip(states, *_lengths(branches), strict=True):
        sizes = [prompt, *responses, branches.shape[1] - prompt - sum(responses)]
        queries, keys, values = (torch.split(whole, sizes, dim=2) for whole in of_row)
        parts = [sdpa_attention_forward(module, queries[0], keys[0], values[0], None, **options)[0]]
        for branch, length in enumerate(responses, start=1):
            seen_keys, seen_values = (torch.cat([whole[0], whole[branch]], dim=2) for whole in (keys, values))
            end = prompt
            for block in torch.chunk(queries[branch], max(1, length // BLOCK_OF_QUERIES), dim=2):
                before, end = end, end + block.shape[2]  # no query of the block sees a later key
                mask = torch.ones(1, 1, end - before, end, dtype=torch.bool, device=query.device).tril(before)
                seen = seen_keys[:, :, :end], seen_values[:, :, :end]
                parts.append(sdpa_attention_forward(module, block, *seen, mask, **options)[0])
        rows.append(torch.cat([*parts, parts[0].new_zeros(1, sizes[-1], *parts[0].shape[2:])], dim=1))
    return torch.cat(rows)


def _lengths(branches: Tensor) -> tuple[list[int], list[list[int]]]:
    """The number of tokens of each row's prompt, and of each of its responses that has tokens."""
    prompts = (branches == PROMPT).sum(1).tolist()
    responses = [torch.unique_consecutive(row[row > PROMPT], return_counts=True)[1].tolist() for row in branches]
    return prompts, responses


AttentionInterface.register(CAUSAL_THEN_MASKED, causal_then_masked)
AttentionMaskInterface.register(CAUSAL_THEN_MASKED, sdpa_mask)
