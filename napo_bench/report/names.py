"""Names of runs that are shown together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.result import RunResult

_SAYS_NOTHING = ("model",)  # `train-then-eval` and many trainers give every checkpoint's folder this name


def name_and_path(argument: str) -> tuple[str, Path]:
    """The name ("" if none is given) and the path of an argument PATH or NAME=PATH.

    Raises:
        NapoBenchError: the argument has no path.
    """
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists() or ("/" in name and not Path(path).exists()):
        name, path = "", argument
    if not path:
        raise NapoBenchError(f"{argument!r} names no run.", "Give PATH or NAME=PATH, for example base=runs/base")
    return name, Path(path)


def run_names(given: Sequence[str], paths: Sequence[Path], runs: Sequence[RunResult]) -> list[str]:
    """A different name for each run.

    A run without a given name is named after its checkpoint's folder. Runs that would then share a name, or that would
    be named "model", are named after the parts of their paths that differ.

    Args:
        given: The names that the user chose; "" for a run without one.
        paths: JSON file or folder of each run.
        runs: The runs.

    Raises:
        NapoBenchError: a name is given twice, or a run without a name is.
    """
    for name in given:
        if name and given.count(name) > 1:
            raise NapoBenchError(
                f"Two runs are called {name!r}.", "Give each run its own name: first=runs/a second=runs/b"
            )
    places = [_place(path) for path in paths]
    unnamed = [index for index, name in enumerate(given) if not name]
    for index in unnamed:
        if sum(places[other] == places[index] for other in unnamed) > 1:
            raise NapoBenchError(
                f"The run {paths[index]} is given twice.",
                f"Give it once, or name both: first={paths[index]} second={paths[index]}",
            )
    names = [name or _checkpoint_name(run, place) for name, run, place in zip(given, runs, places, strict=True)]
    taken = list(names)
    for index in unnamed:
        rivals = [other for other, name in enumerate(taken) if name == taken[index]]
        if taken[index] in _SAYS_NOTHING and len(rivals) == 1:
            rivals = list(range(len(runs)))
        if len(rivals) > 1:
            names[index] = _distinct_parts(places[index], [places[other] for other in rivals])
    for index in unnamed:
        if names.count(names[index]) > 1:
            names[index] = "/".join(places[index])
    return names


def pair_names(paths: Sequence[Path], runs: Sequence[RunResult]) -> list[str]:
    """A name for each of two runs that are compared; a run compared with itself has one name."""
    if _place(paths[0]) == _place(paths[1]):
        return run_names([""], paths[:1], runs[:1]) * 2
    return run_names(["", ""], paths, runs)


def _checkpoint_name(run: RunResult, place: tuple[str, ...]) -> str:
    checkpoint = run.provenance.checkpoint
    return (Path(checkpoint.name).name if checkpoint is not None else "") or place[-1]


def _place(path: Path) -> tuple[str, ...]:
    """The parts of a run's absolute path: of the folder for a `run.json`, else of the file without `.json`."""
    path = path.resolve()
    if not path.is_dir():
        path = path.parent if path.name == "run.json" else path.with_suffix("")
    return path.parts[1:] or path.parts


def _distinct_parts(place: tuple[str, ...], rivals: Sequence[tuple[str, ...]]) -> str:
    """A path without the parts that this path and all others begin or end with, but with at least one part."""
    others = set(rivals) | {place}
    if len(others) == 1:
        return place[-1]
    end = _shared([other[::-1] for other in others])
    begin = _shared([other[: len(other) - end] for other in others])
    return "/".join(place[begin : len(place) - end])


def _shared(sequences: Sequence[tuple[str, ...]]) -> int:
    """The number of parts that all sequences begin with. In each sequence at least one part is left."""
    most = min(map(len, sequences)) - 1
    return next((n for n in range(most) if len({sequence[n] for sequence in sequences}) > 1), most)
