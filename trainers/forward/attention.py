"""Attention over packed rows: the kernels that use the mask, and the choice among them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

CAUSAL_THEN_MASKED = "causal_then_masked_sdpa"
TAKES_A_MASK = ("eager", "sdpa", "flex_attention", CAUSAL_THEN_MASKED)
FLEX_HEAD_SIZE = 16


def fastest_attention(text_model: Any) -> str:
    """The implementation for packed rows: flex attention on CUDA if the model has it, else SDPA in two calls."""
    sizes = [module.head_dim for module in text_model.modules() if isinstance(getattr(module, "head_dim", None), int)]
    large = min(sizes, default=0) >= FLEX_HEAD_SIZE
    flexible = text_model.device.type == "cuda" and text_model._supports_flex_attn and large
    return "flex_attention" if flexible else CAUSAL_THEN_MASKED


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
