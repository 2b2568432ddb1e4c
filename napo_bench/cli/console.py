"""The two consoles of the command line (results on stdout, everything else on stderr), and the error panel."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from napo_bench.core import processes
from napo_bench.core.errors import NapoBenchError

_UNSEEN = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
    if chr(code) not in "\n\t"
}
"""Character that a terminal acts on, or that turns the direction of text -> what is shown in its place."""


class _Console(Console):
    """A console that shows control characters as text: those of servers, models and data reach no terminal.

    If the reader of the output ends early (`| head -1`), the command goes on without this output: it still writes its
    files, and its exit code is its own.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """See rich: every string becomes a text here."""
        return super().render_str(text.translate(_UNSEEN), **options)

    def on_broken_pipe(self) -> None:
        """See rich, which would end the command here."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


out = _Console()
err = _Console(stderr=True)
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
