"""The objective of a batch: the weighted sum of the losses of all negatives, each with its q (Eq. 14)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from napo_bench.trainers.losses import LOSSES
from napo_bench.trainers.noise import bounded_weights, dynamic_weights, noise_robustness
from napo_bench.trainers.recipe import Recipe

_ROUNDING = {"fp32": 1e-4, "bf16": 1e-2}
"""Precision -> largest distance from 0, in nats, of a batch's mean margin if policy and reference are the same."""


@dataclass(frozen=True)
class LogRatios:
    """log policy - log reference of B rows.

    Attributes:
        chosen: Log-ratio of the chosen response, summed over its tokens, `[B]`.
        margins: Log-ratio of chosen minus that of the negative, summed, `[B, N]`; N in the order of the recipe's
            negatives.
        mean_margins: Margins from means over the tokens, `[B, N]`.
        image_margin: Log-ratio of chosen minus that of chosen over the crop, summed, `[B]`; None without crops.
    """

    chosen: Tensor
    margins: Tensor
    mean_margins: Tensor
    image_margin: Tensor | None

    @classmethod
    def of(cls, sums: Tensor, means: Tensor, negatives: int) -> LogRatios:
        """From log-ratios by response, `[B, K]`, in the order of `row_logps`."""
        image = sums[:, 0] - sums[:, -1] if sums.shape[1] > 1 + negatives else None
        margins, mean_margins = (x[:, :1] - x[:, 1 : 1 + negatives] for x in (sums, means))
        return cls(sums[:, 0], margins, mean_margins, image)


def noise_robustnesses(recipe: Recipe, margins: Tensor, mean_margins: Tensor) -> dict[str, Tensor]:
    """The q of each negative whose loss takes one (Eq. 12), by the name of the negative.

    Args:
        recipe: Recipe with the losses, and with sums or means for q.
        margins: Mean over the batch of each negative's margin, `[N]`.
        mean_margins: The same of the margins of means.
    """
    q = {}
    for index, term in enumerate(recipe.terms):
        if "q" in LOSSES[term.loss].needs:
            looked_at = margins if term.q_from == "sum" else mean_margins
            q[term.negative.name] = noise_robustness(looked_at[index], term.alpha)
    return q


def mean_rewards(recipe: Recipe, margins: Tensor) -> Tensor:
    """Each negative's mean margin times beta, `[N]`; 0 if the margin is only rounding, as before the first update.

    Without this rule the weights of the first steps would be shares of rounding errors.

    Args:
        recipe: Recipe with beta and the precision.
        margins: Mean over the batch of each negative's margin, `[N]`.
    """
    return recipe.beta * margins.where(margins.abs() > _ROUNDING[recipe.precision], 0.0)


def loss_weights(recipe: Recipe, margins: Tensor, step: int) -> Tensor:
    """The weight of each negative's loss, `[N]`.

    Args:
        recipe: Recipe with the rule for the weights.
        margins: Mean over the batch of each negative's margin, `[N]`.
        step: Optimizer step, from 0. `random` weights are drawn from the step, so processes and resumed runs agree.
    """
    if recipe.weights == "dynamic":
        return dynamic_weights(mean_rewards(recipe, margins))
    if recipe.weights == "bounded":
        return bounded_weights(recipe.beta * margins)
    if recipe.weights == "fixed":
        return margins.new_tensor([term.weight for term in recipe.terms])
    if recipe.weights == "random":
        drawn = random.Random(f"{recipe.seed}/{step}").choice(recipe.negatives)
        return margins.new_tensor([float(name == drawn) for name in recipe.negatives])
    return torch.ones_like(margins)


def losses(recipe: Recipe, ratios: LogRatios, q: dict[str, Tensor]) -> Tensor:
    """The loss of each row against each negative, `[B, N]`, with the arguments that each loss needs."""
    of_batch = {"image_margin": ratios.image_margin, "chosen_logratio": ratios.chosen}
    columns = []
    for index, term in enumerate(recipe.terms):
        loss = LOSSES[term.loss]
        margins = ratios.margins if loss.margin == "sum" else ratios.mean_margins
        there = {**of_batch, "q": q.get(term.negative.name)}
        given = {name: there[name] if name in there else getattr(recipe, name) for name in loss.needs}
        columns.append(loss.function(margins[:, index], **given))
    return torch.stack(columns, dim=1)
