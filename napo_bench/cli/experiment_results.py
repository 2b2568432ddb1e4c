"""The results of train-then-eval on the terminal: a column for each checkpoint, and sentences about each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from napo_bench.cli import console

if TYPE_CHECKING:
    from napo_bench.benchmarks.metrics import Metric
    from napo_bench.report import table
    from napo_bench.report.columns import Column
    from napo_bench.runs.controls import ControlledMethod
    from napo_bench.runs.panel import Panel
    from napo_bench.runs.seeds import Difference

_WORDS = ("better", "worse")
_STYLES = {"better": "green", "worse": "red", "open": "default"}


def print_table(
    entry: table.Table,
    verdicts: Mapping[str, Sequence[Difference]],
    controlled: Sequence[ControlledMethod],
    seeds: int,
) -> None:
    """Print Table 1 of the experiment with one column for each checkpoint, and each checkpoint's difference to the
    base. Each kind of control has a table of its own.
    """
    changes = {(method, row.metric): row for method, rows in verdicts.items() for row in rows}
    for number, (label, rows) in enumerate(entry.groups):
        if number:
            console.out.print(f"\n{label}", markup=False, highlight=False)
        console.out.print(_columns(entry.columns, rows, changes, _second_lines(controlled)))
    over = "samples" if seeds == 1 else f"{seeds} trainings"
    console.out.print(
        f"\nBold: the best. Second line: 95% interval over {over}. In brackets: against the base, "
        "[green]better[/green] or [red]worse[/red] if the paired interval excludes 0.",
        highlight=False,
    )
    if controlled:
        console.out.print(
            "Second line of a control: its part of the method's gain or loss, with the paired interval over "
            f"{over}. No clear change: the interval of the method's difference contains 0.",
            highlight=False,
        )
    everyone = sum(len(rows) for _, rows in entry.groups)
    several = {mark for column in entry.columns if column.several for mark in column.marks}
    for mark, text in entry.footnotes.items():
        about = entry.spoken_of(mark)
        prefix = "" if len(about) == everyone else f"{', '.join(about)}: "
        letter = f"[{mark}] " if mark in several else ""
        console.out.print(f"- {letter}{prefix}{text}", style="dim", markup=False, highlight=False)


def print_sentences(
    verdicts: Mapping[str, Sequence[Difference]],
    panels: Sequence[Panel],
    controlled: Sequence[ControlledMethod],
    seeds: int,
) -> None:
    """Print what each method is better and worse in, what its gain was bought with, and what comes without looking.

    Args:
        verdicts: Method -> its differences to the base.
        panels: Panels of the first seed's runs.
        controlled: Methods beside their controls.
        seeds: Number of trainings of each method.
    """
    said = []
    for method, rows in verdicts.items():
        found = {word: ", ".join(row.metric.key for row in rows if row.verdict == word) or "nothing" for word in _WORDS}
        said.append(f"{method}: better in {found['better']}; worse in {found['worse']}.")
    for panel in panels:
        if panel.headline and panel.candidate in verdicts:
            of = panel.candidate if seeds == 1 else f"{panel.candidate}, first training"
            said.append(f"{of}: {panel.headline}")
    for line in [*said, *(method.summary for method in controlled)]:
        console.out.print(line, markup=False, highlight=False)


def _second_lines(controlled: Sequence[ControlledMethod]) -> dict[tuple[str, Metric], str]:
    """Name of a control and metric -> the control's part of the method's gain or loss."""
    from napo_bench.studies.experiment import control_name

    return {
        (control_name(one.name, one.control), row.method.metric): row.share_text
        for one in controlled
        for row in one.gains
    }


def _columns(
    columns: Sequence[Column],
    rows: Sequence[table.Row],
    changes: Mapping[tuple[str, Metric], Difference],
    second_lines: Mapping[tuple[str, Metric], str],
) -> Table:
    """A table with a column for each row of a group."""
    from napo_bench.benchmarks import benchmark_labels

    label_of = benchmark_labels()
    shown = Table(box=None, pad_edge=False, show_edge=False)
    shown.add_column("")
    for row in rows:
        shown.add_column(escape(row.name), justify="right")
    for column in columns:
        metric = column.metric
        cells = []
        for row in rows:
            key = (row.name, metric)
            cells.append(_number(metric, row.cells.get(column.key), changes.get(key), second_lines.get(key)))
        marks = f" [{','.join(column.marks)}]" if column.several else ""
        shown.add_row(escape(f"{label_of[metric.benchmark]} {metric.label} {metric.arrow}{marks}"), *cells)
    return shown


def _number(metric: Metric, cell: table.Cell | None, change: Difference | None, second_line: str | None) -> str:
    """The text of a number. Its second line is the number's interval, if there is no other."""
    if cell is None:
        return ""
    text = metric.format(cell.value)
    if cell.best:
        text = f"[bold]{text}[/bold]"
    if change is not None and not cell.is_part:
        text += f" [{_STYLES[change.verdict]}]({change.value - change.base:+.{metric.decimals}f})[/]"
    if second_line is not None and not cell.is_part:
        text += f"\n[dim]{escape(second_line)}[/dim]"
    elif cell.interval is not None:
        text += "\n[dim]{}-{}[/dim]".format(*map(metric.format, cell.interval))
    return text
