"""Rows of one prompt and R responses, packed into one sequence a row without padding between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

PROMPT, PADDING = 0, -1


@dataclass(frozen=True)
class PackedRows:
    """Positions of the tokens of B rows: prompt, then each response without its last token, then padding.

    The last token of a response predicts nothing, so the token is no input.

    Attributes:
        order: Indices into the row's unpacked tokens, `[B, L]`.
        branches: `PROMPT`, 1..R for the responses, or `PADDING`, `[B, L]`.
        places: Place of each token in the sequence of the prompt and its own response alone, `[B, L]`, from 0.
        predictors: Indices, into the flat `[B * L]`, of the tokens that predict the response tokens, `[N]`, in the
            order of the response mask. The prompt's last token predicts the first token of every response.
    """

    order: Tensor
    branches: Tensor
    places: Tensor
    predictors: Tensor

    @classmethod
    def of(cls, prompt: Tensor, responses: Tensor) -> Self:
        """Pack rows.

        Args:
            prompt: True on the prompt's tokens, `[B, P]`; padding may be anywhere.
            responses: True on the responses' tokens, `[B, R, T]`; padding to the right.
        """
        inputs = responses[..., 1:]
        taken = torch.cat([prompt, inputs.flatten(1)], dim=1)
        order = taken.int().argsort(dim=1, descending=True, stable=True)[:, : int(taken.sum(1).max())]
        branches = torch.arange(1, 1 + responses.shape[1], device=prompt.device)[:, None].expand_as(inputs)
        branches = torch.cat([torch.full_like(prompt, PROMPT, dtype=torch.long), branches.flatten(1)], dim=1)
        in_response = prompt.sum(1)[:, None, None] + inputs.cumsum(2) - 1
        places = torch.cat([prompt.cumsum(1) - 1, in_response.flatten(1)], dim=1)
        place = (taken.cumsum(1) - 1)[:, prompt.shape[1] :].view_as(inputs)
        last_of_prompt = (prompt.sum(1) - 1)[:, None, None].expand(*responses.shape[:2], 1)
        row_start = order.shape[1] * torch.arange(len(order), device=prompt.device)[:, None, None]
        return cls(
            order=order,
            branches=branches.masked_fill(~taken, PADDING).gather(1, order),
            places=places.masked_fill(~taken, 0).gather(1, order),
            predictors=(row_start + torch.cat([last_of_prompt, place], dim=2))[responses],
        )

    def arrange(self, of_prompt: Tensor, of_responses: Tensor) -> Tensor:
        """Put values of prompt tokens `[..., B, P]` and of response tokens `[..., B, R, T]` into the packed order,
        `[..., B, L]`.
        """
        values = torch.cat([of_prompt, of_responses[..., :-1].flatten(-2)], dim=-1)
        return values.gather(-1, self.order.expand(*values.shape[:-1], -1))
