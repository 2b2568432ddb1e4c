"""The command line: one module a command, each imported only for its signature; the work is imported when it runs."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from typing import TextIO

import typer
from rich.markup import escape

from napo_bench import __version__
from napo_bench.cli import console
from napo_bench.errors import NapoBenchError

app = typer.Typer(
    name="napo-bench",
    help="Does a multimodal model look at the image, or guess from one modality? Score it, train it, gate it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        console.out.print(f"napo-bench {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _keep_interrupt(ignored: sys.UnraisableHookArgs) -> None:
    """Ask for Ctrl-C again where it came while an object was finalized: Python ignores whatever is raised there."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
    else:
        sys.__unraisablehook__(ignored)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of ours as a note, any other as Python does."""
    if category.__module__.startswith("napo_bench."):
        console.err.print(f"[yellow]note[/yellow] {escape(str(message))}", highlight=False)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def main() -> None:
    """Run the command line; a NapoBenchError becomes one panel and exit code 2, Ctrl-C exit code 130."""
    sys.unraisablehook = _keep_interrupt
    warnings.showwarning = _show_warning
    try:
        app()
    except NapoBenchError as error:
        console.print_error(error)
        sys.exit(2)
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer's translation of Ctrl-C
            console.err.print("Interrupted. What was finished is on disk; the same command goes on from there.")
        raise


from napo_bench.cli import compare, data, eval, gate, lab, report, score, train, train_then_eval  # noqa: E402, F401
