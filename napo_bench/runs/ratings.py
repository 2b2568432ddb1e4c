"""Ratings of the same answers by several raters: those in runs, and those in a user's files."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napo_bench.benchmarks import all_benchmarks, benchmark_named
from napo_bench.benchmarks.rated import Counts, Rated
from napo_bench.benchmarks.result import BenchmarkResult, cluster_of
from napo_bench.benchmarks.scoring import read_responses
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.runs.result import RunResult

SAME_ANSWER = (
    "Ratings are of the same answer if two runs have the same text for a sample, or if a file of ratings names the "
    "run: --ratings RUN=FILE, or a column run."
)
"""When two ratings are of the same answer, for messages."""

ASK_AGAIN = (
    "A judge's reply to the same answer is kept and used in each run: it is one rating. To compare a judge with "
    "itself, let the judge rate each answer several times: --judge-repeats 2."
)
"""How one judge gives several ratings of one answer, for messages."""

_ROWS_SHOWN = 20


@dataclass
class Item:
    """One answer with its ratings.

    Attributes:
        sample_id: Id of the sample that the answer is of.
        cluster: Cluster of the sample: answers about one picture depend on each other.
        runs: Names of the runs with this answer; empty for an answer that only a file of ratings knows.
        by: Rater -> counts, one for each time that the rater rated the answer.
    """

    sample_id: str
    cluster: str
    runs: set[str] = field(default_factory=set)
    by: dict[str, list[Counts]] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedResult:
    """A run that is rated.

    Attributes:
        name: Name of the run.
        run: The run, with its samples.
        result: Its result of the rated benchmark.
    """

    name: str
    run: RunResult
    result: BenchmarkResult


@dataclass(frozen=True)
class Ratings:
    """Ratings of answers.

    Attributes:
        benchmark: Name of the rated benchmark.
        rated: How its ratings are compared and mapped.
        items: The answers.
        notes: Lines about ratings that were not used.
        settings: Rater of a run -> the settings that name the rater.
    """

    benchmark: str
    rated: Rated
    items: list[Item]
    notes: list[str]
    settings: Mapping[str, dict[str, Any]]

    @property
    def raters(self) -> dict[str, int]:
        """Rater -> number of rated answers, in the order in which the raters first occur."""
        counts: dict[str, int] = {}
        for item in self.items:
            for rater in item.by:
                counts[rater] = counts.get(rater, 0) + 1
        return counts

    def of_run(self, name: str) -> list[Item]:
        """The answers of a run."""
        return [item for item in self.items if name in item.runs]

    def rated_by(self, *raters: str) -> list[Item]:
        """The answers that all of these raters rated."""
        return [item for item in self.items if all(rater in item.by for rater in raters)]


def rated_benchmark(name: str | None, runs: Sequence[RunResult] = ()) -> str:
    """The benchmark whose ratings are meant.

    Args:
        name: Name that the user gave; `-` is read as `_`. None is the benchmark of the runs, first one with a judge.
        runs: The runs.

    Raises:
        NapoBenchError: there is no such benchmark, or no judge and no extractor reads its answers.
    """
    known = {key: benchmark for key, benchmark in all_benchmarks().items() if benchmark.rated is not None}
    if name is None:
        shared = [key for key in known if all(key in run.benchmarks for run in runs)] or list(known)
        return next((key for key in shared if "judge" in known[key].needs), shared[0])
    found = benchmark_named(name, "--benchmark").name
    if found not in known:
        raise NapoBenchError(
            f"No judge and no extractor reads the answers of {found}.", f"Give one of: {', '.join(known)}."
        )
    return found


def is_run(path: Path) -> bool:
    """Whether a path is that of a run, and not of a file of ratings."""
    if path.is_dir():
        return True
    if path.suffix != ".json":
        return False
    document = files.read_json(path)
    return isinstance(document, dict) and "schema_version" in document


def collect(benchmark: str, runs: Sequence[tuple[str, RunResult]], tables: Sequence[tuple[str, Path]] = ()) -> Ratings:
    """The ratings of runs and of files, by answer.

    Two runs with the same text as answer to a sample have the same answer, so the ratings of both are about it. A
    rating that both runs have (the same repetition of the same judge) counts once, with the first run's counts.

    Args:
        benchmark: Name of the rated benchmark.
        runs: Name of each run, and the run with its samples.
        tables: Name of a run ("" if the rows name it, or are about answers of no run), and a file of ratings.

    Raises:
        NapoBenchError: a run has no such benchmark, or a file of ratings has rows that cannot be used. The error
            names the first 20 of them and the number of all, or the columns that the whole file lacks.
    """
    rated = benchmark_named(benchmark).rated
    assert rated is not None
    items: dict[tuple[str, str], Item] = {}
    keys: dict[tuple[str, str, str], set[Hashable]] = {}
    again: dict[str, int] = {}
    settings: dict[str, dict[str, Any]] = {}
    for name, run in runs:
        result = _result(benchmark, name, run)
        by_rater = rated.raters(result)
        for rater in by_rater:
            settings.setdefault(rater, rated.settings_of(rater, result.settings))
        for number, sample in enumerate(result.samples, start=1):
            where = f"{name}, {benchmark}, sample {number}"
            sample_id = files.field(sample, "sample_id", str, where)
            answer = _answer(sample, name)
            item = items.setdefault((sample_id, answer), Item(sample_id, cluster_of(sample)))
            item.runs.add(name)
            for rater, by_sample in by_rater.items():
                for key, counts in by_sample.get(sample_id, {}).items():
                    seen = keys.setdefault((sample_id, answer, rater), set())
                    if key in seen:
                        again[rater] = again.get(rater, 0) + 1
                        continue
                    seen.add(key)
                    item.by.setdefault(rater, []).append(counts)
    found = list(items.values())
    for name, path in tables:
        found = _with_table(rated, found, [known for known, _ in runs], name, path)
    return Ratings(benchmark, rated, found, _notes(found, again), settings)


def named_results(ratings: Ratings, runs: Sequence[tuple[str, RunResult]]) -> list[NamedResult]:
    """The runs with their result of the rated benchmark."""
    return [NamedResult(name, run, run.benchmarks[ratings.benchmark]) for name, run in runs]


def _result(benchmark: str, name: str, run: RunResult) -> BenchmarkResult:
    result = run.benchmarks.get(benchmark)
    if result is None:
        there = ", ".join(run.benchmarks) or "none"
        raise NapoBenchError(
            f"The run {name} has no {benchmark}; it has: {there}.", f"Evaluate {benchmark} too, or give --benchmark."
        )
    if result.mapped_from:
        raise NapoBenchError(
            f"The numbers of the run {name} are mapped from {result.mapped_from}: it has no ratings.",
            "Give the run whose ratings were mapped.",
        )
    return result


def _answer(sample: Mapping[str, Any], run: str) -> str:
    """What tells answers to a sample apart: the text, or the run if its samples have no text."""
    return f"text {sample['response']}" if "response" in sample else f"run {run}"


def _with_table(rated: Rated, items: Sequence[Item], runs: Sequence[str], name: str, path: Path) -> list[Item]:
    """The items with the ratings of a file. A row of no run is about an answer of its own."""
    if name and name not in runs:
        raise unknown_name("run", name, runs, f"--ratings {name}={path}")
    by_run = {(run, item.sample_id): item for item in items for run in item.runs}
    clusters = {item.sample_id: item.cluster for item in items}
    own: dict[str, Item] = {}
    bad: list[str] = []
    seen: dict[tuple[str, str, str, str], int] = {}
    rows = _rows(path)
    _require_columns(rated, path, rows)
    for number, row in enumerate(rows, start=1):
        try:
            sample_id, rater, run, repeat = (_text(row, key) for key in ("sample_id", "rater", "run", "repeat"))
            run = run or name
            counts = _counts(rated, row)
            item = by_run.get((run, sample_id))
            if run and run not in runs:
                raise ValueError(f"run is {run!r}; the runs are: {', '.join(runs) or 'none'}")
            if run and item is None:
                raise ValueError(f"the run {run} has no sample {sample_id!r}")
            key = (run, sample_id, rater, repeat)
            if key in seen:
                raise ValueError(f"{rater} rates this answer in row {seen[key]} too; a column repeat tells both apart")
            seen[key] = number
        except ValueError as error:
            bad.append(f"row {number}: {error}")
            continue
        if item is None:
            item = own.setdefault(sample_id, Item(sample_id, clusters.get(sample_id, f"sample {sample_id}")))
        item.by.setdefault(rater, []).append(counts)
    if bad:
        more = [f"and {len(bad) - _ROWS_SHOWN} more"] if len(bad) > _ROWS_SHOWN else []
        raise NapoBenchError(
            "\n- ".join([f"{path}: {len(bad)} of {len(rows)} rows cannot be used:", *bad[:_ROWS_SHOWN], *more]),
            _columns_hint(rated),
        )
    return [*items, *own.values()]


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of ratings: CSV, a JSON list, or JSON lines."""
    hint = "Give a CSV file, a JSON list or JSON lines of ratings."
    files.require_file(path, hint)
    rows = files.read_csv(path, hint) if path.suffix.lower() == ".csv" else read_responses(path)
    if not rows:
        raise NapoBenchError(f"{path} has no rows.", hint)
    return list(rows)


def _require_columns(rated: Rated, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise NapoBenchError if no row of a file has one of the columns."""
    found = list(dict.fromkeys(name for row in rows for name in row))
    missing = [name for name in ("sample_id", "rater", *rated.columns) if name not in found]
    if not missing:
        return
    shown = f"its columns are: {', '.join(map(repr, found))}"
    separator = next((mark for mark in (";", "\t", "|") if len(found) == 1 and mark in found[0]), None)
    if separator is not None:
        shown += f". They are separated by {separator!r}; a comma is expected"
    raise NapoBenchError(f"{path} has no column {', '.join(missing)}; {shown}.", _columns_hint(rated))


def _columns_hint(rated: Rated) -> str:
    return (
        f"A row has the columns sample_id, rater, {', '.join(rated.columns)}, and if needed run and repeat, with these "
        "names in small letters."
    )


def _text(row: Mapping[str, Any], name: str) -> str:
    """A text of a row; "" for an optional column that the row lacks."""
    value = row.get(name)
    if name in ("run", "repeat") and value in (None, ""):
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise ValueError(f"{name} is {value!r:.60}; a text is expected" if name in row else f"{name} is missing")
    return str(value).strip()


def _counts(rated: Rated, row: Mapping[str, Any]) -> Counts:
    return rated.counts(**{name: _number(row, name, *ends) for name, ends in rated.columns.items()})


def _number(row: Mapping[str, Any], name: str, low: int, high: int | None) -> int:
    """A whole number of a row, within its bounds."""
    if name not in row:
        raise ValueError(f"{name} is missing")
    value = row[name]
    expected = f"a whole number from {low}" + ("" if high is None else f" to {high}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not number.is_integer() or number < low or (high is not None and number > high):
        raise ValueError(f"{name} is {value!r:.60}; {expected} is expected")
    return int(number)


def _notes(items: Iterable[Item], again: Mapping[str, int]) -> list[str]:
    alone = sum(len(item.by) < 2 for item in items)
    notes = [f"answers with ratings of fewer than two raters, which are not compared: {alone}"] if alone else []
    if again:
        shown = ", ".join(f"{rater} ({count})" for rater, count in again.items())
        notes.append(f"ratings of an answer that several runs have and the same rater rated, counted once: {shown}")
    return notes
