"""The two consoles of the command line (results on stdout, everything else on stderr), and the error panel."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError

out = Console()
err = Console(stderr=True)
CLUSTERED = "n: samples in pictures. Intervals and tests resample whole pictures, whose answers depend on each other."
_WIDEST = 400


def print_whole(table: Table) -> None:
    """Print a table on stdout in the width of its cells. In a narrow terminal lines wrap, and no number is cut."""
    table.width = Measurement.get(out, out.options.update(max_width=_WIDEST), table).maximum
    out.print(table, crop=False, soft_wrap=True)


def print_error(error: NapoBenchError) -> None:
    """Print the error and the next step on stderr as one panel. Every other process of a launch prints one line."""
    if not processes.is_first():
        err.print(f"process {processes.rank()}: {error.message}", markup=False, highlight=False)
        return
    body = escape(error.message)
    if error.hint:
        body += f"\n\n[bold]Next:[/bold] {escape(error.hint)}"
    err.print(Panel(body, title="napo-bench", title_align="left", border_style="red"))
