"""`napo-bench power`: how many samples and how many trainings find a difference of a wanted size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console
from napo_bench.cli.root import app
from napo_bench.core import disk

if TYPE_CHECKING:
    from napo_bench.runs.power import PowerReport


@app.command("power")
def power(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="BASELINE RUN [RUN ...]",
            help="The baseline's run, then a run of the method; several runs are trainings of different seeds.",
        ),
    ],
    metric: Annotated[str, typer.Option(help="The metric: vlind.lp, amber.chair, ...")],
    difference: Annotated[float, typer.Option(help="The true difference to find, in the metric's unit.")],
    wanted_power: Annotated[
        float, typer.Option("--power", help="Share of experiments that find the difference.")
    ] = 0.8,
    alpha: Annotated[
        float, typer.Option(help="Share of experiments that find a difference where there is none, two-sided.")
    ] = 0.05,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")] = None,
) -> None:
    """Plan an experiment: samples and trainings for a wanted power.

    How much a difference varies is measured on the runs: pictures are resampled with all their samples, in all runs
    together.
    """
    if json_out is not None:
        disk.try_file(json_out)
    from napo_bench.benchmarks.metrics import metric_named
    from napo_bench.core import files
    from napo_bench.report.runs import load_runs, require_one_method
    from napo_bench.runs.power import Wanted, plan_power

    wanted = Wanted(difference, wanted_power, alpha)
    named = metric_named(metric, "--metric")
    loaded = load_runs([str(path) for path in runs], samples=True)
    notes = require_one_method(loaded[1:])
    with console.err.status("Resampling ..."):
        report = plan_power(named, loaded[0].run, [training.run for training in loaded[1:]], wanted)
    report.notes.extend(notes)
    _print(report, [run.name for run in loaded])
    if json_out is not None:
        files.write_json(json_out, {"runs": [str(path) for path in runs], **report.to_json()})
        console.err.print(f"Written: {escape(str(json_out))}", highlight=False)


def _print(report: PowerReport, names: list[str]) -> None:
    wanted, spread = report.wanted, report.spread
    metric = spread.metric
    share = f"{wanted.power:.0%}"
    console.out.print(
        f"[bold]{metric.key}[/bold]: {escape(names[0])} has {metric.format(report.baseline)}; "
        f"find a difference of {wanted.difference:g} with {share} power, two-sided {wanted.alpha:.0%}",
        highlight=False,
    )
    for name, found in zip(names[1:], spread.differences, strict=True):
        console.out.print(f"  {escape(name)}: {found:+.{metric.decimals}f}", highlight=False)
    pictures = "picture" if spread.clusters == spread.samples else "picture with all its samples"
    console.out.print(
        f"Standard deviation over samples: {spread.over_samples:.2f} ({spread.samples} samples in {spread.clusters} "
        f"pictures; resampled by {pictures})",
        highlight=False,
    )
    if spread.between_trainings is not None:
        console.out.print(f"Standard deviation between trainings: {spread.between_trainings:.2f}", highlight=False)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in ("trainings", "power", f"detects at {share}", f"samples for {share}", "times these"):
        table.add_column(heading, justify="right", no_wrap=True)
    for plan in report.plans:
        table.add_row(
            str(plan.trainings),
            f"{plan.power:.0%}",
            "none" if plan.detects is None else f"{plan.detects:.{metric.decimals}f}",
            plan.size,
            "" if plan.times is None else f"{plan.times:.2g}",
        )
    console.print_whole(table)
    if spread.between_trainings is not None:
        needed = f"{report.trainings_needed}" if report.trainings_needed else "more than 1,000"
        console.out.print(f"Trainings for {share} with these samples: {needed}.", highlight=False)
    console.out.print(
        "Found: the interval excludes 0. For 1 training that is the interval over samples, for more trainings "
        "Student's t over the trainings, which is about these samples only. Without Holm's adjustment.",
        highlight=False,
    )
    for note in report.notes:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)
