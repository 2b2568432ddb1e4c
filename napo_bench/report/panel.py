"""The panels of a report: what each run's gain over the baseline was bought with, as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from napo_bench.benchmarks import benchmark_labels
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.report.runs import NamedRun
from napo_bench.report.table import markdown
from napo_bench.runs.panel import BenchmarkPanel, Panel, panel

HEADS = ("baseline", "run", "difference", "95% interval")
"""Heads of the columns with numbers."""


def panels(runs: Sequence[NamedRun], baseline: str | None = None) -> list[Panel]:
    """The panel of each run except the baseline.

    Args:
        runs: Runs, with their samples.
        baseline: Name of the baseline; None is the first run.

    Raises:
        NapoBenchError: there is no such run, or no second run.
    """
    by_name = {run.name: run for run in runs}
    if baseline is not None and baseline not in by_name:
        raise unknown_name("run", baseline, by_name, "--panel-baseline")
    if len(runs) < 2:
        raise NapoBenchError(
            "A panel compares runs with a baseline, and there is one run.",
            "Give the baseline too: napo-bench report BASE RUN --panel",
        )
    base = runs[0] if baseline is None else by_name[baseline]
    return [panel(run.run, base.run, (run.name, base.name)) for run in runs if run is not base]


def to_markdown(found: Panel) -> str:
    """A panel as GitHub markdown: the sentences, a table for each benchmark, and the notes."""
    lines = [f"**What the gains of {markdown(found.candidate)} over {markdown(found.baseline)} were bought with.**", ""]
    lines += [f"- {markdown(sentence)}" for sentence in found.sentences]
    label_of = benchmark_labels()
    for one in found.benchmarks:
        lines += ["", _table(label_of[one.benchmark], one)]
    lines += ["", *(f"- {markdown(note)}" for note in found.remarks)]
    return "\n".join(lines).rstrip() + "\n"


def _table(label: str, found: BenchmarkPanel) -> str:
    rows = []
    for part in found.parts:
        rows.append([f"*{part.title}*", "", "", "", ""])
        rows += [[markdown(row.label), *map(markdown, row.texts)] for row in part.rows]
    align = ["left", *("right" for _ in HEADS)]
    return str(tabulate(rows, [label, *HEADS], tablefmt="pipe", disable_numparse=True, colalign=align))
