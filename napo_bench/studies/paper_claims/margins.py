"""Which margin finds noise: margins of biased negatives that are known to be noise or not.

The paper's Figure 4, Table 4 and Table 7 with the truth of the micro world: `is_noise` says of each biased negative
whether the negative is right by accident.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from napo_bench.core import processes
from napo_bench.studies.paper_claims.estimate import Estimate
from napo_bench.trainers.negatives import BIASED, CHOSEN, NEGATIVES

if TYPE_CHECKING:
    from napo_bench.core.progress import Progress
    from napo_bench.trainers.recipe import Recipe
    from napo_bench.trainers.reference import Reference
    from napo_bench.trainers.run import Inputs

Margin = Literal["sum", "mean"]
MARGINS: tuple[Margin, ...] = ("sum", "mean")


@dataclass(frozen=True)
class Negatives:
    """The biased negatives of one kind, `[N]`: one for each row with such a negative.

    Attributes:
        positions: Positions of the rows in the data set.
        noisy: Whether the negative is noise, that is, right.
        length_margins: Tokens of the chosen response minus those of the negative (Table 7).
        asked: Kind of the row's question.
    """

    positions: NDArray[np.int64]
    noisy: NDArray[np.bool_]
    length_margins: NDArray[np.int64]
    asked: Sequence[str]


@dataclass(frozen=True)
class Separation:
    """How well a margin of one policy separates noise-free negatives of one kind from noise, over seeds.

    Attributes:
        policy: Method whose checkpoints were probed.
        kind: Kind of negative, a name in `BIASED`.
        margin: Whether the margin is from summed or from mean log-probs.
        aucs: AUC of each seed; empty if all negatives are noise, or none is.
        auc: Chance that a noise-free negative has a larger margin than a noisy one.
        auc_within: The same between negatives of one kind of question.
        noise_free: Mean margin of the noise-free negatives.
        noisy: Mean margin of the noisy negatives.
    """

    policy: str
    kind: str
    margin: Margin
    aucs: list[float]
    auc: Estimate | None
    auc_within: Estimate | None
    noise_free: Estimate | None
    noisy: Estimate | None


def auc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Args:
        scores: `[N]`.
        positive: `[N]`.

    Returns:
        In [0, 1]; None if there are no positives or no negatives.
    """
    from scipy.stats import rankdata

    positives = int(positive.sum())
    others = len(positive) - positives
    if not positives or not others:
        return None
    above = rankdata(scores)[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * others))


def auc_within(scores: NDArray[np.float64], positive: NDArray[np.bool_], groups: Sequence[str]) -> float | None:
    """The AUC over the pairs of a positive and a negative of the same group.

    Args:
        scores: `[N]`.
        positive: `[N]`.
        groups: `[N]`.

    Returns:
        In [0, 1]; None if no group has both.
    """
    names = np.array(groups)
    won, pairs = 0.0, 0
    for name in set(groups):
        part = names == name
        found = auc(scores[part], positive[part])
        if found is not None:
            count = int(positive[part].sum()) * int((~positive[part]).sum())
            won, pairs = won + found * count, pairs + count
    return won / pairs if pairs else None


def separation(
    policy: str, kind: str, margin: Margin, negatives: Negatives, margins: Sequence[NDArray[np.float64]]
) -> Separation:
    """How well a margin separates the noise-free negatives from noise.

    Args:
        policy: Name of the policy.
        kind: Kind of the negatives.
        margin: Name of the margin.
        negatives: The negatives.
        margins: Margins of each seed, `[N]`.
    """
    noisy = negatives.noisy
    aucs = [found for values in margins if (found := auc(values, ~noisy)) is not None]
    within = [found for values in margins if (found := auc_within(values, ~noisy, negatives.asked)) is not None]
    means = [
        Estimate.of([float(values[part].mean()) for values in margins]) if part.any() else None
        for part in (~noisy, noisy)
    ]
    return Separation(
        policy, kind, margin, aucs, Estimate.of(aucs, (0.0, 1.0)), Estimate.of(within, (0.0, 1.0)), *means
    )


def margins_of(
    policy: Reference, base: Reference, response: int, positions: NDArray[np.int64]
) -> dict[Margin, NDArray[np.float64]]:
    """Margins of negatives, from sums (m) and from means (a): log-ratio of the chosen response minus that of the
    negative.

    Args:
        policy: Log-probs under the trained checkpoint.
        base: Log-probs under the base.
        response: Column of the negative.
        positions: Positions of the rows, `[N]`.

    Returns:
        `[N]` each.
    """
    ratios: dict[Margin, NDArray[np.float64]] = {
        "sum": policy.sum.astype(np.float64) - base.sum,
        "mean": policy.mean.astype(np.float64) - base.mean,
    }
    return {name: (ratio[:, 0] - ratio[:, response])[positions] for name, ratio in ratios.items()}


def probing_recipe(recipe: Recipe, data: str) -> Recipe:
    """A recipe that needs the log-probs of every response of the rows in `data`."""
    return dataclasses.replace(recipe.with_loss("dpo", NEGATIVES), data=data, workers=0)


def compute_log_probs(checkpoint: str, recipe: Recipe, cache: Path, progress: Progress) -> None:
    """Compute the log-probs of every response under a checkpoint, if they are not stored yet.

    Args:
        checkpoint: Folder of the checkpoint.
        recipe: Of `probing_recipe`.
        cache: Folder of stored log-probs. A training's reference pass with the same settings is found here.
        progress: Told how far it is.
    """
    from napo_bench.trainers.forward.logps import prepare
    from napo_bench.trainers.reference import rows_missing
    from napo_bench.trainers.run import store_reference, stored_dtype

    inputs, folder = _opened(checkpoint, recipe, cache)
    device = processes.join()
    missing = rows_missing(len(inputs.rows), folder)
    processes.wait()
    if missing:
        model = inputs.checkpoint.load_model(device, stored_dtype(recipe))
        prepare(model)
        store_reference(model, inputs, recipe, folder, progress)


def read_log_probs(checkpoint: str, recipe: Recipe, cache: Path) -> Reference:
    """The log-probs that `compute_log_probs` stored; NaN for rows that cannot be computed."""
    from napo_bench.trainers.reference import read_reference

    inputs, folder = _opened(checkpoint, recipe, cache)
    return read_reference(inputs.rows, folder)


def read_negatives(checkpoint: str, recipe: Recipe, cache: Path, base: Reference) -> dict[str, Negatives]:
    """Kind -> its biased negatives, except for rows that `base` could not compute.

    Args:
        checkpoint: Base, whose tokenizer counts the tokens.
        recipe: Of `probing_recipe`.
        cache: See `compute_log_probs`.
        base: Log-probs under the base.
    """
    from pyarrow import parquet

    from napo_bench.micro.language import understand
    from napo_bench.micro.preferences import is_noise
    from napo_bench.trainers.run import open_inputs

    conversation = open_inputs(dataclasses.replace(recipe, base=checkpoint), cache).conversation
    columns = ["question", CHOSEN, *(negative.column for negative in BIASED.values()), "scene"]
    parts = sorted(Path(recipe.data).glob("*.parquet"))
    rows = [row for part in parts for row in parquet.read_table(part, columns=columns).to_pylist()]
    found = {}
    for kind, negative in BIASED.items():
        column = negative.column
        there = [
            position
            for position, row in enumerate(rows)
            if (row[column] or "").strip() and np.isfinite(base.sum[position]).all()
        ]
        tokens = [
            len(conversation.answer_ids(rows[i][CHOSEN].strip()))
            - len(conversation.answer_ids(rows[i][column].strip()))
            for i in there
        ]
        found[kind] = Negatives(
            np.array(there, dtype=np.int64),
            np.array([is_noise(rows[i]["question"], rows[i][column], rows[i]["scene"]) for i in there], dtype=bool),
            np.array(tokens, dtype=np.int64),
            [understand(rows[i]["question"]).kind for i in there],
        )
    return found


def all_margins(
    recipe: Recipe, policy: Reference, base: Reference, negatives: Mapping[str, Negatives]
) -> dict[tuple[str, Margin], NDArray[np.float64]]:
    """(Kind, margin) -> the margins of that kind's negatives under one policy, `[N]`."""
    found = {}
    for kind in BIASED:
        response = 1 + recipe.negatives.index(kind)
        for name, values in margins_of(policy, base, response, negatives[kind].positions).items():
            found[kind, name] = values
    return found


def _opened(checkpoint: str, recipe: Recipe, cache: Path) -> tuple[Inputs, Path]:
    """The inputs of a pass, and its folder, which is that of a training's reference pass."""
    from napo_bench.trainers.run import open_inputs, reference_folder_of

    inputs = open_inputs(dataclasses.replace(recipe, base=checkpoint), cache)
    return inputs, reference_folder_of(inputs, recipe, cache)
