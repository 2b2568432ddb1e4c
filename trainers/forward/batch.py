"""A batch of preference training, and what a model's forward gets about each token of its packed rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from napo_bench.models.families import family_of
from napo_bench.models.positions import prompt_positions
from napo_bench.trainers.forward.packing import PADDING, PackedRows


@dataclass(frozen=True)
class PreferenceBatch:
    """B rows, each a prompt, its images, and R responses to it.

    Attributes:
        input_ids: Prompt tokens with the image's placeholder tokens, `[B, P]`; padded left or right.
        attention_mask: 1 on prompt tokens, 0 on padding, `[B, P]`.
        response_ids: Response tokens with the closing EOS, `[B, R, T]`; padded right.
        response_mask: 1 on response tokens, `[B, R, T]`; all 0 if the row lacks the response.
        images: The image processor's result for the rows' images, in the order of the rows and of the images in a
            row: `pixel_values` and, by family, `image_sizes` (LLaVA-NeXT) or `image_grid_thw` (Qwen-VL). Empty if no
            row has an image.
        of_tokens: What else the processor says about each token of the prompts, `[B, P, ...]`: `token_type_ids`
            (Gemma 3), `mm_token_type_ids` (Qwen-VL), `cross_attention_mask` (Mllama).
    """

    input_ids: Tensor
    attention_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor
    images: Mapping[str, Tensor] = field(default_factory=dict)
    of_tokens: Mapping[str, Tensor] = field(default_factory=dict)


def positions(bare: Any, batch: PreferenceBatch, rows: PackedRows) -> Tensor:
    """Positions of the tokens of packed rows, `[..., B, L]`."""
    if family_of(bare.config).positions == "plain":
        return rows.places
    positions, following = prompt_positions(bare, batch.input_ids, batch.attention_mask, batch.images, batch.of_tokens)
    of_responses = following[:, None, None] + torch.arange(batch.response_ids.shape[2], device=following.device)
    return rows.arrange(positions, of_responses.expand(*positions.shape[:-2], *batch.response_ids.shape))


def inputs_of_tokens(bare: Any, batch: PreferenceBatch, rows: PackedRows) -> dict[str, Tensor]:
    """What the model's forward gets about each token of packed rows, `[B, L, ...]`.

    A response continues what the processor says about the prompt's last token, unless the family's row gives a type.
    """
    of_answers = family_of(bare.config).answer_type
    last = rows.order[torch.arange(len(rows.order)), batch.attention_mask.sum(1) - 1]

    def arranged(of_prompts: Tensor) -> Tensor:
        by_feature = of_prompts.movedim((0, 1), (-2, -1))
        of_last = by_feature.gather(-1, last[:, None].expand(*by_feature.shape[:-1], 1))
        answers = of_last[..., None] if of_answers is None else torch.full_like(of_last[..., None], of_answers)
        packed = rows.arrange(by_feature, answers.expand(*by_feature.shape[:-1], *batch.response_ids.shape[1:]))
        return packed.movedim((-2, -1), (0, 1))

    return {
        "input_ids": rows.arrange(batch.input_ids, batch.response_ids),
        "attention_mask": (rows.branches != PADDING).long(),
        **{name: arranged(of_prompts) for name, of_prompts in batch.of_tokens.items()},
    }
