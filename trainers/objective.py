"""The objective of a batch: the weighted sum of the losses of all negatives, each with its q (Eq. 14)."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from napo_bench.trainers.losses import LOSSES
from napo_bench.trainers.means import Means, Rounding
from napo_bench.trainers.noise import bounded_weights, dynamic_weights, noise_robustness, shares_undefined
from napo_bench.trainers.recipe import Recipe


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

    @property
    def finite(self) -> Tensor:
        """Whether every log-ratio of the row is finite, `[B]` of bool."""
        columns = [self.chosen[:, None], self.margins, self.mean_margins]
        columns += [] if self.image_margin is None else [self.image_margin[:, None]]
        return torch.isfinite(torch.cat(columns, 1)).all(1)


def noise_robustnesses(recipe: Recipe, means: Means) -> dict[str, Tensor]:
    """The q of each negative whose loss takes one (Eq. 12): name of the negative -> q of each group, `[G]`.

    Args:
        recipe: Recipe with the losses, and with sums or means for q.
        means: Means over the rows of each group.
    """
    q = {}
    for index, term in enumerate(recipe.terms):
        if "q" in LOSSES[term.loss].needs:
            looked_at = means.margins if term.q_from == "sum" else means.mean_margins
            q[term.negative.name] = noise_robustness(looked_at[:, index], term.alpha)
    return q


def loss_weights(recipe: Recipe, means: Means, rounding: Rounding | None, step: int, in_step: Tensor) -> Tensor:
    """The weight of each negative's loss in each group, `[G, N]`.

    Args:
        recipe: Recipe with the rule for the weights.
        means: Means over the rows of each group. A negative that a group lacks takes no weight from the others.
        rounding: Rounding of the margins, for `dynamic` weights; None if the recipe does not ask for it.
        step: Optimizer step, from 0. `random` weights are drawn from the step, so processes and resumed runs agree.
        in_step: Number of rows with each negative in the whole step, `[N]`.
    """
    rewards = recipe.beta * means.margins
    if recipe.weights == "dynamic":
        return dynamic_weights(rewards, present=means.present, rounding=_least_sum(recipe, means, rounding))
    if recipe.weights == "bounded":
        return bounded_weights(rewards, means.present)
    if recipe.weights == "fixed":
        return rewards.new_tensor([term.weight for term in recipe.terms]).expand_as(rewards)
    if recipe.weights == "random":
        there = [name for name, rows in zip(recipe.negatives, in_step.tolist(), strict=True) if rows]
        drawn = random.Random(f"{recipe.seed}/{step}").choice(there or recipe.negatives)
        return rewards.new_tensor([float(name == drawn) for name in recipe.negatives]).expand_as(rewards)
    return torch.ones_like(rewards)


def weights_undefined(recipe: Recipe, means: Means, rounding: Rounding | None) -> Tensor:
    """Whether equal weights replace the dynamic weights of each group, `[G]` of bool."""
    return shares_undefined(recipe.beta * means.margins, means.present, _least_sum(recipe, means, rounding))


def _least_sum(recipe: Recipe, means: Means, rounding: Rounding | None) -> Tensor | float:
    """The distance from 0 that the sum of mean rewards must exceed for dynamic weights, `[G]`."""
    if rounding is None:
        return 0.0
    return recipe.beta * recipe.gamma_threshold * (rounding.of_means(means.rows) * means.present).sum(-1)


def losses(recipe: Recipe, ratios: LogRatios, q: dict[str, Tensor]) -> Tensor:
    """The loss of each row against each negative, `[B, N]`, with the arguments that each loss needs.

    Args:
        recipe: Recipe with the losses.
        ratios: Log-ratios of the rows.
        q: Name of a negative -> q of each row, `[B]`.
    """
    of_batch = {"image_margin": ratios.image_margin, "chosen_logratio": ratios.chosen}
    columns = []
    for index, term in enumerate(recipe.terms):
        loss = LOSSES[term.loss]
        margins = ratios.margins if loss.margin == "sum" else ratios.mean_margins
        there = {**of_batch, "q": q.get(term.negative.name)}
        given = {name: there[name] if name in there else getattr(recipe, name) for name in loss.needs}
        columns.append(loss.function(margins[:, index], **given))
    return torch.stack(columns, dim=1)
