"""The runs of a report: their names, how they were trained, and what sets their numbers apart from published ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from napo_bench import files
from napo_bench.compare import differing_settings
from napo_bench.data.sources import SOURCES, WebFile
from napo_bench.errors import NapoBenchError
from napo_bench.metrics import BENCHMARKS
from napo_bench.results import BenchmarkResult, RunResult
from trainers.config import Recipe

MICRO_WORLD = "The micro world, not the published data."
_PINNED = {
    source.target: source.sha256
    for sources in SOURCES.values()
    for source in sources
    if isinstance(source, WebFile) and source.sha256
}
_PUBLISHED_JUDGE = re.compile(r"gpt-4(-\d{4})?")


@dataclass(frozen=True)
class NamedRun:
    """One run of a report.

    Attributes:
        name: What its row and its answers are called.
        run: The result.
        recipe: How its checkpoint was trained; None where that is not known.
        log: The lines of its checkpoint's training log, empty where there is none.
    """

    name: str
    run: RunResult
    recipe: Recipe | None
    log: list[dict[str, Any]]


def load_runs(arguments: Sequence[str], *, samples: bool) -> list[NamedRun]:
    """Load the runs of a report.

    Args:
        arguments: PATH or NAME=PATH each, of a run's JSON file or of its folder.
        samples: Read the samples too.

    Raises:
        NapoBenchError: a run cannot be read, or two have the same name.
    """
    runs: list[NamedRun] = []
    for argument in arguments:
        name, path = _name_and_path(argument)
        run = RunResult.load(path, samples=samples)
        name = name or _default_name(path, run)
        if name in {other.name for other in runs}:
            raise NapoBenchError(
                f"Two runs are called {name!r}.", "Name them: napo-bench report base=A.json our=B.json"
            )
        recipe, log = _training(run)
        runs.append(NamedRun(name, run, recipe, log))
    return runs


def deviations(run: RunResult) -> dict[str, list[str]]:
    """Benchmark with numbers -> what sets these apart from the published protocol, one sentence each."""
    micro = "micro.json" in run.provenance.get("data", {}).get("sha256", {})
    return {
        name: ([MICRO_WORLD] if micro else _other_data(run, name)) + _deviations(name, run.benchmarks[name])
        for name in BENCHMARKS
        if name in run.benchmarks and run.benchmarks[name].metrics
    }


def comparable(runs: Sequence[RunResult], benchmark: str) -> bool:
    """Whether the runs measured a benchmark in the same way, over all of the same data."""
    results = [run.benchmarks[benchmark] for run in runs]
    hashes = [_hashes(run, benchmark) for run in runs]
    same_way = not any(differing_settings(result, results[0]) for result in results)
    return same_way and all(result.complete for result in results) and all(digest == hashes[0] for digest in hashes)


def _deviations(benchmark: str, result: BenchmarkResult) -> list[str]:
    settings, found = result.settings, []
    if not result.complete:
        n = max((value.n for value in result.metrics.values()), default=0)
        found.append(f"Over a part of the benchmark (n = {n}).")
    pipeline = settings.get("text_pipeline", {})
    if pipeline.get("name", "official") != "official":
        found.append(f"Words read by the pipeline {pipeline['name']}, not by NLTK and spaCy.")
    model = str(pipeline.get("spacy_model", "en_core_web_lg"))
    if not model.startswith("en_core_web_lg"):
        found.append(f"Word similarity of {model} (published: en_core_web_lg).")
    if settings.get("chair_definition") == "words":
        found.append("CHAIR over the words of an answer, without the LLM extractor.")
    judge = settings.get("judge")
    if judge and not _PUBLISHED_JUDGE.fullmatch(str(judge.get("model"))):
        found.append(f"Judged by {judge.get('model')} (published: GPT-4).")
    profile = settings.get("generation", {}).get("profile")
    if profile is None:
        found.append("Stored responses: how they were generated is not recorded.")
    elif profile != "paper":
        found.append(f"Generation profile {profile} (published: paper).")
    return found


def _other_data(run: RunResult, benchmark: str) -> list[str]:
    digests = _hashes(run, benchmark)
    other = [name for name, digest in digests.items() if _PINNED.get(name, digest) != digest]
    return [f"Other data than the published: {', '.join(other)}."] if other else []


def _hashes(run: RunResult, benchmark: str) -> dict[str, str]:
    digests: dict[str, str] = run.provenance.get("data", {}).get("sha256", {})
    return {name: digest for name, digest in digests.items() if name.startswith(f"{benchmark}/")}


def _name_and_path(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    if not equals or Path(argument).exists():
        return "", Path(argument)
    return name, Path(path)


def _default_name(path: Path, run: RunResult) -> str:
    checkpoint = run.provenance.get("checkpoint", {}).get("name")
    if checkpoint:
        return Path(str(checkpoint)).name
    if path.is_dir() or path.name == "run.json":
        return (path if path.is_dir() else path.parent).resolve().name
    return path.stem


def _training(run: RunResult) -> tuple[Recipe | None, list[dict[str, Any]]]:
    """The recipe and the log that `napo-bench train` left in the folder of the run's checkpoint."""
    folder = Path(str(run.provenance.get("checkpoint", {}).get("name", "")))
    if not (folder / "training.json").is_file():
        return None, []
    stored = files.field(files.read_json(folder / "training.json"), "recipe", dict, str(folder / "training.json"))
    try:
        recipe = msgspec.convert(stored, Recipe, strict=False)
    except msgspec.ValidationError as error:
        raise NapoBenchError(f"{folder / 'training.json'}: the recipe is not valid: {error}.") from None
    log = folder / "train_log.jsonl"
    return recipe, files.read_jsonl(log) if log.is_file() else []
