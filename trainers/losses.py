"""Preference losses as functions of margins.

The margin of a negative response R against the chosen response w is
`m = [logp(w) - logp_ref(w)] - [logp(R) - logp_ref(R)]`, with logp summed over the response's tokens. Every loss takes
margins `[B]` and returns one loss a row, `[B]`. Loss and gradient are finite for every finite margin; a NaN stays one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

_SMALLEST_Q = 1e-30


def dpo_loss(margin: Tensor, beta: float) -> Tensor:
    """Direct preference optimization: -log sigmoid(beta * m) (the paper's Eq. 3; Rafailov et al. 2023).

    Args:
        margin: `[B]`.
        beta: Strength of the pull towards the reference, > 0.
    """
    return -logsigmoid(_scaled(margin, beta))


def napo_loss(margin: Tensor, q: Tensor | float, beta: float) -> Tensor:
    """Noise-aware preference optimization: (1 - sigmoid(beta * m)^q) / q (the paper's Eq. 9-11).

    Its gradient is DPO's times sigmoid(beta * m)^q: the larger q, the less a row counts whose negative is preferred.

    Args:
        margin: `[B]`.
        q: Noise robustness in [0, 1], one for all rows or `[B]`; 0 is the limit, DPO, and 1 the mean absolute error.
        beta: As in `dpo_loss`.
    """
    q = torch.as_tensor(q, dtype=margin.dtype, device=margin.device).clamp(min=_SMALLEST_Q)
    return -torch.expm1(q * logsigmoid(_scaled(margin, beta))) / q


def mdpo_loss(margin: Tensor, image_margin: Tensor, chosen_logratio: Tensor, beta: float) -> Tensor:
    """Multimodal DPO: DPO on responses, on images, and an anchor on the chosen response (Wang et al. 2024).

    Args:
        margin: Chosen against rejected response, `[B]`.
        image_margin: Chosen response with its image against the same with a corrupted image, `[B]`.
        chosen_logratio: logp(w) - logp_ref(w), kept above zero by the anchor, `[B]`.
        beta: As in `dpo_loss`.
    """
    return dpo_loss(margin, beta) + dpo_loss(image_margin, beta) + dpo_loss(chosen_logratio, beta)


def cdpo_loss(margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Conservative DPO: cross-entropy against labels that are wrong with a known probability (Mitchell 2023).

    Args:
        margin: `[B]`.
        beta: As in `dpo_loss`.
        label_smoothing: Share of flipped preferences, in [0, 0.5).
    """
    logit = _scaled(margin, beta)
    return softplus(-logit) + label_smoothing * logit


def rdpo_loss(margin: Tensor, beta: float, label_smoothing: float) -> Tensor:
    """Robust DPO: unbiased under flipped preferences (Chowdhury et al. 2024).

    ((1 - e) * dpo(m) - e * dpo(-m)) / (1 - 2e), with e the share of flipped preferences.

    Args:
        margin: `[B]`.
        beta: As in `dpo_loss`.
        label_smoothing: e, in [0, 0.5).
    """
    logit = _scaled(margin, beta)
    return softplus(-logit) - label_smoothing / (1 - 2 * label_smoothing) * logit


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """Identity preference optimization: (m - 1 / (2 * beta))^2 (Azar et al. 2023).

    Args:
        margin: `[B]`, usually of mean log-probs.
        beta: Regularization, > 0; the margin is drawn to 1 / (2 * beta).
    """
    largest_root = torch.finfo(margin.dtype).max ** 0.5
    return (margin - 1 / (2 * beta)).clamp(-largest_root, largest_root).square()


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """Hinge on the scaled margin: max(0, 1 - beta * m) (SLiC-HF, Zhao et al. 2023).

    Args:
        margin: `[B]`.
        beta: As in `dpo_loss`.
    """
    return torch.relu(1 - _scaled(margin, beta))


def _scaled(margin: Tensor, beta: float) -> Tensor:
    """The logit beta * m, within a thousandth of the largest float so that a sum of several terms stays finite."""
    largest = torch.finfo(margin.dtype).max / 1000
    return (beta * margin).clamp(-largest, largest)
