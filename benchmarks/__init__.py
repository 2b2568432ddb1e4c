"""The benchmarks: one folder for each benchmark, and the entry points `napo_bench.benchmarks` of other distributions.

This module imports a benchmark only when its object is needed, so a list of names costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from napo_bench.core.errors import NapoBenchError, unknown_name

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from napo_bench.benchmarks.benchmark import Benchmark, Task

GROUP = "napo_bench.benchmarks"
"""The entry point group of plug-ins: `name = "package:BENCHMARK"`."""


def benchmark_names() -> list[str]:
    """The names of all benchmarks, without an import of a benchmark.

    Raises:
        NapoBenchError: a plug-in has the name of another benchmark.
    """
    return [*_folders(), *_plugins()]


@cache
def all_benchmarks() -> dict[str, Benchmark]:
    """Name -> benchmark, in the order in which they are printed.

    Raises:
        NapoBenchError: a plug-in cannot be imported, is no benchmark, or has a name of another one.
    """
    found = [_of_folder(name) for name in _folders()]
    found += [_of_plugin(point) for point in _plugins().values()]
    taken: dict[str, Benchmark] = {}
    for benchmark in found:
        for task in benchmark.tasks:
            if task.name in taken:
                raise NapoBenchError(
                    f"The benchmarks {taken[task.name].name} and {benchmark.name} both have a task {task.name!r}.",
                    "Rename the task of the plug-in.",
                )
            taken[task.name] = benchmark
    return {benchmark.name: benchmark for benchmark in sorted(found, key=lambda one: (one.place, one.name))}


def benchmark_named(name: str, where: str = "") -> Benchmark:
    """The benchmark of a name; `-` is read as `_`.

    Args:
        name: The name.
        where: File or option with the name, for the message.

    Raises:
        NapoBenchError: there is no such benchmark. The error gives the nearest name.
    """
    plain = name.replace("-", "_")
    if plain in _folders():
        return _of_folder(plain)
    if plain not in all_benchmarks():
        raise unknown_name("benchmark", name, all_benchmarks(), where)
    return all_benchmarks()[plain]


def benchmark_labels() -> dict[str, str]:
    """Name of each benchmark -> its label, in the order in which the benchmarks are printed."""
    return {name: benchmark.label for name, benchmark in all_benchmarks().items()}


def all_tasks() -> dict[str, tuple[Benchmark, Task]]:
    """Name of a task for `--suite` -> its benchmark and the task, in the order of the benchmarks."""
    return {task.name: (benchmark, task) for benchmark in all_benchmarks().values() for task in benchmark.tasks}


def default_suite() -> tuple[str, ...]:
    """The tasks that are evaluated without `--suite`: those of the paper's Table 1."""
    return tuple(name for name, (_, task) in all_tasks().items() if task.is_default)


@cache
def _folders() -> tuple[str, ...]:
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


@cache
def _plugins() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in _folders() or (point.name in found and found[point.name].value != point.value):
            other = f"of {_distribution(found[point.name])}" if point.name in found else "of napo-bench"
            raise NapoBenchError(
                f"The benchmark {point.name!r} of {_distribution(point)} has the name of the one {other}.",
                f"Uninstall one of the two, or rename the entry point in the group {GROUP}.",
            )
        found[point.name] = point
    return found


def _of_folder(name: str) -> Benchmark:
    benchmark: Benchmark = importlib.import_module(f"{__name__}.{name}").BENCHMARK
    return benchmark


def _of_plugin(point: EntryPoint) -> Benchmark:
    from napo_bench.benchmarks.benchmark import Benchmark

    where = f"The plug-in {point.name!r} of {_distribution(point)}"
    hint = f"Repair or uninstall {_distribution(point)}."
    try:
        benchmark = point.load()
    except Exception as error:
        raise NapoBenchError(f"{where} cannot be imported: {type(error).__name__}: {error}.", hint) from error
    if not isinstance(benchmark, Benchmark):
        raise NapoBenchError(f"{where}: {point.value} is no Benchmark but {type(benchmark).__name__}.", hint)
    if benchmark.name != point.name:
        raise NapoBenchError(f"{where} calls itself {benchmark.name!r}.", "Give both the same name.")
    return benchmark


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"
