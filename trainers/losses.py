"""Preference losses as functions of margins, and the table of losses that recipes can name.

The margin of a negative response R against the chosen response w is `m = [logp(w) - logp_ref(w)] - [logp(R) -
logp_ref(R)]`, with logp summed over the response's tokens, or averaged over the tokens if the loss is defined in this
way. Every loss takes margins `[B]` and returns one loss a row, `[B]`. Loss and gradient are finite for every finite
margin; NaN stays NaN. Margins in half precision are computed with, and losses returned, in float32.

torch is imported when a loss is computed, so that recipes can be read without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_Q = 1e-30


def dpo_loss(margin: Tensor, beta: float) -> Tensor:
    """Direct preference optimization: -log sigmoid(beta * m) (the paper's Eq. 3; Rafailov et al. 2023).

    Args:
        margin: `[B]`.
        beta: Strength of the pull towards the reference, > 0.
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(_scaled(margin, beta))


def napo_loss(margin: Tensor, q: Tensor | float, beta: float) -> Tensor:
    """Noise-aware preference optimization: (1 - sigmoid(beta * m)^q) / q (the paper's Eq. 9-11).

    The gradient is DPO's times sigmoid(beta * m)^q: the larger q is, the less a row with a preferred negative counts.

    Args:
        margin: `[B]`.
        q: Noise robustness in [0, 1], one value for all rows or `[B]`. At 0 the loss is DPO, the limit; at 1 the loss
            is the mean absolute error.
        beta: As in `dpo_loss`.
    """
    import torch
    from torch.nn.functional import logsigmoid

    logit = _scaled(margin, beta)
    q = torch.as_tensor(q, dtype=logit.dtype, device=logit.device).clamp(min=_SMALLEST_Q)
    return -torch.expm1(q * logsigmoid(logit)) / q


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
    from torch.nn.functional import softplus

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
    from torch.nn.functional import softplus

    logit = _scaled(margin, beta)
    return softplus(-logit) - label_smoothing / (1 - 2 * label_smoothing) * logit


def ipo_loss(margin: Tensor, beta: float) -> Tensor:
    """Identity preference optimization: (m - 1 / (2 * beta))^2 (Azar et al. 2023).

    `LOSSES` passes margins of mean log-probs as `ipo`, as TRL does on the authors' advice, and of summed ones as
    `ipo_sum`. Summed margins grow with the length of the responses; the target 1 / (2 * beta) does not.

    Args:
        margin: `[B]`.
        beta: Regularization, > 0. The target of the margin is 1 / (2 * beta).
    """
    import torch

    steepest = torch.finfo(margin.dtype).max / 4
    margin = _at_least_float32(margin)
    largest_root = min(torch.finfo(margin.dtype).max ** 0.5, steepest)
    return (margin - 1 / (2 * beta)).clamp(-largest_root, largest_root).square()


def hinge_loss(margin: Tensor, beta: float) -> Tensor:
    """Hinge on the scaled margin: max(0, 1 - beta * m) (SLiC-HF, Zhao et al. 2023).

    Args:
        margin: `[B]`.
        beta: As in `dpo_loss`.
    """
    return (1 - _scaled(margin, beta)).relu()


def _scaled(margin: Tensor, beta: float) -> Tensor:
    """The logit beta * m, limited to a thousandth of the largest float so that a sum of several terms stays finite."""
    import torch

    margin = _at_least_float32(margin)
    largest = torch.finfo(margin.dtype).max / 1000
    return (beta * margin).clamp(-largest, largest)


def _at_least_float32(margin: Tensor) -> Tensor:
    """The margin, in float32 if it is in half precision, whose range is too small for a q near 0."""
    import torch

    return margin.to(torch.promote_types(margin.dtype, torch.float32))


@dataclass(frozen=True)
class Loss:
    """A loss that a recipe can name.

    Attributes:
        function: Function from the margins of a batch, `[B]`, to one loss a row, `[B]`. The name of each further
            parameter says what the loss needs: a key of the recipe (`beta`, `label_smoothing`), or `q`, `image_margin`
            or `chosen_logratio` of the batch.
        margin: Whether the margins are those of summed log-probs or of means over the tokens.
    """

    function: Callable[..., Tensor]
    margin: Literal["sum", "mean"] = "sum"

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The names of the function's further parameters."""
        return tuple(inspect.signature(self.function).parameters)[1:]


LOSSES = {
    "dpo": Loss(dpo_loss),
    "napo": Loss(napo_loss),
    "cdpo": Loss(cdpo_loss),
    "rdpo": Loss(rdpo_loss),
    "ipo": Loss(ipo_loss, margin="mean"),
    "ipo_sum": Loss(ipo_loss),
    "hinge": Loss(hinge_loss),
    "mdpo": Loss(mdpo_loss),
}
"""Name in a recipe -> loss."""
