"""The rows that share one q and one set of weights, the means over them, and the rounding of these means.

With `noise_rows: 8` the rows of a step are cut into groups of 8, in the order of the step: the first group has the rows
0 to 7. The groups do not depend on how processes and forwards share the rows. With `noise_rows: 0` the rows of one
forward of all processes are a group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from napo_bench.core.errors import NapoBenchError
from napo_bench.trainers.batches import TrainingBatch
from napo_bench.trainers.recipe import Recipe

_PAPER_ROWS = 32


@dataclass(frozen=True)
class Groups:
    """The groups of the rows of one forward.

    Attributes:
        first: Number of the first group, counted from the first group of the step.
        of_rows: Group of each row of this process, counted from `first`, `[B]` on the CPU; the values never fall.
        count: Number of groups of which any process has a row in this forward.
        continued: Whether the first group has rows in an earlier forward too.
    """

    first: int
    of_rows: Tensor
    count: int
    continued: bool = False

    def sums(self, by_row: Tensor) -> Tensor:
        """The sum over the rows of each group, from values by row, `[B, ...]` to `[G, ...]`."""
        sizes = torch.bincount(self.of_rows, minlength=self.count).tolist()
        return torch.stack([rows.sum(0) for rows in torch.split(by_row, sizes)])

    @property
    def begun(self) -> Tensor:
        """1 for a group that begins in this forward, else 0, `[G]`."""
        return torch.tensor([float(not self.continued), *[1.0] * (self.count - 1)])


def groups_of_step(
    forwards: Sequence[int], own: Sequence[int], noise_rows: int, rank: int, processes: int
) -> list[Groups]:
    """The groups of each forward of a step.

    Args:
        forwards: Number of rows of all processes that count, by forward.
        own: Number of rows of this process, by forward. A row that does not count is in the last group.
        noise_rows: Rows of a group; 0 makes each forward a group.
        rank: Number of this process. Process r has the rows r, r + processes, ... of a forward.
        processes: Number of processes.
    """
    groups, start = [], 0
    for index, (rows, mine) in enumerate(zip(forwards, own, strict=True)):
        if noise_rows:
            first, last = start // noise_rows, (start + max(rows, 1) - 1) // noise_rows
            of_rows = ((start + rank + processes * torch.arange(mine)) // noise_rows).clamp(max=last) - first
            continued = start % noise_rows > 0
        else:
            first = last = index
            of_rows, continued = torch.zeros(mine, dtype=torch.long), False
        groups.append(Groups(first, of_rows, last - first + 1, continued))
        start += rows
    return groups


def require_whole_groups(recipe: Recipe, processes: int) -> None:
    """Check that the rows of a step are whole groups.

    Raises:
        NapoBenchError: q or the weights would be means over fewer rows than the recipe says.
    """
    forward = recipe.per_device_batch_size * processes
    step = forward * recipe.gradient_accumulation
    if recipe.takes_means and recipe.noise_rows and step % recipe.noise_rows:
        whole = recipe.noise_rows // math.gcd(recipe.noise_rows, forward)
        forwards = whole * math.ceil(_PAPER_ROWS / (forward * whole))
        raise NapoBenchError(
            f"noise_rows is {recipe.noise_rows}: q and the weights of the losses are means over {recipe.noise_rows} "
            f"rows. A step has {step} rows ({recipe.per_device_batch_size} a forward x {recipe.gradient_accumulation} "
            f"forwards x {processes} process{'es' if processes > 1 else ''}), which is no multiple.",
            f"--set gradient_accumulation={forwards} makes steps of {forward * forwards} rows; the paper has "
            f"{_PAPER_ROWS}. For one GPU, take a recipe that ends in -lora. --set noise_rows=0 takes means over "
            "the rows of one forward of all processes.",
        )


def spans_forwards(recipe: Recipe, processes: int) -> bool:
    """Whether means need a pass ahead of each step, because a group has rows of more than one forward."""
    forward = recipe.per_device_batch_size * processes
    return recipe.takes_means and recipe.noise_rows > 0 and forward % recipe.noise_rows > 0


@dataclass(frozen=True)
class Means:
    """Means over the rows of G groups, on all processes, each over the rows that have the negative.

    Attributes:
        margins: Mean margin of summed log-probs, `[G, N]`; 0 if the group has no such negative.
        mean_margins: Mean margin of means over the tokens, `[G, N]`.
        rows: Number of rows with the negative, `[G, N]`.
    """

    margins: Tensor
    mean_margins: Tensor
    rows: Tensor

    @classmethod
    def of(cls, totals: Tensor) -> Means:
        """From the sums of margins, of margins of means, and of the rows with the negative, `[G, 3, N]`."""
        margins, mean_margins, rows = totals.unbind(1)
        return cls(margins / rows.clamp(min=1), mean_margins / rows.clamp(min=1), rows)

    def of_groups(self, groups: Groups) -> Means:
        """The means of the groups of one forward."""
        chosen = slice(groups.first, groups.first + groups.count)
        return Means(self.margins[chosen], self.mean_margins[chosen], self.rows[chosen])

    @property
    def present(self) -> Tensor:
        """Whether the group has the negative, `[G, N]`."""
        return self.rows > 0


@dataclass(frozen=True)
class Rounding:
    """The rounding of margins of summed log-probs: their changes under a change of pixels that is no larger than one
    rounding (`within_rounding`).

    Attributes:
        rows: Number of rows with the negative, `[N]`.
        total: Sum of the changes of their margins, `[N]`.
        squares: Sum of the squares of these changes, `[N]`.
    """

    rows: Tensor
    total: Tensor
    squares: Tensor

    @staticmethod
    def terms(changes: Tensor, present: Tensor) -> Tensor:
        """The sums over rows of one forward that `Rounding` takes, `[3, N]`, from changes of margins and presence,
        `[B, N]`.
        """
        there = changes * present
        return torch.stack([present, there, there * changes]).sum(1)

    def sums(self) -> list[list[float]]:
        """The values in the order in which `Rounding` takes them."""
        return [values.tolist() for values in (self.rows, self.total, self.squares)]

    def of_means(self, rows: Tensor) -> Tensor:
        """Root of the expected squared rounding of a mean margin over so many rows, `[G, N]` to `[G, N]`.

        The mean of the measured changes stays, because a rounding can have a direction. Their variance is divided by
        the rows. A negative that no measured row has counts as the negative with the largest rounding.
        """
        measured = self.rows.clamp(min=1)
        bias = self.total / measured
        variance = (self.squares / measured - bias.square()).clamp(min=0)
        of_means = (bias.square() + variance / rows.clamp(min=1)).sqrt()
        return of_means.where(self.rows > 0, of_means.amax(1, keepdim=True))


def within_rounding(batch: TrainingBatch, precision: torch.dtype, seed: int) -> TrainingBatch:
    """The same batch with each pixel times 1 + u or 1 - u, drawn; u is the unit roundoff of the precision.

    The change is no larger than one rounding of the pixels, but every later rounding falls differently. So log-probs of
    the batch differ from those of the same batch unchanged as they do in another batch, on another device, or after an
    update. Without the change two equal computations round equally, and their difference of 0 measures nothing.
    """
    draw, unit = torch.Generator().manual_seed(seed), torch.finfo(precision).eps / 2

    def changed(values: Tensor) -> Tensor:
        signs = torch.randint(0, 2, values.shape, generator=draw).to(values) * 2 - 1
        return values + values * signs * unit

    images = {
        name: changed(values) if values.is_floating_point() else values for name, values in batch.prompts.images.items()
    }
    return replace(batch, prompts=replace(batch.prompts, images=images))
