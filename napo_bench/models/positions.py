"""The positions of a prompt's tokens, as a model numbers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from napo_bench.models.families import family_of


def prompt_positions(
    model: Any, input_ids: Tensor, attention_mask: Tensor, images: Mapping[str, Any], of_tokens: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """The positions of the tokens of prompts, and of the token after each prompt.

    Args:
        model: A transformers model of a family whose `positions` are known, without wrappers.
        input_ids: Tokens with the image's placeholder tokens, `[B, P]`.
        attention_mask: 1 on tokens, 0 on padding, `[B, P]`.
        images: The image processor's result.
        of_tokens: What else the processor says about each token, `[B, P]`: `mm_token_type_ids`.

    Returns:
        Positions `[..., B, P]`, and the position that follows `[B]`.
    """
    following = attention_mask.sum(1)
    if family_of(model.config).positions == "plain":
        return (attention_mask.cumsum(1) - 1).clamp(min=0), following
    positions, shift = model.model.get_rope_index(
        input_ids, image_grid_thw=images.get("image_grid_thw"), attention_mask=attention_mask, **of_tokens
    )
    return positions, following + shift.squeeze(1)
