"""`napo-bench train-then-eval`: base -> biased negatives -> train each method -> evaluate all -> one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from napo_bench.cli import console
from napo_bench.cli.begin import begin, tell_licence
from napo_bench.cli.eval import BatchSize
from napo_bench.cli.judges import (
    GivenJudges,
    JudgeBaseUrl,
    JudgeMaxRequests,
    JudgeModel,
    JudgeRepeats,
    JudgeRequest,
)
from napo_bench.cli.listed import ListedCommand
from napo_bench.cli.root import app
from napo_bench.cli.score import (
    DataDir,
    MaxRefused,
    Pipeline,
    SpacyModel,
    ThinkingMarks,
)
from napo_bench.core import links, processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.locks import output_folder
from napo_bench.core.progress import SILENT
from napo_bench.engines import usual_batch_size
from napo_bench.micro import MICRO, named_checkpoint

if TYPE_CHECKING:
    from napo_bench.engines.judge import Judge
    from napo_bench.studies.experiment import Experiment, Step
    from napo_bench.trainers.recipe import Recipe


Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Trainings and evaluations at the same time, on CUDA each on a GPU of its own. Default: 2 for the micro "
        "world's base on a CPU, else 1.",
    ),
]


@app.command("train-then-eval", cls=ListedCommand)
def train_then_eval(
    context: typer.Context,
    ckpt: Annotated[
        str, typer.Option(help="The base: folder or hub name. micro is the base that ships with napo-bench.")
    ] = MICRO,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Name or YAML file; repeatable. Default with micro: DPO, mDPO and NaPO.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Preference rows, with or without biased negatives. Default: the recipe's.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="micro, or of {tasks}, with commas. Default: micro with micro, else {suite}."),
    ] = None,
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the experiment. Default: runs/NAME.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each recipe, with the seeds 0, 1, ...")] = 1,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="Train each recipe also without its images, to see what comes without looking: blind (blank images) "
            "or swapped (images of other rows); repeatable."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few rows and a part of the benchmarks, to try the whole experiment.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for every recipe; repeatable.")
    ] = None,
    profile: Annotated[str, typer.Option(help="How answers are generated: greedy or paper.")] = "greedy",
    batch_size: BatchSize = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Evaluate only the first N units of each benchmark.")] = None,
    dtype: Annotated[
        str,
        typer.Option(help="Dtype of evaluations and negatives: float32, bfloat16, float16, or auto: bfloat16 on CUDA."),
    ] = "auto",
    jobs: Jobs = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device of evaluations and negatives: cpu, cuda, cuda:1. Default: the best device. A training takes "
            "the GPU that CUDA_VISIBLE_DEVICES names."
        ),
    ] = None,
    pipeline: Pipeline = "official",
    spacy_model: SpacyModel = None,
    judge_model: JudgeModel = None,
    judge_repeats: JudgeRepeats = 1,
    judge_base_url: JudgeBaseUrl = None,
    judge_max_requests: JudgeMaxRequests = None,
    judge_request: JudgeRequest = None,
    max_refused: MaxRefused = "1%",
    thinking_marks: ThinkingMarks = None,
) -> None:
    """Train checkpoints against modality bias, evaluate them beside their base, and print one table.

    Without arguments: the micro world, nothing downloaded, minutes on two cores. The same command continues where an
    earlier command stopped. Over several GPUs: torchrun --nproc-per-node 8 --no-python napo-bench train-then-eval ...
    """
    folder = out or Path("runs") / (Path(ckpt).name + ("-quick" if quick else ""))
    context.with_resource(output_folder(folder))
    links.refuse_links(folder)
    begin(f"Training from {ckpt} and evaluating, into {folder}")
    from napo_bench.benchmarks import default_suite
    from napo_bench.core.jobs import job_devices
    from napo_bench.core.thoughts import read_marks
    from napo_bench.engines.chat import read_share
    from napo_bench.runs.evaluate import EvalOptions, suite_named
    from napo_bench.runs.score import ScoreOptions
    from napo_bench.studies.experiment import (
        MICRO_RECIPES,
        MICRO_ROWS,
        QUICK_LIMIT,
        QUICK_ROWS,
        Experiment,
        named_recipes,
        with_controls,
    )
    from napo_bench.trainers.recipe import refuse_overruled

    micro = ckpt == MICRO
    devices = job_devices(jobs, device, small=micro)
    if not recipe and not micro:
        raise NapoBenchError(
            f"Which recipes should be trained from {ckpt}?",
            "For example --recipe llava-1.5-7b-dpo --recipe llava-1.5-7b-napo",
        )
    numbered = f"0 to {seeds - 1}" if seeds > 1 else "0"
    refuse_overruled(
        overrides or [], {"base": ("--ckpt", ckpt), "data": ("--data", data), "seed": ("--seeds", numbered)}
    )
    methods = named_recipes(recipe or MICRO_RECIPES, overrides or [])
    controls = list(dict.fromkeys(control or []))
    recipes = with_controls(methods, controls)
    members = suite_named(suite or (MICRO if micro else ",".join(default_suite())))
    is_micro_suite = members == [MICRO]
    rows = data or _common_data([found.data for found in recipes.values()])
    tell_licence(rows)
    judges: tuple[Judge, ...] = ()
    marks = read_marks(thinking_marks)
    given = GivenJudges(judge_model, judge_repeats, judge_base_url, judge_max_requests, judge_request)
    if is_micro_suite:
        given.require_none()
    else:
        if len(devices) > 1 and judge_model:
            raise NapoBenchError(
                f"--jobs {len(devices)} with a judge, whose budget one process keeps.",
                "Run the command without the judge first, then the same command with the judge and without --jobs: "
                "the answers are kept.",
            )
        judges = given.judges(read_share(max_refused, "--max-refused"), marks, SILENT)
    experiment = Experiment(
        out=folder,
        base=ckpt,
        recipes=recipes,
        data=None if rows == MICRO else rows,
        seeds=range(seeds),
        evaluation=EvalOptions(
            suite=members,
            data_dir=data_dir,
            profile=profile,
            batch_size=batch_size or usual_batch_size(named_checkpoint(ckpt)),
            limit=limit or (QUICK_LIMIT if quick else None),
            dtype=dtype,
            device=device,
            conversation=_common_conversation([found.conversation for found in recipes.values()]),
            scoring=ScoreOptions(pipeline=pipeline, spacy_model=spacy_model, judges=judges, thinking_marks=marks),
        ),
        micro_suite=is_micro_suite,
        rows=QUICK_ROWS if quick else MICRO_ROWS,
    )
    if processes.is_first() and not (experiment.base_run / "run.json").is_file():
        experiment.try_first()
    if controls and processes.is_first():
        _tell_cost(experiment, methods, controls)
    run_steps(experiment.steps(), devices)
    if processes.is_first():
        _report(experiment, list(methods), controls)


def _tell_cost(experiment: Experiment, methods: Mapping[str, Recipe], controls: Sequence[str]) -> None:
    """Say before the first step how much of the whole time the controls take."""
    from napo_bench.core.remaining import usual_seconds

    bare = dataclasses.replace(experiment, recipes=methods)
    whole, without = (usual_seconds([step.work for step in plan.steps()]) for plan in (experiment, bare))
    trainings = len(methods) * len(controls) * len(experiment.seeds)
    console.err.print(
        f"Controls ({', '.join(controls)}): {trainings} further training{'s' if trainings > 1 else ''} and "
        f"evaluation{'s' if trainings > 1 else ''}, about {100 * (1 - without / whole):.0f}% of the whole time.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _common_data(named: Sequence[str]) -> str:
    if len(set(named)) > 1:
        raise NapoBenchError(
            f"The recipes name different rows: {', '.join(sorted(set(named)))}.", "Choose the rows of all with --data."
        )
    return named[0]


def _common_conversation(named: Sequence[str]) -> str | None:
    """The conversation for the base and its negatives; None is that of the checkpoint."""
    if len(set(named)) > 1:
        raise NapoBenchError(
            f"The recipes name different conversations: {', '.join(sorted(set(named)))}.",
            "Choose one for all: --set conversation=llava_v1",
        )
    return None if named[0] == "auto" else named[0]


def run_steps(steps: Sequence[Step], jobs: Sequence[Mapping[str, str]] = ({},)) -> None:
    """Do every step under one progress display, with one estimate of the time left.

    Args:
        steps: The steps.
        jobs: Environment of each process, from `job_devices`.
    """
    from napo_bench.cli.train import SHOWN
    from napo_bench.core.bars import Bars
    from napo_bench.core.remaining import Remaining
    from napo_bench.core.side_by_side import run_pieces

    with Bars(console.err, Remaining([step.work for step in steps], jobs=len(jobs)), SHOWN) as bars:
        run_pieces(steps, lambda number: bars.piece(number, steps[number].title, len(steps)), jobs)


def _report(experiment: Experiment, methods: Sequence[str], controls: Sequence[str]) -> None:
    """Write the tables and the HTML page, and print the results.

    Args:
        experiment: The finished experiment.
        methods: Names of the methods, which are not controls.
        controls: Controls of each method.
    """
    from napo_bench.cli.experiment_results import print_sentences, print_table
    from napo_bench.core import files
    from napo_bench.report import controls as control_page
    from napo_bench.report import explorer, table
    from napo_bench.report import panel as panel_page
    from napo_bench.report.figures import draw_figures
    from napo_bench.report.runs import NamedRun, load_runs
    from napo_bench.runs.controls import Arm, controlled_method
    from napo_bench.runs.result import RunResult
    from napo_bench.runs.seeds import pooled
    from napo_bench.studies.experiment import BASE, control_name

    page = experiment.out / "report.html"
    trained = experiment.trained()
    with console.err.status("Writing the report ..."):
        base = RunResult.load(experiment.base_run)
        by_method: dict[str, list[RunResult]] = {}
        for checkpoint in trained:
            by_method.setdefault(checkpoint.method, []).append(RunResult.load(checkpoint.run))
        rows = [NamedRun(BASE, base, None, [])] + [
            NamedRun(method, pooled(runs), experiment.recipes[method], []) for method, runs in by_method.items()
        ]
        tables = [table.table_1(rows), *table.variant_tables(rows)]
        first_seed = [f"{found.method}={found.run}" for found in trained if found.seed == experiment.seeds[0]]
        browsed = load_runs([f"{BASE}={experiment.base_run}", *first_seed], samples=True)
        panels = panel_page.panels(browsed)
        arms = {method: Arm.of(base, runs) for method, runs in by_method.items()}
        verdicts = {method: arm.differences for method, arm in arms.items()}
        controlled = [
            controlled_method(method, base, arms[method], arms[control_name(method, control)])
            for control in controls
            for method in methods
        ]
        html = explorer.to_html(browsed, tables, draw_figures(browsed), None, panels=panels, controls=controlled)
        files.write_text(page, html)
        markdown = [table.to_markdown(entry, intervals=True) for entry in tables]
        markdown += [control_page.to_markdown(controlled)] if controlled else []
        files.write_text(experiment.out / "table.md", "\n".join(markdown))
        files.write_text(experiment.out / "table.tex", "\n".join(map(table.to_latex, tables)))
    print_table(table.table_1(rows, paper=False), verdicts, controlled, len(experiment.seeds))
    print_sentences({method: verdicts[method] for method in methods}, panels, controlled, len(experiment.seeds))
    console.out.print(f"Tables and every answer: {escape(str(page))}", highlight=False, soft_wrap=True)
