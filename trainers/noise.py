"""Noise rules for a batch's negatives: NaPO's q and the weights of its losses, from mean margins.

The means are over the rows of a batch, on all processes. No gradient flows through the returned values.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-6


def noise_robustness(mean_margin: Tensor, alpha: float, q_min: float = 1e-3, q_max: float = 1.0) -> Tensor:
    """NaPO's q: 2 * (1 - sigmoid(alpha * mean margin)), clamped (the paper's Eq. 12).

    A margin of 0 or below means that the negatives are at least as likely as the chosen responses, and so noisy: q is
    1, which is the most robust.

    Args:
        mean_margin: Mean margin of one kind of negative, `[]` or one a batch, `[G]`.
        alpha: Sensitivity, > 0: 0.5 for margins of mean log-probs, 0.01 for margins of summed ones.
        q_min: Lower clamp.
        q_max: Upper clamp.

    Returns:
        The shape of `mean_margin`.
    """
    return (2 * torch.sigmoid(-alpha * mean_margin.detach())).clamp(q_min, q_max)


def dynamic_weights(
    mean_margins: Tensor,
    floor: float = 0.01,
    present: Tensor | None = None,
    rounding: Tensor | float = 0.0,
) -> Tensor:
    """Weights of the losses: each kind's share of the summed mean margins, in [floor, 1] (the paper's Eq. 13).

    If the shares are undefined (`shares_undefined`), all kinds have the same weight, with sum 1. If the sum of the
    margins is negative, the share of a negative margin is positive, as in the formula.

    Args:
        mean_margins: Mean margin of each kind of negative, `[..., n]`. A common positive factor, such as beta, changes
            nothing.
        floor: Lower clamp.
        present: Whether the batch has negatives of the kind, `[..., n]`; by default the batch has all. A kind that is
            not present has weight 0, and the others share.
        rounding: As in `shares_undefined`.

    Returns:
        `[..., n]`.
    """
    margins, present = _of_present(mean_margins, present)
    shares = (margins / margins.sum(-1, keepdim=True)).clamp(floor, 1.0)
    equal = present.double() / present.sum(-1, keepdim=True).clamp(min=1)
    undefined = shares_undefined(mean_margins, present, rounding)
    return torch.where(undefined[..., None], equal, shares.where(present, 0.0)).to(mean_margins.dtype)


def bounded_weights(mean_rewards: Tensor, present: Tensor | None = None) -> Tensor:
    """Weights of the losses: each kind's share of sigmoid(mean reward margin). This rule is not in the paper.

    sigmoid(reward margin) is the probability, by Bradley and Terry, that the chosen response is preferred. As in Eq.
    13, a kind with a larger margin has a larger weight. But a kind that is learnt already (probability 1) has at most
    twice the weight of a kind that is not learnt (probability 1/2). So the weights do not grow without end with the
    margins, and are always defined.

    Args:
        mean_rewards: beta times the mean margin of each kind of negative, `[..., n]`.
        present: As in `dynamic_weights`.

    Returns:
        `[..., n]`, with sum 1.
    """
    log_probabilities = functional.logsigmoid(mean_rewards.detach())
    if present is not None:
        log_probabilities = log_probabilities.masked_fill(~present, float("-inf"))
    return torch.softmax(log_probabilities, dim=-1)


def shares_undefined(mean_margins: Tensor, present: Tensor | None = None, rounding: Tensor | float = 0.0) -> Tensor:
    """Whether the sum of the margins `[..., n]` is too near zero for a division, `[...]` of bool.

    This is the case before the first update, when every margin is 0 except for its rounding, and if margins of both
    signs cancel.

    Args:
        mean_margins: As in `dynamic_weights`.
        present: As in `dynamic_weights`.
        rounding: Distance from 0 up to which the sum can be the rounding of the log-probs alone, `[...]`.
    """
    margins, _ = _of_present(mean_margins, present)
    tiny = _TINY * margins.abs().sum(-1).clamp(min=1.0)
    return margins.sum(-1).abs() <= tiny.maximum(torch.as_tensor(rounding).to(tiny))


def _of_present(mean_margins: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
    """The margins in float64, 0 if the kind is not present, and whether each kind is present."""
    present = torch.ones_like(mean_margins, dtype=torch.bool) if present is None else present
    return mean_margins.detach().double().where(present, 0.0), present
