"""Choose each micro recipe's learning rate by one rule: the largest that keeps the chosen answers likely.

    python scripts/choose_learning_rate.py --out runs/learning-rates

Every recipe trains with every rate on the rows of train-then-eval, seed 0. The rule chooses the largest rate that
leaves the chosen answers of held-out rows at least as likely, on average, as under the base. Preference losses can
raise every margin while all answers become unlikely, also the chosen ones: such a policy prefers well and says nothing
useful. The rule looks at no benchmark and at no biased negative. The script also prints the reward accuracy: the share
of held-out original pairs (chosen, rejected) whose margin is above 0.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from napo_bench.cli.begin import quiet_libraries
from napo_bench.core.bars import Bars
from napo_bench.core.progress import SILENT
from napo_bench.micro.preferences import write_preference_rows
from napo_bench.runs.evaluate import EvalOptions
from napo_bench.studies.experiment import MICRO_RECIPES, Experiment, named_recipes
from napo_bench.studies.paper_claims.margins import compute_log_probs, read_log_probs
from napo_bench.trainers.negatives import REJECTED
from napo_bench.trainers.run import train

RATES = (1e-5, 3e-5, 1e-4, 3e-4)
HELD_OUT_ROWS, HELD_OUT_SEED = 500, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", action="append", help="repeatable; default: those of train-then-eval")
    parser.add_argument("--rate", action="append", type=float, help=f"repeatable; default: {RATES}")
    options = parser.parse_args()
    quiet_libraries()
    recipes = named_recipes(options.recipe or MICRO_RECIPES, [])
    experiment = Experiment(
        options.out, "micro", recipes, None, evaluation=EvalOptions(batch_size=32), micro_suite=True
    )
    with Bars() as bars:
        for step in experiment.preparation()[:-1]:
            step.run(bars)
    held_out = options.out / "rows" / "held-out.parquet"
    if not held_out.is_file():
        write_preference_rows(held_out, HELD_OUT_ROWS, HELD_OUT_SEED)

    rates = sorted(options.rate or RATES)
    shown = Table("reward accuracy (log-ratio of chosen)", *(f"{rate:g}" for rate in rates), "chosen")
    for trained in experiment.trained():
        original_pairs = trained.recipe.with_loss("dpo", [REJECTED.name])
        pairs = dataclasses.replace(original_pairs, data=str(held_out), workers=0)
        cache = options.out / "cache"
        compute_log_probs(experiment.checkpoint, pairs, cache, SILENT)
        base = read_log_probs(experiment.checkpoint, pairs, cache).sum
        found = {}
        for rate in rates:
            model = options.out / trained.method / f"{rate:g}"
            train(dataclasses.replace(trained.recipe, learning_rate=rate), model, cache=cache, resume=True)
            compute_log_probs(str(model), pairs, cache, SILENT)
            ratios = read_log_probs(str(model), pairs, cache).sum - base
            found[rate] = float(np.mean(ratios[:, 0] > ratios[:, 1])), float(ratios[:, 0].mean())
        kept = [rate for rate, (_, ratio) in found.items() if ratio >= 0]
        best = f"{max(kept):g}" if kept else "none"
        shown.add_row(trained.method, *(f"{accuracy:.3f} ({ratio:+.1f})" for accuracy, ratio in found.values()), best)
    Console().print(shown)


if __name__ == "__main__":
    main()
