"""The experiments of the laboratory, as steps. Each step finds out which part of the step is done."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from napo_bench.core import processes
from napo_bench.core.remaining import Work
from napo_bench.micro import MICRO
from napo_bench.runs.evaluate import EvalOptions
from napo_bench.studies.experiment import MICRO_ROWS, Experiment, Step, Trained
from napo_bench.studies.paper_claims.changed_rows import (
    expect_things_shown,
    reject_custom,
    swap_labels,
    write_changed_rows,
)
from napo_bench.studies.paper_claims.margins import compute_log_probs, probing_recipe
from napo_bench.trainers.negatives import BIASED
from napo_bench.trainers.recipe import Recipe, load_recipe, recipe_names

if TYPE_CHECKING:
    import pyarrow as pa

    from napo_bench.core.progress import Progress

TABLES, LABEL_NOISE, ALPHA = "tables", "noise-in-labels", "alpha"
SUITE = ("vlind", "object_halbench")
"""The benchmarks of the paper's Tables 2-6."""

PROBED = ("micro-dpo", "micro-napo")
"""Methods whose margins are compared with known noise: DPO never trained on the biased negatives, NaPO did."""

SWAPPED = ("micro-dpo", "micro-cdpo", "micro-rdpo", "micro-napo-original")
"""Methods that train only on the original pairs, for the part about label noise."""

PERCENTS = (0, 25, 50)
"""Shares of the original pairs whose labels are swapped."""


@dataclass(frozen=True)
class Change:
    """Rows with another kind of negative.

    Attributes:
        title: Title of the table.
        label: Label of the changed rows.
        note: Sentence about the negatives before and after the change.
        rewrite: Function from original rows to changed rows.
        methods: Recipes that train on both kinds of rows.
    """

    title: str
    label: str
    note: str
    rewrite: Callable[[pa.Table], pa.Table]
    methods: Sequence[str]


CHANGES = {
    "biased-pairs": Change(
        "Original pairs that are biased already",
        "biased",
        "The rejected response is wrong in one detail of the image. Biased: the rejected response is what the prior "
        "says.",
        reject_custom,
        ("micro-dpo", "micro-napo"),
    ),
    "plausible-negatives": Change(
        "Language-biased negatives that are plausible",
        "plausible",
        "If a question names no object, the language-biased negative is always the same street. Plausible: the "
        "negative is what is typical of an object in the image.",
        expect_things_shown,
        ("micro-napo", "micro-napo-lb1"),
    ),
}
"""Part of the laboratory -> the change whose effect it shows."""

PARTS = (TABLES, LABEL_NOISE, ALPHA, *CHANGES)


@dataclass(frozen=True)
class Sweep:
    """The alpha of a recipe that a sweep varies.

    Attributes:
        figure: Figure of the paper.
        key: Key of the recipe.
        alphas: Values of the alpha. The sweep also includes the recipe's own value.
    """

    figure: str
    key: str
    alphas: Sequence[float]


SWEEPS = {
    "micro-napo-lb1": Sweep("Figure 5", "alpha_language", (0.1, 0.3, 1.0)),
    "micro-napo-vb1": Sweep("Figure 6", "alpha_vision", (0.01, 0.03, 0.1, 0.3, 1.0)),
}
"""Recipe -> its sweep. The paper's ranges are 0.1-1 for mean and 0.01-0.1 for summed log-probs; the micro world's
answers are a tenth as long, so sums are a tenth as large and their sweep ends at 1."""


def table_methods() -> list[str]:
    """DPO, mDPO, NaPO and every variant of NaPO in the package, for the micro world."""
    names = recipe_names()
    return ["micro-dpo", "micro-mdpo", "micro-napo", *(name for name in names if name.startswith("micro-napo-"))]


@dataclass(frozen=True)
class Laboratory:
    """The laboratory.

    Attributes:
        out: Folder of the laboratory.
        seeds: Seeds of the trainings, at least two.
        parts: Parts, of PARTS.
        evaluation: Options of the evaluations; the data folder is the micro world's.
        rows: Number of preference rows that are drawn.
        overrides: "key=value" for every recipe.
        percents: Shares of swapped labels.
        methods: Recipes of the tables.
        swapped_methods: Recipes that train on swapped labels.
        sweeps: Recipe -> its sweep.
    """

    out: Path
    seeds: Sequence[int]
    parts: Sequence[str]
    evaluation: EvalOptions
    rows: int = MICRO_ROWS
    overrides: Sequence[str] = ()
    percents: Sequence[int] = PERCENTS
    methods: Sequence[str] = field(default_factory=table_methods)
    swapped_methods: Sequence[str] = SWAPPED
    sweeps: Mapping[str, Sweep] = field(default_factory=lambda: SWEEPS)

    @cached_property
    def swept(self) -> dict[str, dict[float, str]]:
        """Recipe -> alpha -> method; empty without the part alpha."""
        found: dict[str, dict[float, str]] = {}
        for name, sweep in self.sweeps.items() if ALPHA in self.parts else ():
            own = getattr(self._recipe(name), sweep.key)
            found[name] = {
                alpha: name if alpha == own else f"{name}-{sweep.key.replace('_', '-')}-{alpha:g}"
                for alpha in sorted({*sweep.alphas, own})
            }
        return found

    @cached_property
    def main(self) -> Experiment:
        """The experiment with all trainings on unchanged rows."""
        recipes: dict[str, Recipe] = {}
        if TABLES in self.parts:
            recipes |= {name: self._recipe(name) for name in self.methods}
        if LABEL_NOISE in self.parts:
            recipes |= {name: self._recipe(name) for name in self.swapped_methods}
        for part in self._changes:
            recipes |= {name: self._recipe(name) for name in CHANGES[part].methods}
        for name, methods in self.swept.items():
            key = self.sweeps[name].key
            recipes |= {method: self._recipe(name, f"{key}={alpha}") for alpha, method in methods.items()}
        return Experiment(
            out=self.out,
            base=MICRO,
            recipes=recipes,
            data=None,
            seeds=self.seeds,
            evaluation=self.evaluation,
            rows=self.rows,
            always_negatives=True,
        )

    @cached_property
    def swapped(self) -> Mapping[int, Experiment]:
        """Percentage of swapped labels -> experiment on such rows. The trainings with 0 percent are part of `main`."""
        if LABEL_NOISE not in self.parts:
            return {}
        return {
            percent: dataclasses.replace(
                self.main,
                out=self.out / f"swapped-{percent}",
                recipes={name: self._recipe(name) for name in self.swapped_methods},
                data=str(self.out / "rows" / f"micro-{self.rows}-swapped-{percent}.parquet"),
                always_negatives=False,
            )
            for percent in sorted(set(self.percents) - {0})
        }

    @cached_property
    def changed(self) -> Mapping[str, Experiment]:
        """Part -> experiment on the changed rows of this part. The trainings on unchanged rows are part of `main`."""
        return {
            part: dataclasses.replace(
                self.main,
                out=self.out / part,
                recipes={name: self._recipe(name) for name in CHANGES[part].methods},
                data=str(self.out / "rows" / f"micro-{self.rows}-{part}.parquet"),
                always_negatives=False,
                has_negatives=True,
            )
            for part in self._changes
        }

    @property
    def _changes(self) -> list[str]:
        return [part for part in CHANGES if part in self.parts]

    @property
    def probed(self) -> list[Trained]:
        """The checkpoints whose margins are compared with known noise."""
        if TABLES not in self.parts:
            return []
        return [trained for trained in self.main.trained() if trained.method in PROBED]

    @property
    def probing(self) -> Recipe:
        """The recipe that computes the log-probs for the margins."""
        return probing_recipe(self._recipe("micro-napo"), self.main.rows_for(BIASED))

    @property
    def cache(self) -> Path:
        """The folder of the log-probs of the unchanged rows."""
        return self.main.out / "cache"

    def steps(self) -> list[Step]:
        """Everything to do, in order."""
        steps = [*self.main.preparation(), *self.main.trainings()]
        main = Path(self.main.rows_for(BIASED))
        probes = [("the base", self.main.checkpoint)] if self.probed else []
        probes += [(f"{trained.method}, seed {trained.seed}", str(trained.model)) for trained in self.probed]
        for name, checkpoint in probes:
            probe, made = partial(self._probe, checkpoint), self.cache / f"margins under {name}"
            steps.append(
                Step(f"Margins under {name}", probe, made, [main, Path(checkpoint)], Work("margins", self.rows))
            )
        for percent, experiment in self.swapped.items():
            source, out = Path(self.main.rows_given()), Path(experiment.rows_given())
            swap = partial(self._change, source, out, partial(swap_labels, percent=percent))
            steps.append(Step(f"Swap {percent}% of the labels", swap, out, [source]))
            steps += [
                dataclasses.replace(step, title=f"{step.title}, {percent}% swapped") for step in experiment.trainings()
            ]
        for part, experiment in self.changed.items():
            out = Path(experiment.rows_given())
            change = partial(self._change, main, out, CHANGES[part].rewrite)
            steps.append(Step(f"Rows: {part}", change, out, [main]))
            steps += [dataclasses.replace(step, title=f"{step.title}, {part}") for step in experiment.trainings()]
        return steps

    def _recipe(self, name: str, *further: str) -> Recipe:
        return load_recipe(name, [*self.overrides, *further])

    def _probe(self, checkpoint: str, progress: Progress) -> None:
        compute_log_probs(checkpoint, self.probing, self.cache, progress)

    def _change(self, source: Path, out: Path, change: Callable[[pa.Table], pa.Table], _: Progress) -> None:
        if processes.is_first() and not out.is_file():
            write_changed_rows(source, out, change)
        processes.wait()
