"""How much a batch's negatives are to be trusted: NaPO's q and the weights of its losses, from mean margins.

The means are over the whole batch, on all processes, and no gradient flows through what is returned.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-6


def noise_robustness(mean_margin: Tensor, alpha: float, q_min: float = 1e-3, q_max: float = 1.0) -> Tensor:
    """NaPO's q: 2 * (1 - sigmoid(alpha * mean margin)), clamped (the paper's Eq. 12).

    A margin of 0 or below says that the negatives are as likely as the chosen responses, hence noisy: q is 1, robust.

    Args:
        mean_margin: Of one kind of negative, `[]`.
        alpha: Sensitivity, > 0: 0.5 for margins of mean log-probs, 0.01 for margins of summed ones.
        q_min: Lower clamp.
        q_max: Upper clamp.

    Returns:
        `[]`.
    """
    return (2 * torch.sigmoid(-alpha * mean_margin.detach())).clamp(q_min, q_max)


def dynamic_weights(mean_margins: Tensor, floor: float = 0.01) -> Tensor:
    """Weights of the losses: each kind's share of the summed mean margins, in [floor, 1] (the paper's Eq. 13).

    While the shares are undefined (`shares_undefined`) all weights are 1 / n. Where the sum is negative, the share of
    a negative margin is positive, as the formula has it.

    Args:
        mean_margins: One for each kind of negative, `[n]`; a common positive factor, such as beta, changes nothing.
        floor: Lower clamp.

    Returns:
        `[n]`.
    """
    margins = mean_margins.detach().double()
    shares = (margins / margins.sum()).clamp(floor, 1.0)
    equal = torch.full_like(shares, 1 / len(shares))
    return torch.where(shares_undefined(mean_margins), equal, shares).to(mean_margins.dtype)


def bounded_weights(mean_rewards: Tensor) -> Tensor:
    """Weights of the losses: each kind's share of sigmoid(mean reward margin), a rule of our own beside Eq. 13.

    sigmoid(reward margin) is the probability, by Bradley and Terry, that the chosen response is preferred. A kind with
    a larger margin weighs more, as in Eq. 13, but one that is learnt already (probability 1) at most twice as much as
    one that is not learnt at all (probability 1/2): weights cannot run away with the margins, and are always defined.

    Args:
        mean_rewards: beta times the mean margin, one for each kind of negative, `[n]`.

    Returns:
        `[n]`, with sum 1.
    """
    return torch.softmax(functional.logsigmoid(mean_rewards.detach()), dim=0)


def shares_undefined(mean_margins: Tensor) -> Tensor:
    """Whether the sum of the margins `[n]` is too near zero to divide by, `[]` of bool.

    So it is before the first update, when every margin is 0, and where margins of both signs cancel.
    """
    margins = mean_margins.detach().double()
    return margins.sum().abs() <= _TINY * margins.abs().sum().clamp(min=1.0)
