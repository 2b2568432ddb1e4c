"""The command line: one module a command. A module is imported for its signature; the code for the work is imported
when the command runs.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path
from typing import NoReturn, TextIO

from rich.markup import escape

from napo_bench.cli import (  # noqa: F401
    cache,
    compare,
    console,
    data,
    eval,
    gate,
    judge,
    lab,
    power,
    report,
    score,
    train,
    train_then_eval,
)
from napo_bench.cli.root import app
from napo_bench.core import disk, interrupts, processes
from napo_bench.core.errors import NapoBenchError

_INTERRUPTED = 130


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of napo-bench as a note, and any other warning as Python does."""
    if category.__module__.startswith("napo_bench."):
        console.err.print(f"[yellow]note[/yellow] {escape(str(message))}", highlight=False)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def main() -> None:
    """Run the command line. A NapoBenchError becomes one panel and exit code 2; the exit code is 130 after Ctrl-C and
    143 after SIGTERM. Any other error is a fault of napo-bench: its traceback and exit code 2, because 1 says that a
    gate failed.
    """
    sys.unraisablehook = interrupts.keep_interrupt
    warnings.showwarning = _show_warning
    try:
        with interrupts.sigterm_as_ctrl_c():
            app()
    except NapoBenchError as error:
        console.print_error(error)
        sys.exit(2)
    except OSError as error:
        why = disk.reason(error)
        if why is None:
            _end_by_fault()
        place = error.filename if isinstance(error.filename, str) else None
        console.print_error(
            disk.unwritable(Path(place), why)
            if place
            else NapoBenchError(f"What the command prints cannot be written: {why}.", disk.GO_ON)
        )
        sys.exit(2)
    except KeyboardInterrupt as again:  # a second signal, while Typer translates the first
        _end_interrupted(again)
    except Exception:
        _end_by_fault()
    except SystemExit as end:
        if end.code == _INTERRUPTED:  # Typer's translation of both signals
            _end_interrupted(interrupts.cause(end))
        raise


def _end_by_fault() -> NoReturn:
    """Print the traceback of the present error, and end."""
    traceback.print_exc()
    console.print_error(
        NapoBenchError("This is a fault of napo-bench, not of what you typed.", "Please report the lines above.")
    )
    sys.exit(2)


def _end_interrupted(interrupt: KeyboardInterrupt | None) -> NoReturn:
    """Print what was kept and how to continue, and end as a process that the signal has ended.

    Further signals change nothing of the end.
    """
    for signum in interrupts.SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    asked = interrupt if isinstance(interrupt, interrupts.Interrupted) else interrupts.Interrupted(signal.SIGINT)
    code = 128 + asked.signum
    if processes.is_first():
        kept = asked.kept or "What was finished is on disk."
        arguments = sys.argv[1:]
        resumed = [*arguments, "--resume"] if arguments[:1] == ["train"] and "--resume" not in arguments else arguments
        command = shlex.join(["napo-bench", *resumed])
        launched = " (through the same launcher)" if not processes.is_alone() else ""
        text = f"Interrupted by {signal.Signals(asked.signum).name}. {kept} To continue{launched}: {command}"
        console.err.print(text, markup=False, highlight=False, soft_wrap=True)
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # Python would wait for requests that an endpoint does not answer
    sys.exit(code)
