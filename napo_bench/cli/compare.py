"""`napo-bench compare`: which metrics of two runs differ by more than chance, and which samples changed."""

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
    from napo_bench.runs.compare import Comparison

_SAMPLES_SHOWN = 10
_ALPHA = 0.05


@app.command("compare")
def compare(
    baseline: Annotated[Path, typer.Argument(help="The run to compare with: its JSON file or its folder.")],
    candidate: Annotated[Path, typer.Argument(help="The run that may differ from it.")],
    json_out: Annotated[
        Path | None, typer.Option("--json", help="Write the whole comparison here, with every changed sample.")
    ] = None,
) -> None:
    """Compare two runs sample by sample.

    Differences are CANDIDATE - BASELINE over the samples that both have. Intervals are paired 95% bootstrap intervals.
    """
    if json_out is not None:
        disk.try_file(json_out)
    from napo_bench.core import files
    from napo_bench.report.names import pair_names
    from napo_bench.runs.compare import compare as compare_runs
    from napo_bench.runs.result import RunResult

    runs = [RunResult.load(path) for path in (candidate, baseline)]
    with console.err.status("Resampling ..."):
        comparison = compare_runs(*runs)
    new, old = pair_names([candidate, baseline], runs)
    console.out.print(f"[bold]{escape(old)} → {escape(new)}[/bold]", highlight=False)
    _print(comparison)
    if json_out is not None:
        files.write_json(json_out, {"baseline": str(baseline), "candidate": str(candidate), **comparison.to_json()})
        console.err.print(f"Written: {escape(str(json_out))}", highlight=False)


def _print(comparison: Comparison) -> None:
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("metric", no_wrap=True)
    for heading in ("values", "difference", "95% interval", "p", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in comparison.metrics:
        paired, metric = row.paired, row.paired.metric
        better = (paired.difference > 0) == (metric.better == "higher")
        significant = row.p_adjusted < _ALPHA and metric.better is not None
        style = ("green" if better else "red") if significant else "default"
        low, high = paired.interval
        table.add_row(
            metric.key,
            f"{metric.format(paired.baseline)} → {metric.format(paired.candidate)}",
            f"[{style}]{paired.difference:+.{metric.decimals}f}[/]",
            f"{low:+.{metric.decimals}f} to {high:+.{metric.decimals}f}",
            _p(row.p_adjusted),
            paired.size,
        )
    console.print_whole(table)
    console.out.print(
        f"p: exact McNemar if every sample passes or fails and has a picture of its own, else permutation; adjusted by "
        f"Holm's rule for the {len(comparison.metrics)} metrics. Coloured: below {_ALPHA}.",
        highlight=False,
    )
    if any(row.paired.clusters < row.paired.n for row in comparison.metrics):
        console.out.print(console.CLUSTERED, highlight=False)
    for metric_key in dict.fromkeys(change.metric.key for change in comparison.changes):
        changes = [change for change in comparison.changes if change.metric.key == metric_key]
        improved = [change.sample_id for change in changes if change.improved]
        worsened = [change.sample_id for change in changes if not change.improved]
        console.out.print(f"\n[bold]{metric_key}[/bold]: {len(changes)} samples changed", highlight=False)
        for label, ids in (("better", improved), ("worse ", worsened)):
            shown = escape(", ".join(ids[:_SAMPLES_SHOWN])) + (", ..." if len(ids) > _SAMPLES_SHOWN else "")
            console.out.print(f"  {label} {len(ids):5d}  {shown}", highlight=False)
    if comparison.same_answers:
        console.out.print("\n[bold]answers with the same text[/bold]", highlight=False)
    for name, same in comparison.same_answers.items():
        share = 100 * same.identical / same.answers
        console.out.print(f"  {name}: {same.identical} of {same.answers} ({share:.1f}%)", highlight=False)
    for note in comparison.notes:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
