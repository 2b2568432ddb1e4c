"""Beginning of a long command: one line says what the command does, before any slow import."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from napo_bench.cli import console
from napo_bench.core import processes

_QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Environment variables that libraries read when they are imported. The user's own setting is kept."""


def begin(what: str) -> None:
    """Print in the first process what the command does, and keep the libraries' own lines off the terminal.

    Args:
        what: Line that says what the command does.
    """
    quiet_libraries()
    if processes.is_first():
        console.err.print(what, markup=False, highlight=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Show only napo-bench's own lines: no bars of transformers, and no warnings about internals of libraries."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore", FutureWarning)
    for name in ("accelerate", "torch.distributed", "datasets"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        library: Any = transformers_logging
        library.set_verbosity_error()
        library.disable_progress_bar()


def tell_licence(data: str) -> None:
    """Print in the first process the licence of preference rows, if it is known."""
    from napo_bench.trainers.published import full_name, licence_of

    licence = licence_of(data)
    if licence and processes.is_first():
        console.err.print(f"Licence of {full_name(data)}: {licence}.", markup=False, highlight=False, soft_wrap=True)
