"""Run the loss of NaPO's released code on drawn log-probs, and write what comes out for the tests.

    python scripts/replay_napo_losses.py PATH/TO/NaPO tests/trainers/napo_losses.json

The folder is a checkout of zhangzef/NaPO. The script takes `dpo_loss` (muffin/train/trainers.py) and the methods
`dpo_lq_dyn_loss` and `compute_loss` of LLaVA15BiasPOTrainer (muffin/data/bias_datasets_trainer.py) out of the files and
runs them on the CPU, one process, without the rest of the repository. The released `compute_loss` has its dynamic
weights (Eq. 13) in a comment. The script removes the comment marks, and so runs the weights as well.

`tests/trainers/test_napo_losses.py` draws the same log-probs (`log_probs`) and compares.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SEEDS = range(6)
ROWS = 8
RESPONSES = ("win", "rej", "question_only", "image_only")
BOTH = "win-question_only-win-image_only"
VARIANTS = {
    "napo": (BOTH, "question_only-image_only", "0.5-0.01", "avglogp-logp", "dyn"),
    "napo-a2": (BOTH, "question_only-image_only", "0.5-0.01", "avglogp-logp", "-"),
    "napo-a3": (BOTH, "-", "-", "-", "dyn"),
    "napo-fixed": (BOTH, "question_only-image_only", "0.5-0.01", "avglogp-logp", "0.04-0.48-0.48"),
    "napo-lb1": ("win-question_only", "question_only", "0.5", "avglogp", "dyn"),
    "napo-lb1-sum": ("win-question_only", "question_only", "0.01", "logp", "dyn"),
    "napo-lb2": ("win-question_only", "-", "-", "-", "dyn"),
    "napo-vb1": ("win-image_only", "image_only", "0.01", "logp", "dyn"),
    "napo-vb1-mean": ("win-image_only", "image_only", "0.5", "avglogp", "dyn"),
    "napo-everywhere": (BOTH, "rej-question_only-image_only", "0.01-0.5-0.01", "logp-avglogp-logp", "dyn"),
    "napo-original": ("-", "rej", "0.01", "logp", "-"),
    "dpo": ("-", "-", "-", "-", "-"),
}
"""Variant of the recipes -> train_mode, use_dyn_q, alpha, loss_type and loss_weight of the released scripts."""


def log_probs(seed: int) -> dict[str, NDArray[np.float64]]:
    """Summed and mean log-probs of policy and reference, `[ROWS, 4]` each, in the order of `RESPONSES`.

    The mean margins of a third of the seeds have both signs, and those of another third are near 0.
    """
    draw = np.random.default_rng(seed)
    tokens = draw.integers(5, 200, (ROWS, len(RESPONSES)))
    reference = -draw.gamma(2.0, 0.5, (ROWS, len(RESPONSES))) * tokens
    moved = draw.normal(scale=(0.3, 3.0, 20.0)[seed % 3], size=reference.shape)
    moved[:, 1:] -= (0.0, 2.0, 15.0)[seed % 3] * draw.random(len(RESPONSES) - 1)
    policy = reference + moved
    return {
        "policy": policy,
        "policy_mean": policy / tokens,
        "reference": reference,
        "reference_mean": reference / tokens,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", message="To copy construct")
    lines = [json.dumps(_run(arguments.checkout, variant, seed)) for variant in VARIANTS for seed in SEEDS]
    arguments.out.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def _run(checkout: Path, variant: str, seed: int) -> dict[str, Any]:
    """Loss, q and weights of one batch by the released code."""
    mode, use_dyn_q, alpha, loss_type, loss_weight = VARIANTS[variant]
    responses = list(dict.fromkeys(["win", "rej", *([] if mode == "-" else mode.split("-"))]))
    values = log_probs(seed)
    columns = [RESPONSES.index(name) for name in responses]

    def get_logps(*_: Any, **__: Any) -> tuple[list[torch.Tensor], ...]:
        names = ("policy", "policy_mean", "reference", "reference_mean")
        return tuple([torch.from_numpy(values[name][:, column]) for column in columns] for name in names)

    seen: dict[str, Any] = {"q": {}, "weights": None}

    def collect_preference_metrics(_beta: float, q: dict[str, torch.Tensor], *_: Any) -> dict[str, Any]:
        seen["q"] = {name: float(value) for name, value in q.items()}
        return {}

    def read_weights(text: str) -> None:
        if "[" in text:
            seen["weights"] = ast.literal_eval(text[text.index("[") :])

    names: dict[str, Any] = {
        "get_logps": get_logps,
        "collect_preference_metrics": collect_preference_metrics,
        "print": read_weights,
    }
    released = _released(checkout, names)
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            past_index=-1, use_dyn_q=use_dyn_q, alpha=alpha, loss_type=loss_type, loss_weight=loss_weight
        ),
        _nested_gather=lambda value: value,
        log=lambda _: None,
    )
    trainer.dpo_lq_dyn_loss = lambda *values: released["dpo_lq_dyn_loss"](trainer, *values)
    loss = released["compute_loss"](trainer, None, {"train_mode": mode, "beta": 0.1})
    return {"variant": variant, "seed": seed, "loss": float(loss), **seen}


def _released(checkout: Path, names: dict[str, Any]) -> dict[str, Any]:
    """The functions of the released code, with these names around them."""
    scope: dict[str, Any] = {
        "torch": torch,
        "F": torch.nn.functional,
        "Tuple": tuple,
        "Module": torch.nn.Module,
        **names,
    }
    losses = ast.parse((checkout / "muffin/train/trainers.py").read_text())
    source = (checkout / "muffin/data/bias_datasets_trainer.py").read_text().replace('"cuda"', '"cpu"')
    begin, end = (
        source.index('        # if self.args.loss_weight == "dyn":'),
        source.index('        if self.args.loss_weight != "-":'),
    )
    dynamic = re.sub("^        # ", "        ", source[begin:end], flags=re.MULTILINE)
    source = source[:begin] + dynamic + source[end:].replace("        if self", "        elif self", 1)
    trainer = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "LLaVA15BiasPOTrainer"
    )
    wanted = {"dpo_loss", "dpo_lq_dyn_loss", "compute_loss"}
    found = [
        node for node in [*losses.body, *trainer.body] if isinstance(node, ast.FunctionDef) and node.name in wanted
    ]
    for node in found:
        exec(compile(ast.unparse(node), str(checkout), "exec"), scope)
    return scope


if __name__ == "__main__":
    main()
