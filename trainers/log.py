"""The log of a training: the values of each forward by name, and their means since the last line."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from napo_bench.trainers.means import Means, Rounding
from napo_bench.trainers.objective import LogRatios, weights_undefined
from napo_bench.trainers.recipe import Recipe


class Averages:
    """Means of named values over rows and forwards.

    Args:
        sums: Name -> sum of the values and number of the values; empty by default.
        device: Device of the sums.
    """

    def __init__(self, sums: Mapping[str, Sequence[float]] | None = None, device: torch.device | None = None) -> None:
        self._sums = {name: torch.tensor(values, device=device) for name, values in (sums or {}).items()}

    def add(self, name: str, values: Tensor, counts: Tensor) -> None:
        """Add values, `[n]`, each as often as its count says, `[n]`."""
        added = torch.stack([(values.detach() * counts).sum(), counts.sum()])
        self._sums[name] = self._sums.get(name, torch.zeros_like(added)) + added

    def means(self, over_processes: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Name -> mean over all processes, without the names that no row has.

        Args:
            over_processes: Function that adds up a tensor over the processes, which all have the same names.
        """
        names = sorted(self._sums)
        sums = over_processes(torch.stack([self._sums[name] for name in names]))
        return {name: total / rows for name, (total, rows) in zip(names, sums.tolist(), strict=True) if rows}

    def copy(self) -> Averages:
        """The same averages, to which others can be added."""
        copied = Averages()
        copied._sums = dict(self._sums)
        return copied

    def sums(self) -> dict[str, list[float]]:
        """The sums in the form that `Averages` takes."""
        return {name: values.tolist() for name, values in self._sums.items()}


def logged_values(
    recipe: Recipe,
    present: Tensor,
    sums: Tensor,
    ratios: LogRatios,
    means: Means,
    begun: Tensor,
    rounding: Rounding | None,
    by_row: Tensor,
    q: Mapping[str, Tensor],
    weights: Tensor,
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The values that one forward gives to the log: name, values, and how often each value counts.

    Args:
        recipe: Recipe with the objective.
        present: 1 if the row counts and has the negative, `[B, N]`.
        sums: Summed log-probs of the policy, `[B, K]`.
        ratios: Log-ratios of the rows.
        means: Means over the rows of each group of this forward.
        begun: 1 for a group that begins in this forward, else 0, `[G]`. The values of a group count once.
        rounding: Rounding of the margins, if it is measured.
        by_row: Losses, `[B, N]`.
        q: Name of a negative -> q of each group, `[G]`.
        weights: Weights of the losses in each group, `[G, N]`.
    """
    beta, counted = recipe.beta, present.any(1).float()
    yield "rewards/chosen", beta * ratios.chosen, counted
    yield "logps/chosen", sums[:, 0], counted
    for index, term in enumerate(recipe.terms):
        negative, margin, has = term.negative, ratios.margins[:, index], present[:, index]
        yield f"rewards/{negative.tag}", beta * (ratios.chosen - margin), has
        yield f"rewards/margins{negative.suffix}", beta * margin, has
        yield f"rewards/accuracies{negative.suffix}", (margin > 0).float(), has
        yield f"logps/{negative.tag}", sums[:, 1 + index], has
        yield f"loss/{negative.tag}", by_row[:, index], has
        there = means.present[:, index] * begun
        yield f"napo/gamma_{negative.tag}", weights[:, index], there
        if negative.name in q:
            yield f"napo/q_{negative.tag}", q[negative.name], there
        if rounding is not None:
            yield f"napo/rounding_{negative.tag}", rounding.of_means(means.rows)[:, index], there
    if recipe.weights == "dynamic":
        yield "napo/gamma_undefined", weights_undefined(recipe, means, rounding).float(), begun
    if ratios.image_margin is not None:
        yield "rewards/margins_image", beta * ratios.image_margin, counted


def peak_memory(device: torch.device) -> float:
    """The peak of memory so far in GB: that of the device, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
