"""train-then-eval: take a base and its biased negatives, train every recipe with every seed, and evaluate all
checkpoints.

Each step finds out which part of the step is done, so a stopped experiment continues. Under torchrun or accelerate
launch every process runs the same steps.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from napo_bench.benchmarks import all_tasks
from napo_bench.core import caches, processes
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.names import CONTROLS
from napo_bench.core.progress import Progress
from napo_bench.core.remaining import Work
from napo_bench.micro import MICRO, MICRO_TASKS, named_checkpoint
from napo_bench.runs.evaluate import EvalOptions, evaluate, identity_of, require_checkpoint, try_evaluation
from napo_bench.runs.identity import described, differences, held_run
from napo_bench.studies.micro_world import micro_world
from napo_bench.trainers.negatives import BIASED
from napo_bench.trainers.recipe import Recipe, load_recipe

MICRO_RECIPES = ("micro-dpo", "micro-mdpo", "micro-napo")
MICRO_ROWS = 1500
MICRO_TOKENS = 64
"""Maximum length of an answer in the micro world's language."""

QUICK_ROWS = 480
QUICK_LIMIT = 60
BASE = "base"
ROWS = Work("rows", MICRO_ROWS)
TYPICAL_ROWS = 5000
"""Assumed number of preference rows that the user gives, for the estimate of the time left."""


@dataclass(frozen=True)
class Trained:
    """A checkpoint that is trained by a recipe with a seed.

    Attributes:
        method: Name of the recipe.
        seed: Seed of the training.
        recipe: Resolved recipe.
        folder: Folder with `model/` and `eval/`.
    """

    method: str
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def model(self) -> Path:
        """The folder of the checkpoint."""
        return self.folder / "model"

    @property
    def run(self) -> Path:
        """The folder of the checkpoint's evaluation."""
        return self.folder / "eval"


@dataclass(frozen=True)
class Step:
    """A step of an experiment.

    Attributes:
        title: What the step does.
        run: Function that does the step and reports its progress. The function does nothing if the step is done.
        makes: File or folder that the step makes.
        needs: Files and folders that must exist before.
        work: Amount of the work.
    """

    title: str
    run: Callable[[Progress], None]
    makes: Path
    needs: Sequence[Path] = ()
    work: Work = ROWS


@dataclass(frozen=True)
class Experiment:
    """An experiment: what is trained from which base, and how all checkpoints are evaluated.

    Attributes:
        out: Folder of the experiment.
        base: Base checkpoint: folder, hub name, or "micro".
        recipes: Name -> recipe. The experiment's base and data replace the recipe's `base` and `data`.
        data: Preference rows, on the hub or in a file or folder; None draws the micro world's.
        seeds: Seeds of the trainings.
        evaluation: How checkpoints are evaluated.
        micro_suite: Whether to evaluate in the micro world, with the oracle as the judge.
        rows: Number of the micro world's rows that are drawn.
        always_negatives: Whether to build biased negatives also if no recipe needs them.
        has_negatives: Whether `data` has biased negatives, or will have them when it exists.
    """

    out: Path
    base: str
    recipes: Mapping[str, Recipe]
    data: str | None
    seeds: Sequence[int] = (0,)
    evaluation: EvalOptions = field(default_factory=EvalOptions)
    micro_suite: bool = False
    rows: int = MICRO_ROWS
    always_negatives: bool = False
    has_negatives: bool = False

    @property
    def checkpoint(self) -> str:
        """The base as a folder or hub name."""
        return named_checkpoint(self.base)

    @property
    def base_run(self) -> Path:
        """The folder of the base's evaluation."""
        return self.out / BASE / "eval"

    def trained(self) -> list[Trained]:
        """The trained checkpoints, method by method."""
        return [
            Trained(
                method,
                seed,
                dataclasses.replace(recipe, base=self.checkpoint, data=self.rows_for(recipe.negatives), seed=seed),
                self.out / method / f"seed-{seed}",
            )
            for method, recipe in self.recipes.items()
            for seed in self.seeds
        ]

    def try_first(self) -> None:
        """Before the first step, try everything that the steps need: preference rows, and all parts of an evaluation.

        Raises:
            NapoBenchError: something is missing, malformed or does not work.
        """
        from napo_bench.trainers.means import require_whole_groups

        require_checkpoint(self.checkpoint, self.evaluation)
        for recipe in self.recipes.values():
            require_whole_groups(recipe, processes.count())
        if self.data is not None and not self.has_negatives:
            from napo_bench.trainers.controls import SWAPPED, require_several_images
            from napo_bench.trainers.stored.table import open_table

            place = caches.training_place(self.out / "cache", "rows")
            table = open_table(self.data, {"question", "chosen", "rejected", "image"}, place, whole=True)
            if any(recipe.control == SWAPPED for recipe in self.recipes.values()):
                require_several_images(map(table.image_digest, range(len(table))))
        with self._suite() as options:
            try_evaluation(self.checkpoint, options)

    def steps(self) -> list[Step]:
        """Everything to do, in order."""
        return [*self.preparation(), *self.trainings()]

    def preparation(self) -> list[Step]:
        """The rows, their biased negatives, and the evaluation of the base."""
        steps = [Step(title, partial(self._write_rows, path), path) for title, path in self._drawn_rows()]
        if self._builds_negatives:
            work = Work("negatives", self._row_count)
            given = [Path(self.rows_given())]
            steps.append(Step("Biased negatives", self._build_negatives, self._negatives(), given, work))
        evaluate_base = partial(self._evaluate, self.checkpoint, self.base_run)
        return [*steps, Step("Evaluate the base", evaluate_base, self.base_run, work=self._evaluation_work)]

    def trainings(self) -> list[Step]:
        """Each checkpoint's training and evaluation.

        The first seed of a method is trained before the others, which then find its log-probs of the reference.
        """
        steps = []
        first: dict[str, Path] = {}
        for trained in self.trained():
            name = trained.method if len(self.seeds) == 1 else f"{trained.method}, seed {trained.seed}"
            needs = [Path(str(trained.recipe.data)), first.setdefault(trained.method, trained.model)]
            needs = [path for path in needs if path != trained.model]
            work = training_work(trained.recipe, self._row_count)
            steps.append(Step(f"Train {name}", partial(self._train, trained), trained.model, needs, work))
            evaluation = partial(self._evaluate, str(trained.model), trained.run)
            steps.append(Step(f"Evaluate {name}", evaluation, trained.run, [trained.model], self._evaluation_work))
        return steps

    @property
    def _row_count(self) -> int:
        return self.rows if self.base == MICRO else TYPICAL_ROWS

    @property
    def _evaluation_work(self) -> Work:
        known = {name: task for name, (_, task) in all_tasks().items()}
        names = MICRO_TASKS if self.micro_suite else self.evaluation.suite
        tasks = [known[name] for name in names if name in known]
        limit = self.evaluation.limit or max((task.typical_units for task in tasks), default=0)
        questions = [min(limit, task.typical_units) * task.questions_a_unit for task in tasks]
        return Work("evaluation", sum(questions))

    def _drawn_rows(self) -> Iterator[tuple[str, Path]]:
        if self.data is None:
            yield "Preference rows", self.out / "rows" / f"micro-{self.rows}.parquet"

    def rows_given(self) -> str:
        """The preference rows, before biased negatives are added."""
        return self.data or str(next(self._drawn_rows())[1])

    def rows_for(self, negatives: Iterable[str]) -> str:
        """The preference rows for a recipe that needs these negatives. The rows do not depend on other recipes."""
        return str(self._negatives()) if self._lack(negatives) else self.rows_given()

    @property
    def _builds_negatives(self) -> bool:
        """Whether the recipes need biased negatives that the rows do not have."""
        wanted = {name for recipe in self.recipes.values() for name in recipe.negatives}
        return self._lack(wanted | set(BIASED) if self.always_negatives else wanted)

    def _lack(self, negatives: Iterable[str]) -> bool:
        biased = BIASED.keys() & set(negatives)
        return bool(biased) and bool(biased & self._lacking)  # the given rows may not exist until a step needs them

    @cached_property
    def _lacking(self) -> frozenset[str]:
        """The biased negatives that the given rows lack."""
        from napo_bench.trainers.stored.files import lacks_negatives

        if self.data is None:
            return frozenset(BIASED)
        if self.has_negatives:
            return frozenset()
        return frozenset(name for name in BIASED if lacks_negatives(self.data, [name]))

    def _negatives(self) -> Path:
        return self.out / "rows" / f"{Path(self.rows_given()).stem}-bias"

    def _write_rows(self, path: Path, _: Progress) -> None:
        from napo_bench.micro.preferences import are_current, write_preference_rows

        if processes.is_first() and not path.is_file():
            write_preference_rows(path, self.rows)
        processes.wait()
        if not are_current(path):
            raise NapoBenchError(f"{path} is from another version of the micro world.", "Choose another --out.")

    def _build_negatives(self, progress: Progress) -> None:
        from napo_bench.trainers.bias import PUBLISHED, build_bias

        options = self.evaluation
        build_bias(
            self.checkpoint,
            self.rows_given(),
            self._negatives(),
            batch_size=options.batch_size,
            device=options.device,
            dtype=options.dtype,
            cache=self.out / "cache",
            progress=progress,
            generation=dataclasses.replace(PUBLISHED, max_new_tokens=MICRO_TOKENS) if self.data is None else PUBLISHED,
            conversation=options.conversation,
        )
        _release_memory()

    def _train(self, trained: Trained, progress: Progress) -> None:
        from napo_bench.trainers.run import train

        train(trained.recipe, trained.model, cache=self.out / "cache", resume=True, progress=progress)

    def _evaluate(self, checkpoint: str, out: Path, progress: Progress) -> None:
        with self._suite() as options:
            if not processes.from_first(lambda: _is_evaluated(checkpoint, out, options, progress)):
                _release_memory()
                evaluate(checkpoint, out, options, progress, replace=True)
                _release_memory()

    def _suite(self) -> AbstractContextManager[EvalOptions]:
        return micro_world(self.evaluation) if self.micro_suite else nullcontext(self.evaluation)


def training_work(recipe: Recipe, rows: int) -> Work:
    """Amount of a training: each row's prompt and image, and each of its responses."""
    responses = 1 + len(recipe.negatives) + (recipe.crop_seed is not None)
    return Work("training", rows * recipe.epochs * (1 + responses))


def named_recipes(names: Sequence[str], overrides: Sequence[str]) -> dict[str, Recipe]:
    """Recipes by the name of their results: the stem of a file, or the name of the recipe.

    Raises:
        NapoBenchError: a recipe cannot be read, or two recipes have the same name.
    """
    recipes: dict[str, Recipe] = {}
    for name in names:
        label = Path(name).stem if name.endswith((".yaml", ".yml")) else name
        if label in recipes or label == BASE:
            raise NapoBenchError(f"Two methods would be called {label!r}.", "Give each recipe once; rename a file.")
        recipes[label] = load_recipe(name, overrides)
    return recipes


def with_controls(recipes: Mapping[str, Recipe], controls: Iterable[str]) -> dict[str, Recipe]:
    """The recipes, and behind them each recipe as each control.

    Args:
        recipes: Name -> recipe.
        controls: Names of controls.

    Raises:
        NapoBenchError: there is no such control, a recipe is a control itself, or two methods have the same name.
    """
    arms = dict(recipes)
    for name in dict.fromkeys(controls):
        control = next((known for known in CONTROLS if known == name), None)
        if control is None:
            raise unknown_name("control", name, CONTROLS, "--control")
        for method, recipe in recipes.items():
            if recipe.control is not None:
                raise NapoBenchError(
                    f"{method} is the control {recipe.control} itself, so --control {name} has nothing to be beside.",
                    f"Leave out control={recipe.control}: --control trains the method and its control.",
                )
            arm = control_name(method, name)
            if arm in arms:
                raise NapoBenchError(f"Two methods would be called {arm!r}.", "Rename a recipe's file.")
            arms[arm] = dataclasses.replace(recipe, control=control)
    return arms


def control_name(method: str, control: str) -> str:
    """The name of a method's control."""
    return f"{method}-{control}"


def _is_evaluated(checkpoint: str, run: Path, options: EvalOptions, progress: Progress) -> bool:
    """Whether a folder contains the whole run of the same weights, data and settings. The progress gets the reason if
    not.
    """
    held = held_run(run)
    if held is None:
        return False
    result, identity = held
    found = differences(identity, identity_of(checkpoint, options))
    unanswered = sum(len(benchmark.unanswered) for benchmark in result.benchmarks.values())
    if found:
        progress.note(f"{run} is evaluated again: {described(found)}.")
    elif unanswered:
        progress.note(f"{run}: {unanswered} prompts without an answer or a rating are asked again.")
    return not found and not unanswered


def _release_memory() -> None:
    """Free the model of the previous step. This takes a fifth of a second, so it is done only after a step with
    work.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
