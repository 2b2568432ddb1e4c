"""RunResult: what an evaluation leaves behind, the one format that score, eval, report, compare and gate share.

On disk: `run.json` with metrics and provenance, and beside it a folder with one JSON-lines file a benchmark that holds
every sample (prompt, response, counts), enough to score, compare and browse again without the model.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from napo_bench import files
from napo_bench.errors import NapoBenchError

SCHEMA_VERSION = 1
_COST = re.compile(r"\d+ judge replies, \d+ prompt tokens and \d+ completion tokens$")


@dataclass(frozen=True)
class MetricValue:
    """One number of a benchmark.

    Attributes:
        value: In the benchmark's published unit.
        ci95: 95% bootstrap interval, (low, high), same unit.
        n: Samples that the number speaks of (its denominator in sampling units, not in mentions).
    """

    value: float
    ci95: tuple[float, float]
    n: int


@dataclass
class BenchmarkResult:
    """One benchmark of a run.

    Attributes:
        metrics: Name -> value; the names are those of the design.
        breakdown: Group ("concept/colour", "style/cartoon", "question_type/counting") -> metric -> value.
        complete: False where the scores are over a part of the benchmark.
        notes: One line each: what is missing, which ids, how many empty responses.
        doubts: Why the numbers are no measurement, one line each. A gate refuses to judge such numbers.
        settings: What must be equal for two results to share a row (text pipeline and versions, CHAIR definition,
            judge model, generation profile).
        unanswered: {"sample_id", "reason"} of each prompt that has no answer, or whose answer no judge rates; the
            metrics leave it out.
        samples: One row a sampling unit: {"sample_id", "unit", "counts", ...details for the explorer}.
    """

    metrics: dict[str, MetricValue]
    breakdown: dict[str, dict[str, MetricValue]] = field(default_factory=dict)
    complete: bool = True
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    unanswered: list[dict[str, str]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        """What qualifies the numbers: the doubts, and the notes except what a judge cost."""
        return [*self.doubts, *(note for note in self.notes if not _COST.search(note))]


@dataclass
class RunResult:
    """Benchmarks of one checkpoint, or of one file of stored responses, with their provenance."""

    benchmarks: dict[str, BenchmarkResult]
    provenance: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write `path` and its samples folder, samples first, each file atomically.

        `run.json` keeps its samples in `samples/`, any other `NAME.json` in `NAME.samples/`.
        """
        folder = path.parent / ("samples" if path.name == "run.json" else f"{path.stem}.samples")
        for name, benchmark in self.benchmarks.items():
            files.write_jsonl(folder / f"{name}.jsonl", benchmark.samples)
        files.write_json(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "benchmarks": {name: _without_samples(benchmark) for name, benchmark in self.benchmarks.items()},
                "samples": folder.name,
                "provenance": self.provenance,
            },
        )

    @classmethod
    def load(cls, path: Path, *, samples: bool = True) -> RunResult:
        """Read what `save` wrote; a folder stands for the `run.json` in it.

        Args:
            path: The JSON file, or its folder.
            samples: Read the samples too; a missing samples file is then an error.

        Raises:
            NapoBenchError: no such file, not a run, or another schema version.
        """
        if path.is_dir():
            path = path / "run.json"
        document = files.read_json(path, "Give the run.json that `napo-bench eval` or `napo-bench score` wrote.")
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise NapoBenchError(
                f"{path}: schema_version is {version!r}; {SCHEMA_VERSION} is expected.",
                "Score the stored responses again with this version of napo-bench.",
            )
        folder = path.parent / str(document.get("samples", ""))
        benchmarks = {}
        for name, entry in files.field(document, "benchmarks", dict, str(path)).items():
            where = f"{path}, benchmark {name}"
            benchmarks[name] = BenchmarkResult(
                metrics=_metrics(files.field(entry, "metrics", dict, where), where),
                breakdown={group: _metrics(values, where) for group, values in entry.get("breakdown", {}).items()},
                complete=bool(entry.get("complete", True)),
                notes=list(entry.get("notes", [])),
                doubts=list(entry.get("doubts", [])),
                settings=dict(entry.get("settings", {})),
                unanswered=list(entry.get("unanswered", [])),
                samples=files.read_jsonl(folder / f"{name}.jsonl") if samples else [],
            )
        return cls(benchmarks, dict(document.get("provenance", {})))


def package_versions() -> dict[str, str]:
    """Python's version and those of the installed packages that can change a number."""
    versions = {"python": sys.version.split()[0]}
    for name in ("napo-bench", "lmms-eval", "transformers", "torch", "peft", "nltk", "spacy", "openai", "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _without_samples(benchmark: BenchmarkResult) -> dict[str, Any]:
    document = asdict(benchmark)
    del document["samples"]
    return document


def _metrics(entries: dict[str, Any], where: str) -> dict[str, MetricValue]:
    metrics = {}
    for name, entry in entries.items():
        number = (int, float)
        ends = files.field(entry, "ci95", list, f"{where}, metric {name}")
        if len(ends) != 2 or not all(isinstance(end, number) for end in ends):
            raise NapoBenchError(f"{where}, metric {name}: the field 'ci95' is {ends!r:.80}; two numbers are expected.")
        metrics[name] = MetricValue(
            value=float(files.field(entry, "value", number, f"{where}, metric {name}")),
            ci95=(float(ends[0]), float(ends[1])),
            n=int(files.field(entry, "n", int, f"{where}, metric {name}")),
        )
    return metrics
