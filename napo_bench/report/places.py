"""Where the files that a run names are now: a run may be read from another folder than it was made in, or be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path


def find_folder(named: str, run: Path, is_it: Callable[[Path], bool]) -> Path | None:
    """The folder that a run names in its provenance; None where it is not found.

    A relative path is relative to the folder that the evaluation was started in. That folder is not recorded, but the
    run's own path was most often below it: the path is tried from the run's folder upwards, then from here.

    Args:
        named: The path as the run has it.
        run: The run's folder.
        is_it: Whether a folder is the one.
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
