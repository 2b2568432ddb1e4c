"""`napo-bench lab`: the paper's variants and claims in the micro world, over several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console
from napo_bench.cli.begin import begin
from napo_bench.cli.root import app
from napo_bench.cli.train_then_eval import Jobs, run_steps
from napo_bench.core import links, processes
from napo_bench.core.errors import unknown_name
from napo_bench.core.locks import output_folder
from napo_bench.core.names import MICRO

if TYPE_CHECKING:
    from napo_bench.studies.paper_claims.page import Grid

MOST_SWAPPED = 50
_GAP = 1


@app.command("lab")
def lab(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the laboratory.")] = Path("runs/lab"),
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each recipe, with the seeds 0, 1, ...")] = 3,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="tables, noise-in-labels, alpha, biased-pairs or plausible-negatives; repeatable. Default: all."
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(help="Only these recipes in the tables; repeatable. Default: every variant.")
    ] = None,
    share: Annotated[
        list[int] | None,
        typer.Option(
            min=0,
            max=MOST_SWAPPED,
            help="Percent of labels that noise-in-labels swaps; repeatable. Default: 0, 25, 50.",
        ),
    ] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Preference rows. Default: those of train-then-eval.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N units of each benchmark.")] = None,
    jobs: Jobs = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key of every recipe; repeatable.")
    ] = None,
) -> None:
    """Test the paper's claims in the micro world: variants, margins, alpha, and changed rows.

    The same command continues where an earlier command stopped.
    """
    context.with_resource(output_folder(out))
    links.refuse_links(out)
    begin(f"Testing the method's claims in the micro world over {seeds} seeds, into {out}")
    from napo_bench.core.jobs import job_devices
    from napo_bench.engines import SMALL_BATCH_SIZE
    from napo_bench.micro.data import ensure_data
    from napo_bench.runs.evaluate import EvalOptions
    from napo_bench.runs.score import ScoreOptions
    from napo_bench.studies.experiment import MICRO_ROWS
    from napo_bench.studies.paper_claims.laboratory import PARTS, PERCENTS, SUITE, Laboratory, table_methods
    from napo_bench.studies.paper_claims.page import write_page
    from napo_bench.trainers.recipe import refuse_overruled

    of_micro = ("the lab", MICRO)
    refuse_overruled(overrides or [], {"base": of_micro, "data": of_micro, "seed": ("--seeds", f"0 to {seeds - 1}")})
    devices = job_devices(jobs, None, small=True)
    parts = part or list(PARTS)
    if unknown := [name for name in parts if name not in PARTS]:
        raise unknown_name("part", unknown[0], PARTS, "--part")
    with console.err.status("Opening the micro world ..."):
        data = ensure_data()
    laboratory = Laboratory(
        out=out,
        seeds=range(seeds),
        parts=parts,
        evaluation=EvalOptions(
            suite=SUITE,
            data_dir=data,
            batch_size=SMALL_BATCH_SIZE,
            limit=limit,
            scoring=ScoreOptions(pipeline="closed_vocabulary"),
        ),
        rows=rows or MICRO_ROWS,
        overrides=overrides or [],
        percents=share or PERCENTS,
        methods=recipe or table_methods(),
    )
    run_steps(laboratory.steps(), devices)
    if not processes.is_first():
        return
    with console.err.status("Writing the page ..."):
        page, grids = write_page(laboratory)
    for grid in grids:
        _show(grid)
    console.out.print(f"All tables and figures: {escape(str(page))}", highlight=False, soft_wrap=True)


def _show(grid: Grid) -> None:
    """Print as many columns of a table as fit without cutting a word. The page has all columns."""
    rows = [[_interval_below(cell) for cell in row] for row in grid.rows]
    columns = list(zip(grid.head, *rows, strict=True))
    widths = [max(map(len, columns[0])), *(max(map(_least_width, column)) for column in columns[1:])]
    shown = len(columns)
    while shown > grid.texts + 1 and sum(widths[:shown]) + _GAP * shown > console.out.width:
        shown -= 1
    table = Table(title=escape(grid.title), title_justify="left", title_style="bold", box=None, padding=(0, _GAP, 0, 0))
    for index, head in enumerate(grid.head[:shown]):
        table.add_column(escape(head), justify="left" if index < grid.texts else "right", min_width=widths[index])
    for row in rows:
        table.add_row(*map(escape, row[:shown]))
    console.out.print(table)
    left_out = f" On the page: {', '.join(grid.head[shown:])}." if shown < len(columns) else ""
    console.out.print(f"{grid.note}{left_out}\n", style="dim", markup=False, highlight=False)


def _interval_below(cell: str) -> str:
    """A number with its interval in a second line."""
    return cell if cell[:1].isalpha() else cell.replace(" [", "\n[")


def _least_width(cell: str) -> int:
    pieces = cell.splitlines() if "\n[" in cell else cell.split()
    return max(map(len, pieces), default=0)
