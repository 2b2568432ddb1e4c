"""Published numbers: each with its base, its conditions and the place where it was read.

The folder `results/published` has a CSV file for each printed table, and three TOML files: `sources.toml` says where
each table was read, `protocols.toml` how its numbers were measured, `bases.toml` which models methods start from.
"""

from __future__ import annotations

import csv
import io
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from napo_bench.benchmarks import all_benchmarks
from napo_bench.benchmarks.benchmark import NOT_STATED, Benchmark, Metric, Task, one_way
from napo_bench.benchmarks.metrics import all_metrics, metric_named
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.paths import results_dir

ALL = "all"
"""Number of answers if the whole published data is scored."""

_DECODING = re.compile(r"greedy|not stated|\d+ beams(, temperature \d+(\.\d+)?)?(, top-k \d+)?")
_MEASURED = "measured"
_TEXTS = ("name", "group", "recipe", "method", "base", _MEASURED)


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a table was read: a section of `sources.toml`.

    Attributes:
        paper: Short name of the paper.
        at: Address of the paper.
        date: Year and month; "not stated" if the place read has none.
        place: Table of the paper; "" if the place read does not number it.
        read: What was read, with its place.
        measured: Authors whose conditions the rows have that name none themselves.
        note: Marks of the printed table, and changes of its form.
    """

    paper: str
    at: str
    date: str
    place: str
    read: str
    measured: str
    note: str = ""

    @property
    def label(self) -> str:
        """Paper and table: "NaPO Table 1"."""
        return f"{self.paper} {self.place}".rstrip()


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How authors measured a task: a section of `protocols.toml`.

    Attributes:
        decoding: "greedy", or beams, temperature and top-k; NOT_STATED if the authors do not say it.
        answers: Number of answers; ALL, or NOT_STATED.
        why: Where the conditions are written.
        conversation: System line of the prompts, as a run's setting names it; NOT_STATED if the authors do not say it.
        settings: What else decides the numbers, as in a run's settings: CHAIR definition, judge.
        other: What else no run here does, such as another question; "" if nothing is known.
        prints: Metric key of a table -> key of the metric of a run with the same definition, if it is another one.
    """

    decoding: str
    answers: int | str
    why: str
    conversation: str = NOT_STATED
    settings: Mapping[str, Any] = {}
    other: str = ""
    prints: Mapping[str, str] = {}


class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that methods start from: a section of `bases.toml`.

    Attributes:
        checkpoints: Its names on the hub.
    """

    checkpoints: list[str]


@dataclass(frozen=True)
class Result:
    """The published numbers of one model on one task.

    Attributes:
        method: The method, by which papers' rows about one checkpoint of a base are found.
        base: Model that the method starts from.
        benchmark: Benchmark of the task.
        task: Task as `--suite` names it.
        values: Metric key -> number as printed, in the metric's unit.
        authors: Name of those whose conditions the numbers have.
        conditions: How the numbers were measured.
        source: Where the numbers were read.
    """

    method: str
    base: str
    benchmark: Benchmark
    task: str
    values: Mapping[str, str]
    authors: str
    conditions: Conditions
    source: Source

    @property
    def measured_values(self) -> dict[str, str]:
        """Key of the metric of a run that is defined in the same way -> number as printed."""
        return {self.conditions.prints.get(key, key): value for key, value in self.values.items()}


@dataclass(frozen=True)
class PublishedRow:
    """A line of a printed table.

    Attributes:
        name: Name in the table.
        group: Heading above the line; "" without headings.
        recipe: Recipe that trains the model; "" if there is none.
        results: Numbers by task.
    """

    name: str
    group: str
    recipe: str
    results: Sequence[Result]

    @property
    def values(self) -> dict[str, float]:
        """Metric key -> number."""
        return {key: float(value) for result in self.results for key, value in result.values.items()}


@dataclass(frozen=True)
class PublishedTable:
    """A printed table.

    Attributes:
        name: Name of its file, without ".csv".
        source: Where it was read.
        metrics: Keys of its columns.
        rows: Its lines.
    """

    name: str
    source: Source
    metrics: Sequence[str]
    rows: Sequence[PublishedRow]


@dataclass(frozen=True)
class Published:
    """All published numbers.

    Attributes:
        tables: Tables by name.
        bases: Models that methods start from, by name.
    """

    tables: Mapping[str, PublishedTable]
    bases: Mapping[str, Base]

    @property
    def results(self) -> list[Result]:
        """The numbers of all tables."""
        return [result for table in self.tables.values() for row in table.rows for result in row.results]

    def base_of(self, checkpoint: str) -> str:
        """The base with this name on the hub; "" if there is none."""
        wanted = checkpoint.strip("/").casefold()
        for name, base in self.bases.items():
            if wanted in (entry.casefold() for entry in base.checkpoints):
                return name
        return ""


def published_table(name: str) -> PublishedTable:
    """The table of a file of `results/published`, without its ".csv"."""
    return published().tables[name]


@cache
def published() -> Published:
    """The numbers of `results/published`."""
    return load_published(results_dir() / "published")


def load_published(folder: Path) -> Published:
    """Read published numbers.

    Raises:
        NapoBenchError: a file is missing or malformed, a table has no source, or a row names something that does not
            exist, has a number that its metric cannot have, or does not say how its numbers were measured.
    """
    sources = _sections(folder / "sources.toml", Source)
    bases = _sections(folder / "bases.toml", Base)
    protocols = _protocols(folder / "protocols.toml")
    for name, source in sources.items():
        for field in ("paper", "at", "date", "read"):
            if not getattr(source, field).strip():
                raise NapoBenchError(f"{folder / 'sources.toml'}: {name} has an empty {field!r}.")
    names = sorted(path.stem for path in folder.glob("*.csv"))
    for name in names:
        if name not in sources:
            raise NapoBenchError(
                f"{folder / name}.csv has no section in sources.toml.", "Say where the table was read."
            )
    for name in sources:
        if name not in names:
            raise NapoBenchError(f"{folder / 'sources.toml'}: {name} is no file {name}.csv.")
    tables = {name: _table(folder / f"{name}.csv", source, bases, protocols) for name, source in sources.items()}
    return Published(tables, bases)


def decoding_of(generation: Mapping[str, Any]) -> str:
    """A run's generation settings in the words of `Conditions.decoding`; "" if they are not recorded."""
    if not generation.get("profile"):
        return ""
    beams = generation.get("num_beams", 1)
    if beams == 1 and not generation.get("do_sample"):
        return "greedy"
    words = {"temperature": "temperature", "top_k": "top-k"} if generation.get("do_sample") else {}
    drawn = [f"{word} {generation[key]:g}" for key, word in words.items() if key in generation]
    return ", ".join([f"{beams} beams", *drawn])


_Section = TypeVar("_Section")


def _sections(path: Path, kind: type[_Section]) -> dict[str, _Section]:
    try:
        document = tomllib.loads(files.read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise NapoBenchError(f"{path} is not valid TOML: {error}.") from None
    found = {}
    for name, section in document.items():
        try:
            found[name] = msgspec.convert(section, kind)
        except msgspec.ValidationError as error:
            raise NapoBenchError(f"{path}: {name}: {error}.") from None
    return found


def _protocols(path: Path) -> dict[str, dict[str, Conditions]]:
    """Authors -> task -> conditions."""
    found = _sections(path, dict[str, Conditions])
    of_task = _tasks()
    for authors, by_task in found.items():
        for task, conditions in by_task.items():
            where = f"{path}: [{authors}.{task}]"
            if task not in of_task:
                raise unknown_name("task", task, of_task, where)
            if not _DECODING.fullmatch(conditions.decoding):
                raise NapoBenchError(
                    f"{where}: decoding is {conditions.decoding!r}.",
                    'Write "greedy", "not stated" or for example "3 beams, temperature 0.2, top-k 50".',
                )
            answers = conditions.answers
            if answers not in (ALL, NOT_STATED) and not (isinstance(answers, int) and answers > 0):
                raise NapoBenchError(
                    f"{where}: answers is {answers!r}; a number, {ALL!r} or {NOT_STATED!r} is expected."
                )
            if not conditions.why.strip():
                raise NapoBenchError(f"{where} does not say where the conditions are written (why).")
            for key in (*conditions.prints, *conditions.prints.values()):
                metric_named(key, where)
            measured = of_task[task][0].measured
            if measured is not one_way and not measured(conditions.settings):
                raise NapoBenchError(
                    f"{where}: the settings do not say how the numbers were measured.",
                    f'Give the settings that decide the numbers, or "{NOT_STATED}".',
                )
    return found


@cache
def _tasks() -> dict[str, tuple[Benchmark, Task]]:
    return {task.name: (benchmark, task) for benchmark in all_benchmarks().values() for task in benchmark.tasks}


def _table(
    path: Path, source: Source, bases: Mapping[str, Base], protocols: Mapping[str, Mapping[str, Conditions]]
) -> PublishedTable:
    reader = csv.DictReader(io.StringIO(files.read_text(path)))
    columns = list(reader.fieldnames or ())
    overrides = {f"{name}.{_MEASURED}" for name in all_benchmarks()}
    metrics = [column for column in columns if column not in (*_TEXTS, *overrides)]
    for key in metrics:
        metric_named(key, str(path))
    if missing := [column for column in ("name", "base") if column not in columns]:
        raise NapoBenchError(f"{path} has no column {missing[0]!r}.")
    rows = []
    for line in reader:
        where = f"{path}, line {reader.line_num}"
        if None in line or None in line.values():
            raise NapoBenchError(f"{where}: the number of fields is not that of the heads, {len(columns)}.")
        rows.append(_row(line, metrics, source, bases, protocols, where))
    return PublishedTable(path.stem, source, metrics, rows)


def _row(
    line: Mapping[str, str],
    metrics: Sequence[str],
    source: Source,
    bases: Mapping[str, Base],
    protocols: Mapping[str, Mapping[str, Conditions]],
    where: str,
) -> PublishedRow:
    name, base = line["name"], line["base"]
    if not name:
        raise NapoBenchError(f"{where}: the row has no name.")
    if base not in (*bases, NOT_STATED):
        raise unknown_name("base", base, [*bases, NOT_STATED], where)
    given = {key: line[key] for key in metrics if line[key]}
    for key, value in given.items():
        _require_in_range(all_metrics()[key], value, where)
    results = []
    for task, (benchmark, definition) in _tasks().items():
        values = {key: given[key] for key in given if key in (f"{benchmark.name}.{own}" for own in definition.metrics)}
        if values:
            authors = line.get(f"{benchmark.name}.{_MEASURED}") or line.get(_MEASURED) or source.measured
            conditions = _conditions(authors, task, protocols, where)
            method = line.get("method") or name
            results.append(Result(method, base, benchmark, task, values, authors, conditions, source))
    return PublishedRow(name, line.get("group", ""), line.get("recipe", ""), results)


def _require_in_range(metric: Metric, text: str, where: str) -> None:
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise NapoBenchError(f"{where}: {metric.key} is {text!r}; a number is expected.")
    if metric.high is not None and float(text) > metric.high:
        raise NapoBenchError(f"{where}: {metric.key} is {text}; a number from 0 to {metric.high:g} is expected.")


def _conditions(authors: str, task: str, protocols: Mapping[str, Mapping[str, Conditions]], where: str) -> Conditions:
    if authors not in protocols:
        raise unknown_name("protocol", authors, protocols, where)
    if task not in protocols[authors]:
        raise NapoBenchError(f"{where}: protocols.toml does not say how {authors} measured {task}.")
    return protocols[authors][task]
