"""Runs below the published numbers that were measured in the same way; footnotes name what is left out, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from napo_bench.benchmarks import all_benchmarks, benchmark_labels
from napo_bench.benchmarks.benchmark import NOT_STATED
from napo_bench.benchmarks.judged import results_by_judge
from napo_bench.benchmarks.metrics import all_metrics
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.report.columns import Column
from napo_bench.report.contradictions import Contradiction, contradictions, stated
from napo_bench.report.published import ALL, Published, Result, decoding_of, published
from napo_bench.report.runs import NamedRun, comparable, obstacles
from napo_bench.report.table import Cell, Letters, Row, Table, our_groups, with_best

ALIKE = "Published, measured in the same way"


@dataclass(frozen=True)
class Way:
    """How runs measured a task.

    Attributes:
        benchmark: Benchmark of the task.
        task: Task as `--suite` names it.
        measured: The benchmark's sentence about how its numbers are measured.
        decoding: As in `published.Conditions`; "" if it is not recorded.
        conversation: System line of the prompts; "" if it is not recorded.
        answers: Number of answers.
        obstacles: Why no published number is comparable.
    """

    benchmark: str
    task: str
    measured: str
    decoding: str
    conversation: str
    answers: int
    obstacles: tuple[str, ...]

    def differences(self, result: Result) -> list[str]:
        """The conditions of a published number on this task that are not stated or are not the runs'."""
        conditions, found = result.conditions, []
        if conditions.decoding in (NOT_STATED, "") or conditions.decoding != self.decoding:
            found.append(f"decoding {conditions.decoding}")
        if conditions.conversation in (NOT_STATED, "") or conditions.conversation != self.conversation:
            found.append(f"conversation {conditions.conversation}")
        if conditions.answers not in (self.answers, ALL):
            found.append(f"n {'' if conditions.answers == NOT_STATED else '= '}{conditions.answers}")
        settings = stated(conditions.settings)
        if NOT_STATED in settings.values() or result.benchmark.measured(conditions.settings) != self.measured:
            found += [f"{name} {value}" for name, value in settings.items()]
        return [*found, conditions.other] if conditions.other else found

    def __str__(self) -> str:
        known = (self.decoding or "decoding not recorded", f"conversation {self.conversation or 'not recorded'}")
        return f"{', '.join((*known, f'n = {self.answers}'))}. {self.measured}".rstrip()


Columns = Mapping[tuple[Way, str], Column]
"""Way and metric key -> column."""


def line_up(runs: Sequence[NamedRun], base: str = "") -> list[Table]:
    """The runs below the published numbers that are comparable with them. Runs that were measured in the same way
    share a table. Runs of the micro world have none.

    Args:
        runs: Runs of the user.
        base: Base of the runs whose checkpoint does not say it.

    Raises:
        NapoBenchError: a run's base is unknown or not the given one, or every run is of the micro world.
    """
    known = published()
    real = [run for run in runs if not run.run.provenance.data.is_micro]
    if not real:
        raise NapoBenchError("No published number is over the micro world's data.", "Leave out --published.")
    if base and base not in known.bases:
        raise unknown_name("base", base, known.bases, "--base")
    alike: dict[tuple[str, tuple[Way, ...]], list[NamedRun]] = {}
    for run in real:
        alike.setdefault((_base(run, base, known), tuple(_ways(run))), []).append(run)
    return [
        _table(f"published-{number}", same, name, ways, known)
        for number, ((name, ways), same) in enumerate(alike.items(), start=1)
    ]


def _base(run: NamedRun, given: str, known: Published) -> str:
    checkpoint = run.run.provenance.checkpoint
    name = run.recipe.base if run.recipe is not None else checkpoint.name if checkpoint is not None else ""
    found = known.base_of(name)
    if found and given and found != given:
        raise NapoBenchError(f"The run {run.name} starts from {found}, not from {given}.", "Leave out --base.")
    if not (found or given):
        raise NapoBenchError(
            f"The base of the run {run.name} is not known: its checkpoint is {repr(name) if name else 'not recorded'}.",
            "Name the model that it was trained from: --base BASE. results/published/bases.toml lists them.",
        )
    return found or given


def _ways(run: NamedRun) -> list[Way]:
    ways = []
    for name, benchmark in all_benchmarks().items():
        if name not in run.run.benchmarks:
            continue
        whole = run.run.benchmarks[name]
        generated = (
            decoding_of(whole.settings.get("generation", {})),
            str(whole.settings.get("conversation", "")),
        )
        for result in results_by_judge(whole):
            for task in benchmark.tasks:
                counted = [result.metrics[metric].n for metric in task.metrics if metric in result.metrics]
                if counted:
                    how = benchmark.measured(result.settings)
                    hindered = tuple(obstacles(run.run, name))
                    ways.append(Way(name, task.name, how, *generated, max(counted), hindered))
    return ways


def _table(label: str, runs: Sequence[NamedRun], base: str, ways: Sequence[Way], known: Published) -> Table:
    letters = Letters()
    of_base = [result for result in known.results if result.base == base]
    fitting: list[tuple[Way, Result]] = []
    heads: dict[Way, tuple[str, ...]] = {}
    for way in ways:
        own = [result for result in of_base if result.task == way.task]
        differences = [[*way.obstacles, *way.differences(result)] for result in own]
        fitting += [(way, result) for result, found in zip(own, differences, strict=True) if not found]
        notes = [f"{_named(way)}: {way}"]
        if way.obstacles:
            notes.append(f"{_named(way)}: no published number is comparable. {' '.join(way.obstacles)}")
        else:
            others = sum(result.task == way.task and result.base != base for result in known.results)
            notes += _left_out(way, own, differences, base, others)
        heads[way] = tuple(letters.of(note) for note in notes)
    columns = _columns(runs, ways, fitting, heads)
    rows = _rows(fitting, columns, of_base, letters)
    keys = [column.key for column in columns.values()]
    groups = [(ALIKE, with_best(rows, list(columns.values()), set(keys)))] if rows else []
    ours = [_our_row(run, columns, letters) for run in runs]
    competing = {
        column.key
        for (way, _), column in columns.items()
        if comparable([(run.run, _rated(run, way)) for run in runs], way.benchmark)
    }
    groups += our_groups(runs, ours, list(columns.values()), competing)
    title = f"{base}, measured as {' and '.join(run.name for run in runs)}."
    return Table(None, list(columns.values()), groups, letters.texts, title=title, label=label)


def _rated(run: NamedRun, way: Way) -> BenchmarkResult:
    """A run's result on the benchmark of a way, as the way's judge rates it."""
    measured = all_benchmarks()[way.benchmark].measured
    results = results_by_judge(run.run.benchmarks[way.benchmark])
    return next(result for result in results if measured(result.settings) == way.measured)


def _our_row(run: NamedRun, columns: Columns, letters: Letters) -> Row:
    cells = {}
    for (way, _), column in columns.items():
        result = _rated(run, way)
        if column.metric.name in result.metrics:
            value = result.metrics[column.metric.name]
            notes = [f"{benchmark_labels()[way.benchmark]}: {remark}." for remark in result.remarks]
            is_part = result is not run.run.benchmarks[way.benchmark]
            cells[column.key] = Cell(value.value, value.ci95, tuple(map(letters.of, notes)), is_part=is_part)
    return Row(run.name, cells)


def _columns(
    runs: Sequence[NamedRun],
    ways: Sequence[Way],
    fitting: Sequence[tuple[Way, Result]],
    heads: Mapping[Way, tuple[str, ...]],
) -> Columns:
    """The columns of each way: the metrics of the runs that are in the paper's table or that a fitting number has."""
    columns = {}
    for way in ways:
        printed = {key for other, result in fitting if other == way for key in result.measured_values}
        several = len({other.measured for other in ways if other.benchmark == way.benchmark}) > 1
        measured = {f"{way.benchmark}.{name}" for run in runs for name in _rated(run, way).metrics}
        for key, metric in all_metrics().items():
            if key in _keys(way) & measured and (metric.in_table or key in printed):
                columns[way, key] = Column(metric, way.measured, several, heads[way])
    return columns


def _keys(way: Way) -> set[str]:
    (task,) = (task for task in all_benchmarks()[way.benchmark].tasks if task.name == way.task)
    return {f"{way.benchmark}.{name}" for name in task.metrics}


def _named(way: Way) -> str:
    """The benchmark, and the task if the benchmark has several."""
    label, tasks = benchmark_labels()[way.benchmark], all_benchmarks()[way.benchmark].tasks
    return label if way.task == tasks[0].name else f"{label} ({way.task})"


def _left_out(
    way: Way, results: Sequence[Result], differences: Sequence[Sequence[str]], base: str, others: int
) -> list[str]:
    """The footnote about published numbers that are not lined up: for each reason, the methods and the rows' number."""
    reasons: dict[str, dict[str, None]] = {}
    for result, found in zip(results, differences, strict=True):
        if found:
            reasons.setdefault(", ".join(found), {})[result.method] = None
    told = [f"{reason}: {', '.join(methods)}" for reason, methods in reasons.items()]
    if others:
        told.append(f"another base than {base}: {others} rows")
    return [f"{_named(way)}, left out. {'. '.join(f'({index}) {text}' for index, text in enumerate(told, 1))}."]


def _rows(
    fitting: Iterable[tuple[Way, Result]], columns: Columns, of_base: Sequence[Result], letters: Letters
) -> list[Row]:
    """A row for each method, authors and values. A table of the authors' own paper comes before copies."""
    rows: list[tuple[tuple[str, str], dict[tuple[Way, str], str], dict[str, None]]] = []
    for way, result in sorted(fitting, key=lambda entry: entry[1].source.paper != entry[1].authors):
        key = (result.method, result.authors)
        values = {(way, name): value for name, value in result.measured_values.items() if (way, name) in columns}
        fits = [row for row in rows if row[0] == key and _agree(row[1], values)]
        if not fits:
            fits = [(key, {}, {})]
            rows += fits
        _, there, sources = fits[0]
        if values.keys() - there.keys():
            there |= {place: value for place, value in values.items() if place not in there}
            sources[f"{result.source.label}, {result.source.at}"] = None
    disputed = {(found.method, found.metric.key): found for found in contradictions(of_base)}
    made = []
    for (method, authors), values, sources in rows:
        cells = {column.key: Cell(float(values[place])) for place, column in columns.items() if place in values}
        notes = [f"Measured by {authors}, read in {'; '.join(sources)}."]
        if doubted := [disputed[method, key] for _, key in values if (method, key) in disputed]:
            notes.append(f"Tables disagree about {method}: {'; '.join(map(_told, doubted))} (docs/published.md).")
        name = method if authors in method else f"{method} ({authors})"
        made.append(Row(name, cells, tuple(map(letters.of, notes))))
    return made


def _told(found: Contradiction) -> str:
    label = benchmark_labels()[found.metric.benchmark]
    return f"{label} {found.metric.label} {', '.join(found.values)}"


def _agree(values: Mapping[tuple[Way, str], str], others: Mapping[tuple[Way, str], str]) -> bool:
    return all(float(values[key]) == float(others[key]) for key in values if key in others)
