"""RunResult: the result of an evaluation, in the one format that score, eval, report, compare and gate share.

On disk: `run.json` with metrics and provenance, and beside it a folder with one JSON-lines file for each benchmark. The
file contains every sample (prompt, response, counts), so a run can be scored, compared and browsed again without the
model.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.result import BenchmarkResult, MetricValue
from napo_bench.core import files, links
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.judge_noise import NoiseIntervals
from napo_bench.runs.provenance import Provenance

SCHEMA_VERSION = 1
_GIVE_RUN = "Give the run.json that `napo-bench eval` or `napo-bench score --json` wrote, or its folder."
_WRITE_AGAIN = "The run is damaged. Run the command that wrote it again: the answers are kept and not asked for again."
_RUNS_NAMED = 4


@dataclass
class RunResult:
    """Benchmarks of one checkpoint, or of one file of stored responses, with their provenance."""

    benchmarks: dict[str, BenchmarkResult]
    provenance: Provenance = field(default_factory=Provenance)

    def save(self, path: Path) -> None:
        """Write the samples folder and then `path`, each file atomically. Mapped numbers have no samples.

        `run.json` keeps its samples in `samples/`, any other `NAME.json` in `NAME.samples/`.
        """
        folder = path.parent / ("samples" if path.name == "run.json" else f"{path.stem}.samples")
        links.refuse_links(path.parent, folder.name)
        for name, benchmark in self.benchmarks.items():
            if not benchmark.mapped_from:
                files.write_jsonl(folder / f"{name}.jsonl", benchmark.samples)
        files.write_json(
            path,
            {
                "schema_version": SCHEMA_VERSION,
                "benchmarks": {name: _without_samples(benchmark) for name, benchmark in self.benchmarks.items()},
                "samples": folder.name,
                "provenance": self.provenance.to_json(),
            },
        )

    @classmethod
    def load(cls, path: Path, *, samples: bool = True) -> RunResult:
        """Read a saved result; for a folder, read its `run.json`.

        Args:
            path: JSON file, or its folder.
            samples: Whether to read the samples too. A missing samples file is then an error.

        Raises:
            NapoBenchError: the file does not exist, is no run, or has another schema version.
        """
        if path.is_dir():
            path = path / "run.json"
        document = files.read_json(path, _WRITE_AGAIN if path.is_file() else _where_runs_are(path))
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            raise NapoBenchError(
                f"{path}: schema_version is {version!r}; {SCHEMA_VERSION} is expected.",
                "A newer napo-bench wrote it: upgrade this one, or score the responses again with it."
                if newer
                else f"Is it a run? {_GIVE_RUN} Score the stored responses of an older run again.",
            )
        folder = files.inside(path.parent, str(document.get("samples", "")), str(path))
        try:
            benchmarks = {
                name: _benchmark(name, entry, f"{path}, benchmark {name}")
                for name, entry in files.field(document, "benchmarks", dict, str(path)).items()
            }
            provenance = Provenance.from_json(_optional(document, "provenance", dict, str(path)), f"{path}, provenance")
        except NapoBenchError as error:
            raise NapoBenchError(error.message, error.hint or _WRITE_AGAIN) from None
        if samples:
            for name, benchmark in benchmarks.items():
                if not benchmark.mapped_from:
                    benchmark.samples = files.read_jsonl(
                        files.inside(folder, f"{name}.jsonl", str(path)), _samples_hint(folder)
                    )
        return cls(benchmarks, provenance)


def _where_runs_are(path: Path) -> str:
    """The next step if a run does not exist at its path."""
    if (path.parent / "journal.sqlite").is_file():
        return f"The evaluation in {path.parent} is not finished. The same eval command goes on with it."
    below = sorted(path.parent.glob("**/run.json"))[:_RUNS_NAMED] if path.name == "run.json" else []
    if below:
        return f"There are runs below it: {' '.join(str(found.parent) for found in below)}"
    return _GIVE_RUN


def _samples_hint(folder: Path) -> str:
    return (
        f"Copy {folder} from where the run was made, or run the command that made it again: its answers are kept. "
        "Tables as md, tex and csv need no samples."
    )


def _benchmark(name: str, entry: Any, where: str) -> BenchmarkResult:
    """A benchmark of a run's JSON file, without samples."""
    from napo_bench.benchmarks import all_benchmarks

    if name not in all_benchmarks():
        known = ", ".join(all_benchmarks())
        raise NapoBenchError(f"{where}: there is no such benchmark.", f"The benchmarks are: {known}.")
    metrics = _metrics(files.field(entry, "metrics", dict, where), where)
    breakdown = _optional(entry, "breakdown", dict, where)
    settings = _optional(entry, "settings", dict, where)
    for setting in ("text_pipeline", "judge", "judges", "generation", "mapped"):
        _optional(settings, setting, dict, f"{where}, settings")
    return BenchmarkResult(
        metrics,
        {group: _metrics(files.field(breakdown, group, dict, where), where) for group in breakdown},
        complete=bool(entry.get("complete", True)),
        notes=[str(note) for note in _optional(entry, "notes", list, where)],
        doubts=[str(doubt) for doubt in _optional(entry, "doubts", list, where)],
        settings=settings,
        unanswered=_optional(entry, "unanswered", list, where),
    )


def _optional(entry: Any, name: str, kind: type, where: str) -> Any:
    return files.field(entry, name, kind, where) if name in entry else kind()


def _without_samples(benchmark: BenchmarkResult) -> dict[str, Any]:
    document = asdict(replace(benchmark, samples=[]))  # copying thousands of samples takes a second
    del document["samples"]
    for metrics in (document["metrics"], *document["breakdown"].values()):
        for value in metrics.values():
            if value["noise"] is None:
                del value["noise"]
    return document


def _metrics(entries: dict[str, Any], where: str) -> dict[str, MetricValue]:
    metrics = {}
    for name in entries:
        about = f"{where}, metric {name}"
        entry = files.field(entries, name, dict, where)
        n = files.field(entry, "n", int, about)
        if n < 0:
            raise NapoBenchError(f"{about}: the field 'n' is {n}; 0 or more is expected.")
        metrics[name] = MetricValue(
            value=_finite(files.field(entry, "value", (int, float), about), "value", about),
            ci95=_interval(entry, "ci95", about),
            n=n,
            clusters=_clusters(entry, n, about),
            noise=_noise(files.field(entry, "noise", dict, about), about) if "noise" in entry else None,
        )
    return metrics


def _clusters(entry: Any, n: int, where: str) -> int | None:
    """The number of clusters of `n` samples: at least one if there are samples, and at most one for each sample."""
    if entry.get("clusters") is None:
        return None
    clusters = int(files.field(entry, "clusters", int, where))
    if not bool(n) <= clusters <= n:
        expected = f"a number from {int(bool(n))} to {n:,}, the number of samples,"
        raise NapoBenchError(f"{where}: the field 'clusters' is {clusters}; {expected} is expected.")
    return clusters


def _finite(value: float, name: str, where: str) -> float:
    """The number of a field, which no evaluation writes as NaN or Infinity."""
    if not abs(value) <= sys.float_info.max:  # also an integer of 400 digits
        raise NapoBenchError(f"{where}: the field {name!r} is {value!r:.80}; a finite number is expected.")
    return float(value)


def _noise(entry: Any, where: str) -> NoiseIntervals:
    return NoiseIntervals(*(_interval(entry, part.name, f"{where}, noise") for part in fields(NoiseIntervals)))


def _interval(entry: Any, name: str, where: str) -> tuple[float, float]:
    ends = files.field(entry, name, list, where)
    if len(ends) != 2 or not all(isinstance(end, (int, float)) for end in ends):
        raise NapoBenchError(f"{where}: the field {name!r} is {ends!r:.80}; two numbers are expected.")
    return _finite(ends[0], name, where), _finite(ends[1], name, where)
