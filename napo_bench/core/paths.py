"""The folders of benchmark data, caches and the project's files. No other module names the cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from napo_bench.core.errors import NapoBenchError

DATA_DIR_VARIABLE = "NAPO_BENCH_DATA"
FETCHED = "data"
"""Folder in the cache folder with fetched benchmark data."""
MICRO_STAMP = "micro.json"
"""File that says of a data folder that its benchmarks are the micro world's."""


def data_dir(option: Path | None = None) -> Path:
    """The data folder: the option, else the environment variable NAPO_BENCH_DATA, else `data` in the cache folder.

    The folder need not exist.
    """
    if option is not None:
        return option.expanduser()
    if named := os.environ.get(DATA_DIR_VARIABLE):
        return Path(named).expanduser()
    return cache_dir() / FETCHED


def cache_dir() -> Path:
    """The project's folder in the user's cache. Its content can be made again. The folder need not exist."""
    import platformdirs

    return platformdirs.user_cache_path("napo-bench", appauthor=False)


def results_dir() -> Path:
    """The folder `results`: beside the package in a checkout, inside the package in an installed wheel.

    Raises:
        NapoBenchError: neither folder exists.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_results", package.parent / "results"):
        if (folder / "gates.toml").is_file():
            return folder
    raise NapoBenchError("The folder results/ is not there.", "Install napo-bench again: pip install napo-bench")
