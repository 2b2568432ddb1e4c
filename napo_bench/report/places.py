"""Finds the files that a run names, also if the run is read from another folder or was moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path


def find_folder(named: str, run: Path, is_it: Callable[[Path], bool]) -> Path | None:
    """The folder that a run names in its provenance; None if the folder is not found.

    A relative path is relative to the folder in which the evaluation was started. That folder is not recorded, but it
    is usually above the run's folder. So the path is tried from the run's folder upwards, then from the working folder.

    Args:
        named: Path in the provenance.
        run: Folder of the run.
        is_it: Function that says whether a folder is the right one.
    """
    return next(filter(is_it, _candidates(Path(named), run.absolute())), None) if named else None


def _candidates(named: Path, run: Path) -> Iterator[Path]:
    if named.is_absolute():
        yield named
    else:
        for folder in (run, *run.parents, Path.cwd()):
            yield folder / named
    if named.parent.name == run.parent.name:  # moved together: FOLDER/model and FOLDER/eval
        yield run.parent / named.name
