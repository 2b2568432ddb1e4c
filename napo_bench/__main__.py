"""The command `napo-bench`: ends in one line if it is interrupted while its modules are imported."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> None:
    """Import and run the command line. See `napo_bench.cli.main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else the shell lets the process ignore it
        signal.signal(signal.SIGINT, _end)
        from napo_bench import cli

        signal.signal(signal.SIGINT, signal.default_int_handler)
    else:
        from napo_bench import cli
    cli.main()


def _end(*_: object) -> NoReturn:
    os.write(2, b"Interrupted before anything was done.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
