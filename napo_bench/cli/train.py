"""`napo-bench train`: train a checkpoint against modality bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console
from napo_bench.cli.begin import begin, tell_licence
from napo_bench.cli.root import app
from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.locks import output_folder
from napo_bench.micro import MICRO, named_checkpoint
from napo_bench.trainers.negatives import BIASED, REJECTED

if TYPE_CHECKING:
    from napo_bench.trainers.plan import Plan
    from napo_bench.trainers.recipe import Recipe
    from napo_bench.trainers.rows import RowReport

SHOWN = {"loss": "loss", "rewards/accuracies": "acc"}
SUMMARY = {
    "loss": ("loss", ".4f"),
    f"rewards/accuracies{REJECTED.suffix}": (f"chosen preferred to {REJECTED.name}", ".1%"),
    **{f"rewards/accuracies{kind.suffix}": (f"chosen preferred to {kind.label}", ".1%") for kind in BIASED.values()},
    **{f"napo/q_{kind.tag}": (f"q, {kind.label}", ".4f") for kind in BIASED.values()},
    "tokens_per_second": ("tokens a second", ",.0f"),
    "memory/peak_gb": ("peak memory, GB", ".1f"),
}


@app.command("train")
def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help="A recipe of the package (llava-1.5-7b-napo, ...) or a YAML file.")],
    variant: Annotated[
        str | None,
        typer.Option(help="A variant of the recipe: lb1 makes micro-napo into micro-napo-lb1; lora adds adapters."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the trained checkpoint; needed except with --dry-run.")
    ] = None,
    ckpt: Annotated[str | None, typer.Option(help="The checkpoint to start from. Default: the recipe's base.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Preference rows: parquet file, folder or hub name. Default: the recipe's data.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show recipe, rows, tokens, memory and time; train nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for reference log-probs and copies of rows. Default: the user's cache folder."),
    ] = None,
) -> None:
    """Train a checkpoint on preference rows with DPO, mDPO or NaPO.

    Several processes: torchrun --nproc-per-node 8 --no-python napo-bench train ...
    """
    if out is not None and not dry_run:
        context.with_resource(output_folder(out))
    named = f"{recipe} --variant {variant}" if variant else recipe
    begin(f"Planning a training by {named}" if dry_run else f"Training by {named}, into {out}")
    from napo_bench.trainers.recipe import load_recipe, refuse_overruled

    refuse_overruled(changes or [], {"base": ("--ckpt", ckpt), "data": ("--data", data)})
    resolved = load_recipe(recipe, changes or [], variant)
    suite = f" --suite {MICRO}" if MICRO in (resolved.base, resolved.data, ckpt) else ""
    resolved = replace(resolved, base=ckpt or resolved.base, data=data or resolved.data)
    resolved = replace(resolved, base=named_checkpoint(resolved.base))
    if resolved.data == MICRO:
        raise NapoBenchError(
            f"{recipe} has no rows of its own: those of the micro world are drawn when it is run.",
            "Draw them: napo-bench data micro-rows --out micro.parquet, then give --data micro.parquet "
            "(napo-bench train-then-eval does all of it).",
        )
    if out is None and not dry_run:
        raise NapoBenchError(
            "train needs a folder for the checkpoint.", "Add --out DIR, or --dry-run to see the plan first."
        )
    tell_licence(resolved.data)
    from napo_bench.trainers.run import open_inputs
    from napo_bench.trainers.run import train as run_training

    if dry_run:
        from napo_bench.trainers.plan import make_plan

        inputs = open_inputs(resolved, cache)
        if processes.is_first():
            _print_plan(resolved, make_plan(resolved, inputs, processes.count()), inputs.rows.report, processes.count())
        return
    assert out is not None
    from napo_bench.core.bars import Bars

    with Bars(console.err, shown=SHOWN) as bars:
        run_training(resolved, out, cache=cache, resume=resume, progress=bars)
    if processes.is_first():
        if bars.last:
            console.err.print(_summary(bars.last))
        console.err.print(f"Next: napo-bench eval --ckpt {out}{suite}", markup=False, highlight=False, soft_wrap=True)
        console.out.print(str(out), markup=False, highlight=False, soft_wrap=True)


def _summary(values: Mapping[str, float]) -> Table:
    table = Table("last steps", "", show_header=True, box=None, padding=(0, 2, 0, 0))
    for name, (text, form) in SUMMARY.items():
        if name in values:
            table.add_row(text, format(values[name], form))
    return table


def _print_plan(recipe: Recipe, plan: Plan, report: RowReport, processes: int) -> None:
    console.out.print(recipe.to_yaml(), markup=False, highlight=False, soft_wrap=True)
    tokens = Table(title=f"Tokens of {plan.sampled} rows, drawn evenly", title_justify="left", title_style="bold")
    tokens.add_column("")
    for heading in ("mean", "median", "95 %", "largest"):
        tokens.add_column(heading, justify="right")
    for name, counts in plan.tokens.items():
        if counts.size:
            ordered = sorted(counts.tolist())
            at = (ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.95, 1))
            tokens.add_row(escape(name), f"{counts.mean():,.0f}", *(f"{count:,}" for count in at))
    console.out.print(tokens)
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    hours = plan.flops / (plan.flops_per_second * processes) / 3600
    for name, fact in {
        "rows": f"{report.used:,} of {report.total:,}",
        "of the sample": ", ".join(f"{count} {reason}" for reason, count in plan.unfit.items()) or "all fit",
        "prompts": f"one for each response: {plan.own_prompts}"
        if plan.own_prompts
        else "one for all responses of a row",
        "steps": f"{plan.steps:,} of {recipe.per_device_batch_size * recipe.gradient_accumulation * processes} rows, "
        f"on {processes} process{'es' if processes > 1 else ''}",
        "parameters": f"{plan.parameters:,}; {plan.trained:,} train{' (adapters)' if recipe.lora_r else ''}",
        "memory": f"about {_size(plan.state_gb)} of weights, gradients and optimizer states, which FSDP shares out, "
        f"and {_size(plan.activation_gb)} of activations a process",
        "time": f"about {_duration(hours)}, if every process is as fast as this device "
        f"({plan.flops_per_second / 1e12:.3g} TFLOP/s: 0.4 of the matrix product just measured)",
    }.items():
        facts.add_row(name, fact)
    console.out.print(facts, markup=False, highlight=False)
    for line in report.lines():
        console.err.print(line, markup=False, highlight=False)
    from napo_bench.trainers.means import require_whole_groups

    try:
        require_whole_groups(recipe, processes)
    except NapoBenchError as error:  # a plan may be made on one process for a training on several
        refused = f"train on {processes} process{'es' if processes > 1 else ''} refuses this recipe."
        console.err.print(f"{refused} {error.message} {error.hint}", markup=False, highlight=False)


def _size(gigabytes: float) -> str:
    return f"{gigabytes:.3g} GB" if gigabytes >= 1 else f"{gigabytes * 1000:.3g} MB"


def _duration(hours: float) -> str:
    for unit, size in (("days", 24.0), ("hours", 1.0), ("minutes", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:,.0f} {unit}"
    return f"{hours * 3600:.0f} seconds"
