"""How a long command begins: with one line that says what it does, before anything that takes long is imported."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from napo_bench.cli import console
from napo_bench.core import processes

_QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
"""Environment variables that libraries read when they are imported; a user's own setting wins."""


def begin(what: str) -> None:
    """Print what the command does, in the first process, and keep the terminal free of the libraries' own lines.

    Args:
        what: One line.
    """
    quiet_libraries()
    if processes.is_first():
        console.err.print(what, markup=False, highlight=False, soft_wrap=True)


def quiet_libraries() -> None:
    """Leave the terminal to our own lines: no bars of transformers, no warnings about the libraries' insides."""
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
