"""The benchmarks: one folder for each benchmark, and the entry points `napo_bench.benchmarks` of other distributions.

This module imports a benchmark only when its object is needed, so a list of names costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING

from napo_bench.core import plugins
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
    found = [(_of_folder(name), "napo-bench") for name in _folders()]
    found += [(plugins.load(point, _as_benchmark), plugins.distribution(point)) for point in _plugins().values()]
    taken: dict[str, str] = {}
    for benchmark, source in found:
        for task in benchmark.tasks:
            one = f"{benchmark.name} of {source}"
            if task.name in taken:
                raise NapoBenchError(
                    f"The benchmarks {taken[task.name]} and {one} both have a task {task.name!r}.",
                    "Rename the task of the plug-in, or uninstall the plug-in.",
                )
            taken[task.name] = one
    benchmarks = sorted((benchmark for benchmark, _ in found), key=lambda one: (one.place, one.name))
    return {benchmark.name: benchmark for benchmark in benchmarks}


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


def _plugins() -> dict[str, EntryPoint]:
    return plugins.installed(GROUP, "benchmark", _folders())


def _of_folder(name: str) -> Benchmark:
    benchmark: Benchmark = importlib.import_module(f"{__name__}.{name}").BENCHMARK
    return benchmark


def _as_benchmark(found: object) -> Benchmark:
    from napo_bench.benchmarks.benchmark import Benchmark

    if not isinstance(found, Benchmark):
        raise NapoBenchError(f"a Benchmark is expected, {type(found).__name__} found.")
    return found
