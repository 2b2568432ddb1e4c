"""Files that come with the project: the paper's rows, the reference run and the default gates."""

from __future__ import annotations

from pathlib import Path

from napo_bench.core.errors import NapoBenchError


def results_dir() -> Path:
    """The folder `results`: beside the package in a checkout, inside it in an installed wheel.

    Raises:
        NapoBenchError: it is in neither place.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "_results", package.parent / "results"):
        if (folder / "gates.toml").is_file():
            return folder
    raise NapoBenchError("The folder results/ is not there.", "Install napo-bench again: pip install napo-bench")
