"""Stored responses -> BenchmarkResult, for `napo-bench score` and for evaluations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path

from napo_bench.benchmarks import benchmark_named
from napo_bench.benchmarks.benchmark import Benchmark
from napo_bench.benchmarks.question import BenchmarkData, Question, Row
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import BOOTSTRAP_SEED, ScoreOptions, match_answers, read_responses, replaced_note
from napo_bench.benchmarks.unanswered import answer_rows, thoughts_note
from napo_bench.core import digests
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.paths import MICRO_STAMP
from napo_bench.core.thoughts import DEFAULT_MARKS

__all__ = ["BOOTSTRAP_SEED", "Row", "ScoreOptions", "data_hashes", "read_responses", "score", "score_answers"]


def score(benchmark: str, rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score official response rows.

    Args:
        benchmark: Name of a benchmark.
        rows: Responses in the benchmark's official format. Thoughts in them are not scored; see
            `napo_bench.benchmarks.unanswered` for three further fields.
        data_dir: Folder with one folder for each benchmark, with the official data files.
        options: Options of scoring.

    Raises:
        NapoBenchError: there is no such benchmark, or data or responses are missing, malformed or incomplete; each
            time naming file, row and field.
    """
    scored = benchmark_named(benchmark)
    data = scored.open(data_dir / scored.name)
    rows = answer_rows(rows, scored.text_fields, options.thinking_marks)
    return _score(scored, data, rows, data.find(rows, options.source, options.allow_partial), options)


def score_answers(
    benchmark: Benchmark,
    data: BenchmarkData,
    questions: Sequence[Question],
    rows: Sequence[Row],
    options: ScoreOptions,
) -> BenchmarkResult:
    """Score the answers to questions that were read from the benchmark's data.

    Args:
        benchmark: The benchmark.
        data: Data of the benchmark, from which the questions are.
        questions: Questions.
        rows: Response row of each question.
        options: Options of scoring.

    Raises:
        NapoBenchError: data is missing, malformed or incomplete.
    """
    return _score(benchmark, data, answer_rows(rows, benchmark.text_fields, options.thinking_marks), questions, options)


def _score(
    benchmark: Benchmark,
    data: BenchmarkData,
    rows: Sequence[Row],
    given: Sequence[Question | Hashable],
    options: ScoreOptions,
) -> BenchmarkResult:
    answers = match_answers(data, rows, given, benchmark.text_fields, options)
    result = benchmark.score(data, answers, options)
    if not isinstance(result, BenchmarkResult):
        raise NapoBenchError(
            f"The scorer of {benchmark.name!r} returns {type(result).__name__}; a BenchmarkResult is expected."
        )
    for name in result.metrics:
        if benchmark.metric(name) is None:
            where = f"The scorer of {benchmark.name!r}"
            raise unknown_name("metric", name, [metric.name for metric in benchmark.metrics], where)
    result.notes += replaced_note(rows) + thoughts_note(rows)
    if options.thinking_marks != DEFAULT_MARKS:
        result.settings["thinking_marks"] = [list(pair) for pair in options.thinking_marks]
    return result


def data_hashes(benchmark: str, data_dir: Path) -> dict[str, str]:
    """SHA-256 of the benchmark's existing data files, without images, by path relative to the data folder.

    A micro world's `micro.json` is one of these files, so a result shows that its data is not the published data.
    """
    globs = benchmark_named(benchmark).data_files
    paths = [path for name in globs for path in sorted((data_dir / benchmark).glob(name))]
    paths += data_dir.glob(MICRO_STAMP)
    names = [path.relative_to(data_dir).as_posix() for path in paths]
    return dict(zip(names, digests.sha256(paths), strict=True))
