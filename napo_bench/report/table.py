"""The paper's tables with the user's runs below its rows, as markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tabulate import tabulate

from napo_bench.benchmarks import all_benchmarks, benchmark_labels
from napo_bench.benchmarks.metrics import Metric, all_metrics, table_1_metrics
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.report.published import PublishedRow, published_table
from napo_bench.report.runs import NamedRun, comparable, deviations
from napo_bench.trainers.losses import LOSSES
from napo_bench.trainers.recipe import Recipe, load_recipe

OURS = "This evaluation"
_UNLIKE = "No published number here was measured in this way, so none is comparable."
CAPTIONS = {
    1: "Modality bias and hallucination.",
    2: "What each part of the objective does.",
    3: "Training data.",
    4: "Margins that q looks at.",
    5: "NaPO on the original pairs alone.",
    6: "NaPO in place of DPO for the original pairs.",
}
_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "*": "{*}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
}


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        value: Number in the metric's unit.
        interval: 95% interval; None for published numbers.
        marks: Letters of the number's footnotes.
        best: Whether the number is the best of its group.
    """

    value: float
    interval: tuple[float, float] | None = None
    marks: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Row:
    """The row of a model.

    Attributes:
        name: Name of the model.
        cells: Metric key -> number; a metric without a number is absent.
        marks: Letters of the footnotes that apply to every number of the row.
        measured: Benchmark with numbers -> sentence about how they were measured; "" if there is nothing to say.
    """

    name: str
    cells: dict[str, Cell]
    marks: tuple[str, ...] = ()
    measured: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table of the paper's form.

    Attributes:
        number: Number of the table in the paper.
        metrics: Metrics of the columns.
        groups: (label, rows) of each group. The best number is the best within its group.
        footnotes: Letter -> text.
        heads: Metric key -> letters of the footnotes that apply to every number of the column.
        warnings: Sentences about runs that were measured in another way than every published row.
    """

    number: int
    metrics: Sequence[Metric]
    groups: list[tuple[str, list[Row]]]
    footnotes: dict[str, str]
    heads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def marks(self, row: Row) -> set[str]:
        """Letters of the footnotes that apply to a number of a row."""
        at_numbers = ({*cell.marks, *self.heads.get(key, ())} for key, cell in row.cells.items())
        return set(row.marks).union(*at_numbers)

    def spoken_of(self, mark: str) -> list[str]:
        """Names of the rows with a footnote."""
        return [row.name for _, rows in self.groups for row in rows if mark in self.marks(row)]

    @property
    def caption(self) -> str:
        """The table's title and how to read it."""
        return (
            f"{CAPTIONS[self.number]} Bold: best of its group, if the group was measured in one way. "
            "Arrows: the better direction."
        )


def table_1(runs: Sequence[NamedRun], *, paper: bool | None = None) -> Table:
    """Table 1: the runs below the paper's published rows.

    Args:
        runs: Runs of the user.
        paper: Show the paper's rows, in all columns of the paper. None shows them in the columns of the runs'
            benchmarks, unless every run was measured in the micro world.
    """
    metrics = _columns(runs, paper)
    published = _published_groups(metrics) if _shows_paper(runs, paper) else []
    return _table(1, metrics, published, [(run.name, run) for run in runs])


def _columns(runs: Sequence[NamedRun], paper: bool | None) -> list[Metric]:
    """The columns of the benchmarks that a run was measured on, and those of the paper if the user asks for them."""
    published = published_table("napo-1").metrics if paper else ()
    measured = {name for run in runs for name in run.run.benchmarks}
    return [metric for metric in table_1_metrics() if metric.key in published or metric.benchmark in measured]


def variant_tables(runs: Sequence[NamedRun], *, paper: bool | None = None) -> list[Table]:
    """Tables 2 to 6, each if one of the runs is a variant that Table 1 does not have.

    A run is a repetition of a row of the paper if its recipe has the objective of that row.

    Args:
        runs: Runs of the user.
        paper: See `table_1`.
    """
    paper = _shows_paper(runs, paper)
    common = {objective(load_recipe(f"llava-1.5-7b-{name}")) for name in ("dpo", "mdpo", "napo")}
    tables, known = [], all_metrics()
    for number in range(2, 7):
        printed = published_table(f"napo-{number}")
        metrics = [known[key] for key in printed.metrics]
        variants = [(row.name, objective(load_recipe(row.recipe))) for row in printed.rows]
        ours = [
            (f"{name} ({run.name})", run)
            for name, variant in variants
            for run in runs
            if run.recipe is not None and objective(run.recipe) == variant
        ]
        if any(run.recipe is not None and objective(run.recipe) not in common for _, run in ours):
            published = [("LLaVA-v1.5-7B, trained in the paper", [_published(row, metrics) for row in printed.rows])]
            tables.append(_table(number, metrics, published if paper else [], ours))
    return tables


def _shows_paper(runs: Sequence[NamedRun], wanted: bool | None) -> bool:
    return not all(run.run.provenance.data.is_micro for run in runs) if wanted is None else wanted


def objective(recipe: Recipe) -> tuple[str, ...]:
    """The objective of a recipe without its constants: the losses, the margins that each q looks at, and the weights of
    the losses.
    """
    terms = [(term, "q" in LOSSES[term.loss].needs) for term in recipe.terms]
    losses = [f"{term.negative.name}: {term.loss}" + (f", q from {term.q_from}" if q else "") for term, q in terms]
    return (*losses, recipe.weights if len(terms) > 1 else "")


def to_markdown(table: Table, *, intervals: bool = False) -> str:
    """The table as GitHub markdown, with its caption above and its footnotes below."""

    def cell_text(metric: Metric, cell: Cell) -> str:
        value = metric.format(cell.value)
        text = f"**{value}**" if cell.best else value
        if intervals and cell.interval is not None:
            text += f" [{metric.format(cell.interval[0])}, {metric.format(cell.interval[1])}]"
        return text + _sup(cell.marks)

    lines = []
    for label, rows in table.groups:
        lines.append([f"*{markdown(label)}*", *("" for _ in table.metrics)])
        for row in rows:
            lines.append([markdown(row.name) + _sup(row.marks), *_cells(table, row, cell_text, "–")])
    label_of = benchmark_labels()
    heads = [
        f"{label_of[metric.benchmark]} {metric.label} {metric.arrow}{_sup(table.heads.get(metric.key, ()))}"
        for metric in table.metrics
    ]
    align = ["left", *("right" for _ in heads)]
    body = tabulate(lines, ["Model", *heads], tablefmt="pipe", disable_numparse=True, colalign=align)
    notes = "".join(f"\n<sup>{mark}</sup> {markdown(text)}<br>" for mark, text in table.footnotes.items())
    return f"**Table {table.number}.** {table.caption}\n\n{body}\n{notes}".rstrip() + "\n"


def to_latex(table: Table, *, intervals: bool = False) -> str:
    r"""The table as a LaTeX `table*` that needs only `\usepackage{booktabs}`."""

    def cell_text(metric: Metric, cell: Cell) -> str:
        value = metric.format(cell.value)
        text = rf"\textbf{{{value}}}" if cell.best else value
        if intervals and cell.interval is not None:
            low, high = map(metric.format, cell.interval)
            return rf"\shortstack[r]{{{text}{_superscript(cell.marks)}\\{{\tiny [{low}, {high}]}}}}"
        return text + _superscript(cell.marks)

    body: list[str] = []
    for label, rows in table.groups:
        body += [r"\midrule", rf"\multicolumn{{{len(table.metrics) + 1}}}{{l}}{{\textit{{{_tex(label)}}}}} \\"]
        for row in rows:
            cells = _cells(table, row, cell_text, "--")
            body.append(_tex_line([_tex(row.name) + _superscript(row.marks), *cells]))
    notes = [rf"\textsuperscript{{{mark}}} {_tex(text)}" for mark, text in table.footnotes.items()]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{_tex(table.caption)}}}",
        rf"\label{{tab:napo-bench-{table.number}}}",
        r"\small\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{l{'r' * len(table.metrics)}}}",
        r"\toprule",
        *_tex_benchmarks(table.metrics),
        _tex_line(["Model", *(_tex_head(metric, table.heads.get(metric.key, ())) for metric in table.metrics)]),
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\par\smallskip\footnotesize\raggedright", r" \\ ".join(notes)] if notes else []),
        r"\end{table*}",
    ]
    return "\n".join([*lines, ""])


def to_csv(tables: Sequence[Table]) -> str:
    """The tables as one CSV: a line a row, full precision, intervals, and the text of the footnotes."""
    records = []
    for table in tables:
        for label, rows in table.groups:
            for row in rows:
                marks = [mark for mark in table.footnotes if mark in table.marks(row)]
                record: dict[str, Any] = {"table": table.number, "group": label, "model": row.name}
                for metric in table.metrics:
                    cell = row.cells.get(metric.key)
                    low, high = (cell.interval if cell is not None else None) or (None, None)
                    record |= {
                        metric.key: None if cell is None else cell.value,
                        f"{metric.key} low": low,
                        f"{metric.key} high": high,
                    }
                records.append(record | {"notes": " ".join(table.footnotes[mark] for mark in marks)})
    text = io.StringIO()
    columns = dict.fromkeys(name for record in records for name in record)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in record.items()} for record in records)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A cell that a spreadsheet takes for a text, and never for a formula. Numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _table(
    number: int, metrics: Sequence[Metric], published: list[tuple[str, list[Row]]], ours: Sequence[tuple[str, NamedRun]]
) -> Table:
    letters = _Letters()
    compared = [row for _, rows in published for row in rows]
    measured = [_measured(run.run.benchmarks, metrics) for _, run in ours]
    heads = _measured_alike([*(row.measured for row in compared), *measured])
    label_of = benchmark_labels()
    at_heads = {
        metric.key: (letters.of(f"{label_of[metric.benchmark]}: {heads[metric.benchmark]}"),)
        for metric in metrics
        if metric.benchmark in heads
    }
    groups = [
        (label, _with_best([_with_measured(row, heads, letters) for row in rows], metrics, _mixed(rows)))
        for label, rows in published
    ]
    rows, warnings = [], []
    for row, how in zip(_our_rows(metrics, ours, letters), measured, strict=True):
        unlike = {name: text for name, text in how.items() if _unlike(name, text, compared)}
        warnings += [f"{label_of[name]} of {row.name}: {text} {_UNLIKE}" for name, text in unlike.items()]
        told = how | {name: f"{text} {_UNLIKE}" for name, text in unlike.items()}
        rows.append(_with_measured(replace(row, measured=told), heads, letters))
    mixed = {
        metric.benchmark
        for metric in metrics
        if not comparable([run.run for _, run in ours if metric.benchmark in run.run.benchmarks], metric.benchmark)
    }
    groups.append((OURS, _with_best(rows, metrics, mixed)))
    return Table(number, metrics, groups, letters.texts, at_heads, warnings)


class _Letters:
    """The letters of footnotes, in the order in which the table needs them."""

    def __init__(self) -> None:
        self._letters: dict[str, str] = {}

    def of(self, text: str) -> str:
        """The letter of a text."""
        return self._letters.setdefault(text, _letter(len(self._letters)))

    @property
    def texts(self) -> dict[str, str]:
        """Letter -> text."""
        return {letter: text for text, letter in self._letters.items()}


def _measured(results: Mapping[str, BenchmarkResult], metrics: Sequence[Metric]) -> dict[str, str]:
    """Benchmark of the columns with numbers -> how they were measured."""
    known = all_benchmarks()
    there = [name for name in _shown(metrics) if name in results and results[name].metrics]
    return {name: known[name].measured(results[name].settings) for name in there}


def _ways(rows: Sequence[Mapping[str, str]]) -> dict[str, set[str]]:
    """Benchmark -> the ways in which its numbers in these rows were measured."""
    ways: dict[str, set[str]] = {}
    for measured in rows:
        for name, text in measured.items():
            ways.setdefault(name, set()).add(text)
    return ways


def _measured_alike(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Benchmark whose numbers were all measured in one way -> how, if that is known."""
    return {name: texts.pop() for name, texts in _ways(rows).items() if len(texts) == 1 and texts != {""}}


def _unlike(benchmark: str, text: str, published: Sequence[Row]) -> bool:
    """Whether published rows have numbers of a benchmark, and none of them was measured in this way."""
    ways = _ways([row.measured for row in published]).get(benchmark, set()) - {""}
    return bool(ways) and text not in ways


def _with_measured(row: Row, heads: Mapping[str, str], letters: _Letters) -> Row:
    """The row with the footnotes of how its numbers were measured, except those at the heads of columns."""
    cells = {}
    for key, cell in row.cells.items():
        benchmark = key.partition(".")[0]
        text = "" if benchmark in heads else row.measured.get(benchmark, "")
        cells[key] = replace(cell, marks=(*cell.marks, letters.of(text))) if text else cell
    return replace(row, cells=cells)


def _mixed(rows: Sequence[Row]) -> set[str]:
    """Benchmarks whose numbers in these rows were measured in several ways."""
    return {name for name, texts in _ways([row.measured for row in rows]).items() if len(texts) > 1}


def _shown(metrics: Sequence[Metric]) -> list[str]:
    """The benchmarks of the columns."""
    return list(dict.fromkeys(metric.benchmark for metric in metrics))


def _our_rows(metrics: Sequence[Metric], ours: Sequence[tuple[str, NamedRun]], letters: _Letters) -> list[Row]:
    """The rows of the user's runs. A footnote of every row is at the rows' names, any other footnote at its numbers."""
    label_of = benchmark_labels()
    shown = {metric.benchmark for metric in metrics}
    found = [{name: texts for name, texts in deviations(run.run).items() if name in shown} for _, run in ours]
    at_names: dict[str, str] = {}
    for text in dict.fromkeys(text for by_name in found for texts in by_name.values() for text in texts):
        where = [[name for name, texts in by_name.items() if text in texts] for by_name in found]
        if all(names == where[0] for names in where):
            everywhere = all(names == list(by_name) for names, by_name in zip(where, found, strict=True))
            at_names[text] = text if everywhere else f"{', '.join(label_of[name] for name in where[0])}: {text}"

    rows = []
    for (name, run), by_name in zip(ours, found, strict=True):
        measured = {key: run.run.benchmarks[key] for key in label_of if key in shown and key in run.run.benchmarks}
        on_all = _common([result.remarks for result in measured.values()])
        name_marks = tuple(letters.of(text) for text in [*at_names.values(), *on_all])
        cells: dict[str, Cell] = {}
        for benchmark, result in measured.items():
            remarks = [remark for remark in result.remarks if remark not in on_all]
            texts = [text for text in by_name.get(benchmark, []) if text not in at_names]
            texts += [f"{label_of[benchmark]}: {remark}." for remark in remarks]
            marks = tuple(map(letters.of, texts))
            values = result.metrics
            if not values:
                name_marks += marks
            cells |= {
                metric.key: Cell(values[metric.name].value, values[metric.name].ci95, marks)
                for metric in metrics
                if metric.benchmark == benchmark and metric.name in values
            }
        rows.append(Row(name, cells, name_marks))
    return rows


def _common(remarks: Sequence[Sequence[str]]) -> list[str]:
    """The notes that all of the benchmarks share."""
    first = remarks[0] if len(remarks) > 1 else []
    return [remark for remark in first if all(remark in others for others in remarks)]


def _with_best(rows: Iterable[Row], metrics: Sequence[Metric], mixed: set[str]) -> list[Row]:
    """Mark the best of each column that has two numbers or more, measured in one way."""
    rows = list(rows)
    best: dict[str, str] = {}
    known = {metric.key: metric for metric in metrics}
    for metric in metrics:
        values = [metric.format(row.cells[metric.key].value) for row in rows if metric.key in row.cells]
        if len(values) > 1 and metric.benchmark not in mixed and metric.better is not None:
            best[metric.key] = (max if metric.better == "higher" else min)(values, key=float)
    return [
        replace(
            row,
            cells={
                key: replace(cell, best=known[key].format(cell.value) == best.get(key))
                for key, cell in row.cells.items()
            },
        )
        for row in rows
    ]


def _published_groups(metrics: Sequence[Metric]) -> list[tuple[str, list[Row]]]:
    """Group of Table 1 -> published rows with a number in one of the columns."""
    groups: dict[str, list[Row]] = {}
    for row in published_table("napo-1").rows:
        published = _published(row, metrics)
        if published.cells:
            groups.setdefault(row.group, []).append(published)
    return list(groups.items())


def _published(row: PublishedRow, metrics: Sequence[Metric]) -> Row:
    """A published row. Of two tasks of a benchmark, the paper has one."""
    cells = {metric.key: Cell(row.values[metric.key]) for metric in metrics if metric.key in row.values}
    benchmarks = {result.benchmark.name: result for result in row.results}
    there = [name for name in _shown(metrics) if any(key.startswith(f"{name}.") for key in cells)]
    measured = {name: benchmarks[name].benchmark.measured(benchmarks[name].conditions.settings) for name in there}
    return Row(row.name, cells, measured=measured)


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) * (1 + index // 26)


def _cells(table: Table, row: Row, text: Callable[[Metric, Cell], str], absent: str) -> list[str]:
    return [text(metric, row.cells[metric.key]) if metric.key in row.cells else absent for metric in table.metrics]


def _tex_benchmarks(metrics: Sequence[Metric]) -> tuple[str, str]:
    """The line with each benchmark's name over its columns, and the rules under the names."""
    labels = benchmark_labels()
    names, rules, first = [""], "", 2
    for benchmark, own in itertools.groupby(metrics, lambda metric: metric.benchmark):
        width = len(list(own))
        names.append(rf"\multicolumn{{{width}}}{{c}}{{{labels[benchmark]}}}")
        rules += rf"\cmidrule(lr){{{first}-{first + width - 1}}}"
        first += width
    return _tex_line(names), rules


def _tex_line(cells: Sequence[str]) -> str:
    return rf"{' & '.join(cells)} \\"


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in " ".join(text.split()))


def _tex_head(metric: Metric, marks: Sequence[str]) -> str:
    return f"{metric.tex or _tex(metric.label)} {_tex(metric.arrow)}{_superscript(marks)}"


def _superscript(marks: Sequence[str]) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""


def _sup(marks: Sequence[str]) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""


def markdown(text: str) -> str:
    """The text with everything escaped that GitHub would read as markup."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|" else character for character in plain)
