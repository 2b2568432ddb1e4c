"""Stored responses -> BenchmarkResult: the one way, for `napo-bench score` and for the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from napo_bench.benchmarks.metrics import BENCHMARKS
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import BOOTSTRAP_SEED, Row, ScoreOptions, read_responses, replaced_note
from napo_bench.benchmarks.unanswered import answer_rows
from napo_bench.core import digests
from napo_bench.core.errors import unknown_name
from napo_bench.core.thoughts import DEFAULT_MARKS

__all__ = ["BOOTSTRAP_SEED", "Row", "ScoreOptions", "data_hashes", "read_responses", "score"]

_DATA_FILES = {
    "vlind": ("data.json", "*.parquet", "*.jsonl"),
    "object_halbench": (
        "questions.jsonl",
        "synonyms_refine.txt",
        "extractor_template.txt",
        "annotations/instances_train2014.json",
        "annotations/instances_val2014.json",
        "annotations/captions_train2014.json",
        "annotations/captions_val2014.json",
    ),
    "amber": (
        "annotations.json",
        "relation.json",
        "safe_words.txt",
        "query_generative.json",
        "query_discriminative.json",
    ),
    "mmhal": ("template.json", "judge_template.txt"),
}


def score(benchmark: str, rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score official response rows.

    Args:
        benchmark: One of napo_bench.benchmarks.metrics.BENCHMARKS.
        rows: Responses in the benchmark's official format. Thoughts in them are not scored; see
            `napo_bench.benchmarks.unanswered` for two further fields.
        data_dir: Holds a folder a benchmark, with the official data files.
        options: How to score.

    Raises:
        NapoBenchError: data or responses are missing, malformed or incomplete; each time naming file, row and field.
    """
    rows = answer_rows(benchmark, rows, options.thinking_marks)
    result = _scorer(benchmark)(rows, data_dir, options)
    result.notes += replaced_note(rows)
    if options.thinking_marks != DEFAULT_MARKS:
        result.settings["thinking_marks"] = [list(pair) for pair in options.thinking_marks]
    return result


def data_hashes(benchmark: str, data_dir: Path) -> dict[str, str]:
    """SHA-256 of the benchmark's data files that are there, by path relative to the data dir (images not included).

    A micro world's `micro.json` is among them, so that a result says that it is not of the published data.
    """
    paths = [path for name in _DATA_FILES[benchmark] for path in sorted((data_dir / benchmark).glob(name))]
    paths += data_dir.glob("micro.json")
    names = [path.relative_to(data_dir).as_posix() for path in paths]
    return dict(zip(names, digests.sha256(paths), strict=True))


def _scorer(benchmark: str) -> Callable[[Sequence[Row], Path, ScoreOptions], BenchmarkResult]:
    # Imported where they are used: the judge's client alone takes longer to import than most scores to compute.
    match benchmark:
        case "vlind":
            from napo_bench.benchmarks.vlind.result import score_vlind

            return score_vlind
        case "object_halbench":
            from napo_bench.benchmarks.object_halbench.result import score_object_halbench

            return score_object_halbench
        case "amber":
            from napo_bench.benchmarks.amber.result import score_amber

            return score_amber
        case "mmhal":
            from napo_bench.benchmarks.mmhal.result import score_mmhal

            return score_mmhal
    raise unknown_name("benchmark", benchmark, BENCHMARKS)
