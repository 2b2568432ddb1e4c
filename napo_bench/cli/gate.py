"""`napo-bench gate`: is a run as good as its baseline? Exit code 0: yes, 1: no, 2: could not judge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console
from napo_bench.cli.root import app

if TYPE_CHECKING:
    from napo_bench.runs.gates import GateReport

_STYLES = {"passed": "green", "regressed": "red", "inconclusive": "yellow"}


@app.command("gate")
def gate(
    run: Annotated[Path, typer.Argument(help="The candidate's run: its JSON file or its folder.")],
    baseline: Annotated[Path, typer.Option(help="The run that the candidate is compared with.")],
    gates: Annotated[
        Path | None, typer.Option(help="Gates file. Default: the gates of napo-bench, on CHAIR, CB and LP.")
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the verdicts here.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit XML report here.")] = None,
) -> None:
    """Gate a run against a baseline. Exit code 0: passed; 1: regressed; 2: could not judge.

    In a GitHub workflow the verdicts also go to the step summary.
    """
    from napo_bench.core import files
    from napo_bench.core.paths import results_dir
    from napo_bench.report.names import pair_names
    from napo_bench.runs.gates import check_gates, load_gates
    from napo_bench.runs.result import RunResult

    chosen = load_gates(gates or results_dir() / "gates.toml")
    candidate, reference = RunResult.load(run), RunResult.load(baseline)
    with console.err.status("Resampling ..."):
        report = check_gates(candidate, reference, chosen)
    title = " against ".join(pair_names([run, baseline], [candidate, reference]))
    _print(report, title)
    if json_out is not None:
        files.write_json(json_out, {"candidate": str(run), "baseline": str(baseline), **report.to_json()})
    if junit is not None:
        files.write_text(junit, report.to_junit(title))
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(report.to_markdown(title))
    raise typer.Exit(report.exit_code)


def _print(report: GateReport, title: str) -> None:
    from napo_bench.runs.gates import cells_of

    console.out.print(f"[bold]{escape(title)}[/bold]", highlight=False)
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    for heading in ("", "metric"):
        table.add_column(heading, no_wrap=True)
    for heading in ("baseline → run", "worse by", "limit", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for check in report.checks:
        baseline, candidate, worse_by, n = cells_of(check)
        verdict = f"[{_STYLES[check.verdict]}]{check.verdict}[/]"
        values = f"{baseline} → {candidate}" if baseline else candidate
        table.add_row(verdict, f"{check.metric.key} {check.metric.arrow}", values, worse_by, check.limit, n)
    console.print_whole(table)
    sure = f"{report.confidence:.0%} sure at each end, over the samples of both runs"
    console.out.print(f"worse by: {sure}", highlight=False)
    if any(check.clusters not in (None, check.n) for check in report.checks):
        console.out.print(console.CLUSTERED, highlight=False)
    for check in report.checks:
        if check.verdict != "passed":
            console.out.print(
                f"[{_STYLES[check.verdict]}]{check.metric.key}[/]: {escape(check.reason)}", highlight=False
            )
    for note in report.notes:
        console.out.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)
    console.out.print(f"[bold]{escape(report.verdict)}[/bold]", highlight=False)
