"""When imported, appends process and name of each file that is hashed to the file of the variable HASHED."""

from __future__ import annotations

import os
from pathlib import Path

from napo_bench.core import files, processes

sha256_file = files.sha256_file


def told(path: Path) -> str:
    """The digest of a file."""
    with Path(os.environ["HASHED"]).open("a") as log:
        log.write(f"{processes.rank()} {path.name}\n")
    return sha256_file(path)


files.sha256_file = told
