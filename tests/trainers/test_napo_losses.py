"""The objective against NaPO's released code, run by `scripts/replay_napo_losses.py` on the same log-probs."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from napo_bench.trainers.means import Means
from napo_bench.trainers.objective import LogRatios, loss_weights, losses, noise_robustnesses
from napo_bench.trainers.recipe import load_recipe

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).parents[2]
RELEASED = json.loads((Path(__file__).parent / "napo_losses.json").read_text())
COLUMNS = {"rejected": "rej", "language": "question_only", "vision": "image_only"}


def load_script():
    spec = importlib.util.spec_from_file_location("replay_napo_losses", ROOT / "scripts" / "replay_napo_losses.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


replay = load_script()


def objective_of(case):
    """Loss, q by name and weights of one group of rows, in float64."""
    recipe, values = load_recipe(f"llava-1.5-7b-{case['variant']}"), replay.log_probs(case["seed"])
    columns = [0, *(replay.RESPONSES.index(COLUMNS[name]) for name in recipe.negatives)]
    sums, means = (torch.from_numpy((values[a] - values[b])[:, columns]) for a, b in KINDS)
    ratios = LogRatios.of(sums, means, len(recipe.negatives))
    totals = torch.stack([ratios.margins, ratios.mean_margins, torch.ones_like(ratios.margins)], 1).sum(0)
    of_group = Means.of(totals[None])
    q = noise_robustnesses(recipe, of_group)
    weights = loss_weights(recipe, of_group, None, step=1, in_step=of_group.rows[0])[0]
    by_row = losses(recipe, ratios, {name: value.expand(len(sums)) for name, value in q.items()})
    return by_row.mean(0), {COLUMNS[name]: float(value) for name, value in q.items()}, weights


KINDS = (("policy", "reference"), ("policy_mean", "reference_mean"))


def test_the_replay_has_every_variant_and_weights_below_and_above_one():
    assert {case["variant"] for case in RELEASED} == set(replay.VARIANTS)
    weights = [weight for case in RELEASED for weight in case["weights"] or ()]
    assert min(weights) == 0.01 and max(weights) > 1.5


@pytest.mark.parametrize("case", RELEASED, ids=lambda case: f"{case['variant']}-{case['seed']}")
def test_loss_q_and_weights_are_those_of_the_released_code(case):
    """The released code does not cap a weight at 1, the range that the paper states. Below 1 everything is equal."""
    by_negative, q, weights = objective_of(case)
    assert q == pytest.approx(case["q"], abs=1e-6)
    if case["weights"] is not None:
        assert weights.tolist() == pytest.approx([min(weight, 1.0) for weight in case["weights"]], abs=1e-6)
        weights = torch.tensor(case["weights"], dtype=torch.float64)
    assert float((by_negative * weights).sum()) == pytest.approx(case["loss"], rel=1e-6)
