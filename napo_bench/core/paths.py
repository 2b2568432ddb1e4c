"""Where benchmark data and caches lie."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

DATA_DIR_VARIABLE = "NAPO_BENCH_DATA"


def data_dir(option: Path | None = None) -> Path:
    """The data dir: the option, else the environment variable NAPO_BENCH_DATA, else `data` in the user's cache folder.

    The folder need not exist.
    """
    if option is not None:
        return option.expanduser()
    if named := os.environ.get(DATA_DIR_VARIABLE):
        return Path(named).expanduser()
    return cache_dir() / "data"


def cache_dir() -> Path:
    """The project's folder in the user's cache: everything in it can be made again. It need not exist."""
    return platformdirs.user_cache_path("napo-bench", appauthor=False)
