"""The runs of a report: their names, their training, and why their numbers differ from the published protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from napo_bench.benchmarks import all_benchmarks
from napo_bench.benchmarks.judged import fingerprints
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.names import TRAINING, Control
from napo_bench.data.sources import WebFile
from napo_bench.engines.chat import NOT_SENT
from napo_bench.report.names import name_and_path, run_names
from napo_bench.report.places import find_folder
from napo_bench.runs.compare import differing_settings
from napo_bench.runs.result import RunResult
from napo_bench.trainers.output import LOG
from napo_bench.trainers.recipe import Recipe, recipe_of

MICRO_WORLD = "The micro world, not the published data."
_PUBLISHED_CONVERSATION = "llava_v1"
_BESIDE_THE_METHOD = ("seed", "logging_steps", "save_steps", "workers", "report_to")
"""Keys of a recipe in which trainings of one method may differ."""


@dataclass(frozen=True)
class NamedRun:
    """One run of a report.

    Attributes:
        name: Name of the run's row and of its answers.
        run: Result of the run.
        recipe: Recipe of the checkpoint; None if unknown.
        log: Lines of the checkpoint's training log; empty if there is no log.
        folder: Folder of the run's JSON file; None for a run that is pooled from other runs.
        lacks: Reason why the recipe or the log was not found; "" if nothing is missing.
    """

    name: str
    run: RunResult
    recipe: Recipe | None
    log: list[dict[str, Any]]
    folder: Path | None = None
    lacks: str = ""

    @property
    def control(self) -> Control | None:
        """Control that the run's checkpoint was trained as; None for any other checkpoint."""
        checkpoint = self.run.provenance.checkpoint
        return None if checkpoint is None else checkpoint.control


def load_runs(arguments: Sequence[str], *, samples: bool) -> list[NamedRun]:
    """Load the runs of a report.

    Args:
        arguments: PATH or NAME=PATH of each run's JSON file or folder.
        samples: Whether to read the samples too.

    Raises:
        NapoBenchError: a run cannot be read, or two have the same name.
    """
    given, paths = zip(*map(name_and_path, arguments), strict=True)
    runs = [RunResult.load(path, samples=samples) for path in paths]
    loaded = []
    for name, path, run in zip(run_names(given, paths, runs), paths, runs, strict=True):
        folder = path if path.is_dir() else path.parent
        loaded.append(NamedRun(f"{name}{_mapped(run)}", run, *_training(run, folder)))
    return loaded


def require_one_method(trainings: Sequence[NamedRun]) -> list[str]:
    """Notes about trainings that are taken as trainings of one method: the runs whose recipe is not known.

    Raises:
        NapoBenchError: two trainings have different recipes, apart from the seed and what changes no training.
    """
    if len(trainings) < 2:
        return []
    known = [run for run in trainings if run.recipe is not None]
    for run in known[1:]:
        assert run.recipe is not None and known[0].recipe is not None
        here, first = asdict(run.recipe), asdict(known[0].recipe)
        other = [name for name in here if here[name] != first[name] and name not in _BESIDE_THE_METHOD]
        if other:
            shown = "; ".join(f"{name} {first[name]!r} and {here[name]!r}" for name in other)
            raise NapoBenchError(
                f"{known[0].name} and {run.name} are trainings of different recipes: {shown}.",
                "Give the baseline, then trainings of one recipe with different seeds. Ask for each method by itself.",
            )
    unknown = [run.name for run in trainings if run.recipe is None]
    if not unknown:
        return []
    return [f"Taken as trainings of one method, because their recipe is not known: {', '.join(unknown)}"]


def _mapped(run: RunResult) -> str:
    """What the name of a run with mapped numbers ends with: ", mapped from JUDGE (120 ratings)"."""
    for result in run.benchmarks.values():
        if result.mapped_from:
            return f", mapped from {result.mapped_from} ({result.settings['mapped'].get('ratings')} ratings)"
    return ""


def deviations(run: RunResult) -> dict[str, list[str]]:
    """Benchmark with numbers -> differences from the published protocol, one sentence each."""
    is_micro = run.provenance.data.is_micro
    return {
        name: [
            *([MICRO_WORLD] if is_micro else _other_data(run, name)),
            *_from_all(name, run.benchmarks[name]),
            *_from_the_papers(name, run.benchmarks[name]),
        ]
        for name in all_benchmarks()
        if name in run.benchmarks and run.benchmarks[name].metrics
    }


def obstacles(run: RunResult, benchmark: str) -> list[str]:
    """Why no published number on a benchmark is comparable with a run's, however the run's answers were generated."""
    result = run.benchmarks[benchmark]
    mapped = [f"The ratings are mapped from {result.mapped_from}."] if result.mapped_from else []
    unknown = [] if run.provenance.data.of(benchmark) else ["The run has no hashes of its data: data not stated."]
    return [*unknown, *_other_data(run, benchmark), *_from_all(benchmark, result), *mapped, *result.doubts]


def differing_fingerprints(runs: Sequence[RunResult]) -> list[dict[str, list[str]]]:
    """For each run: benchmark -> a sentence with the system fingerprints of its judges or of its extractor, if a run
    that was measured in the same way has other fingerprints.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for name, result in run.benchmarks.items():
            seen.setdefault((name, _way(name, result)), set()).add(_served(result))
    return [
        {
            name: [f"System fingerprint of judge or extractor: {_served(result)}."]
            for name, result in run.benchmarks.items()
            if len(seen[name, _way(name, result)]) > 1
        }
        for run in runs
    ]


def _way(benchmark: str, result: BenchmarkResult) -> str:
    return all_benchmarks()[benchmark].measured(result.settings)


def _served(result: BenchmarkResult) -> str:
    return ", ".join(fingerprints(result.settings)) or "not reported"


def comparable(rated: Sequence[tuple[RunResult, BenchmarkResult]], benchmark: str) -> bool:
    """Whether numbers of a benchmark were measured in the same way, over all of the same data, and without doubts.
    Mapped numbers were not measured.

    Args:
        rated: Each run, and its result, or its result as one of its judges rates it.
        benchmark: Name of the benchmark.
    """
    results = [result for _, result in rated]
    hashes = [run.provenance.data.of(benchmark) for run, _ in rated]
    same_way = not any(differing_settings(result, results[0]) for result in results)
    return (
        same_way
        and all(result.complete and not result.doubts and not result.mapped_from for result in results)
        and all(digest == hashes[0] for digest in hashes)
    )


def _from_all(benchmark: str, result: BenchmarkResult) -> list[str]:
    """Differences from every published protocol."""
    settings, found = result.settings, []
    if not result.complete:
        n = max((value.n for value in result.metrics.values()), default=0)
        found.append(f"Over a part of the benchmark (n = {n}).")
    pipeline = settings.get("text_pipeline", {})
    if pipeline.get("name", "official") != "official":
        found.append(f"Words read by the pipeline {pipeline['name']}, not by NLTK and spaCy.")
    prescribed = all_benchmarks()[benchmark].spacy_models.get("words", "")
    model = str(pipeline.get("spacy_model", prescribed))
    if not model.startswith(prescribed):
        found.append(f"Word similarity of {model} (published: {prescribed}).")
    if settings.get("generation", {}).get("temperature") == NOT_SENT:
        found.append("The endpoint accepts no temperature and uses its own.")
    if variables := settings.get("generation", {}).get("chat_template_kwargs"):
        found.append(f"Chat template with {', '.join(f'{name}={value!r}' for name, value in variables.items())}.")
    return found


def _from_the_papers(benchmark: str, result: BenchmarkResult) -> list[str]:
    """Differences from how NaPO asks."""
    settings, found = result.settings, []
    if all_benchmarks()[benchmark].in_paper:
        conversation = settings.get("conversation", _PUBLISHED_CONVERSATION)
        if conversation != _PUBLISHED_CONVERSATION:
            found.append(f"Asked in the conversation {conversation} (published: {_PUBLISHED_CONVERSATION}).")
        profile = settings.get("generation", {}).get("profile")
        if profile is None:
            found.append("Stored responses: how they were generated is not recorded.")
        elif profile != "paper":
            found.append(f"Generation profile {profile} (published: paper).")
    return found


def _other_data(run: RunResult, benchmark: str) -> list[str]:
    pinned = {
        source.target: source.sha256
        for source in all_benchmarks()[benchmark].sources
        if isinstance(source, WebFile) and source.sha256
    }
    digests = run.provenance.data.of(benchmark)
    other = [name for name, digest in digests.items() if pinned.get(name, digest) != digest]
    return [f"Other data than the published: {', '.join(other)}."] if other else []


def _training(run: RunResult, folder: Path) -> tuple[Recipe | None, list[dict[str, Any]], Path, str]:
    """The recipe and the log that `napo-bench train` wrote, the run's folder, and what is missing."""
    checkpoint = run.provenance.checkpoint
    named = (checkpoint.folder if checkpoint is not None else None) or ""
    trained = find_folder(named, folder, lambda place: (place / TRAINING).is_file())
    if trained is None:
        is_there = not named or find_folder(named, folder, _is_checkpoint) is not None
        return None, [], folder, "" if is_there else f"its checkpoint {named} is not found"
    stored = files.field(files.read_json(trained / TRAINING), "recipe", dict, str(trained / TRAINING))
    recipe = recipe_of(stored, str(trained / TRAINING))
    log = trained / LOG
    if not log.is_file():
        return recipe, [], folder, f"{log} does not exist"
    return recipe, files.read_jsonl(log), folder, ""


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
