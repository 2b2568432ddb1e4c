"""Noise rules for a batch's negatives: NaPO's q and the weights of its losses, from mean margins.

The means are over the whole batch, on all processes. No gradient flows through the returned values.
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
        mean_margin: Mean margin of one kind of negative, `[]`.
        alpha: Sensitivity, > 0: 0.5 for margins of mean log-probs, 0.01 for margins of summed ones.
        q_min: Lower clamp.
        q_max: Upper clamp.

    Returns:
        `[]`.
    """
    return (2 * torch.sigmoid(-alpha * mean_margin.detach())).clamp(q_min, q_max)


def dynamic_weights(mean_margins: Tensor, floor: float = 0.01) -> Tensor:
    """Weights of the losses: each kind's share of the summed mean margins, in [floor, 1] (the paper's Eq. 13).

    If the shares are undefined (`shares_undefined`), all weights are 1 / n. If the sum is negative, the share of a
    negative margin is positive, as in the formula.

    Args:
        mean_margins: Mean margin of each kind of negative, `[n]`. A common positive factor, such as beta, changes
            nothing.
        floor: Lower clamp.

    Returns:
        `[n]`.
    """
    margins = mean_margins.detach().double()
    shares = (margins / margins.sum()).clamp(floor, 1.0)
    equal = torch.full_like(shares, 1 / len(shares))
    return torch.where(shares_undefined(mean_margins), equal, shares).to(mean_margins.dtype)


def bounded_weights(mean_rewards: Tensor) -> Tensor:
    """Weights of the losses: each kind's share of sigmoid(mean reward margin). This rule is not in the paper.

    sigmoid(reward margin) is the probability, by Bradley and Terry, that the chosen response is preferred. As in Eq.
    13, a kind with a larger margin has a larger weight. But a kind that is learnt already (probability 1) has at most
    twice the weight of a kind that is not learnt (probability 1/2). So the weights do not grow without end with the
    margins, and are always defined.

    Args:
        mean_rewards: beta times the mean margin of each kind of negative, `[n]`.

    Returns:
        `[n]`, with sum 1.
    """
    return torch.softmax(functional.logsigmoid(mean_rewards.detach()), dim=0)


def shares_undefined(mean_margins: Tensor) -> Tensor:
    """Whether the sum of the margins `[n]` is too near zero for a division, `[]` of bool.

    This is the case before the first update, when every margin is 0, and if margins of both signs cancel.
    """
    margins = mean_margins.detach().double()
    return margins.sum().abs() <= _TINY * margins.abs().sum().clamp(min=1.0)
