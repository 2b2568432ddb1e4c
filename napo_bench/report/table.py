"""The paper's tables with the user's runs below its rows, as markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tabulate import tabulate

from napo_bench.benchmarks import benchmark_labels
from napo_bench.benchmarks.metrics import Metric, all_metrics, table_1_metrics
from napo_bench.core.names import CONTROLS
from napo_bench.report.columns import UNLIKE, Column, Ways, columns_of, left_out, marked, unlike, ways_of_run
from napo_bench.report.published import PublishedRow, published_table
from napo_bench.report.runs import NamedRun, comparable, deviations, differing_fingerprints
from napo_bench.trainers.losses import LOSSES
from napo_bench.trainers.recipe import Recipe, load_recipe

OURS = "This evaluation"
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
        is_part: Whether the number is of one of the several judges of a run.
    """

    value: float
    interval: tuple[float, float] | None = None
    marks: tuple[str, ...] = ()
    best: bool = False
    is_part: bool = False


@dataclass(frozen=True)
class Row:
    """The row of a model.

    Attributes:
        name: Name of the model.
        cells: Key of a column -> number; a column without a number is absent.
        marks: Letters of the footnotes that apply to every number of the row.
    """

    name: str
    cells: dict[str, Cell]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table of the paper's form.

    Attributes:
        number: Number of the table in the paper; None for a table that the paper does not have.
        columns: Columns. All numbers of a column were measured in one way.
        groups: (label, rows) of each group. The best number is the best within its group.
        footnotes: Letter -> text.
        warnings: Sentences about runs that were measured in another way than every published row.
        title: Title of a table that the paper does not have.
        label: Name of such a table in CSV and LaTeX.
    """

    number: int | None
    columns: Sequence[Column]
    groups: list[tuple[str, list[Row]]]
    footnotes: dict[str, str]
    warnings: Sequence[str] = ()
    title: str = ""
    label: str = ""

    def marks(self, row: Row) -> set[str]:
        """Letters of the footnotes that apply to a number of a row."""
        at_heads = {column.key: column.marks for column in self.columns}
        return set(row.marks).union(*({*cell.marks, *at_heads[key]} for key, cell in row.cells.items()))

    def spoken_of(self, mark: str) -> list[str]:
        """Names of the rows with a footnote."""
        return [row.name for _, rows in self.groups for row in rows if mark in self.marks(row)]

    @property
    def name(self) -> str:
        """What stands before the caption."""
        return "Published numbers" if self.number is None else f"Table {self.number}"

    @property
    def caption(self) -> str:
        """The table's title and how to read it."""
        title = self.title if self.number is None else CAPTIONS[self.number]
        return f"{title} Bold: best of its group, if the group was measured in one way. Arrows: the better direction."


def table_1(runs: Sequence[NamedRun], *, paper: bool | None = None) -> Table:
    """Table 1: the runs below the paper's published rows.

    Args:
        runs: Runs of the user.
        paper: Show the paper's rows, in all columns of the paper and of each way of measuring. None shows them in the
            columns of the runs, unless every run was measured in the micro world.
    """
    metrics = _metrics(runs, paper)
    published = _published_groups() if _shows_paper(runs, paper) else []
    return _table(1, metrics, published, [(run.name, run) for run in runs], all_ways=bool(paper))


def _metrics(runs: Sequence[NamedRun], paper: bool | None) -> list[Metric]:
    """The metrics of the benchmarks that a run was measured on, and those of the paper if the user asks for them."""
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
    shows_paper = _shows_paper(runs, paper)
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
            published = [("LLaVA-v1.5-7B, trained in the paper", [_published(row) for row in printed.rows])]
            tables.append(_table(number, metrics, published if shows_paper else [], ours, all_ways=bool(paper)))
    return tables


def _shows_paper(runs: Sequence[NamedRun], wanted: bool | None) -> bool:
    return not all(run.run.provenance.data.is_micro for run in runs) if wanted is None else wanted


def objective(recipe: Recipe) -> tuple[str, ...]:
    """The objective of a recipe without its constants: the losses, the margins that each q looks at, the weights of the
    losses, and the control.
    """
    terms = [(term, "q" in LOSSES[term.loss].needs) for term in recipe.terms]
    losses = [f"{term.negative.name}: {term.loss}" + (f", q from {term.q_from}" if q else "") for term, q in terms]
    weights = recipe.weights if len(terms) > 1 else ""
    return (*losses, weights, *([f"control: {recipe.control}"] if recipe.control else []))


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
        lines.append([f"*{markdown(label)}*", *("" for _ in table.columns)])
        for row in rows:
            lines.append([markdown(row.name) + _sup(row.marks), *_cells(table, row, cell_text, "–")])
    label_of = benchmark_labels()
    heads = [
        f"{label_of[column.metric.benchmark]} {column.metric.label} {column.metric.arrow}{_sup(column.marks)}"
        for column in table.columns
    ]
    align = ["left", *("right" for _ in heads)]
    body = tabulate(lines, ["Model", *heads], tablefmt="pipe", disable_numparse=True, colalign=align)
    notes = "".join(f"\n<sup>{mark}</sup> {markdown(text)}<br>" for mark, text in table.footnotes.items())
    return f"**{table.name}.** {markdown(table.caption)}\n\n{body}\n{notes}".rstrip() + "\n"


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
        body += [r"\midrule", rf"\multicolumn{{{len(table.columns) + 1}}}{{l}}{{\textit{{{_tex(label)}}}}} \\"]
        for row in rows:
            cells = _cells(table, row, cell_text, "--")
            body.append(_tex_line([_tex(row.name) + _superscript(row.marks), *cells]))
    notes = [rf"\textsuperscript{{{mark}}} {_tex(text)}" for mark, text in table.footnotes.items()]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table*}[t]",
        r"\centering",
        rf"\caption{{{_tex(table.caption)}}}",
        rf"\label{{tab:napo-bench-{table.number or table.label}}}",
        r"\small\setlength{\tabcolsep}{4pt}",
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        *_tex_benchmarks(table.columns),
        _tex_line(["Model", *(_tex_head(column.metric, column.marks) for column in table.columns)]),
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
                record: dict[str, Any] = {"table": table.number or table.label, "group": label, "model": row.name}
                for column in table.columns:
                    cell = row.cells.get(column.key)
                    low, high = (cell.interval if cell is not None else None) or (None, None)
                    record |= {
                        column.key: None if cell is None else cell.value,
                        f"{column.key} low": low,
                        f"{column.key} high": high,
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
    number: int,
    metrics: Sequence[Metric],
    published: Sequence[tuple[str, list[_Published]]],
    ours: Sequence[tuple[str, NamedRun]],
    *,
    all_ways: bool,
) -> Table:
    letters, label_of = Letters(), benchmark_labels()
    shown = {metric.benchmark for metric in metrics}
    measured = [
        {name: ways for name, ways in ways_of_run(run.run.benchmarks).items() if name in shown} for _, run in ours
    ]
    others = [row.ways for _, rows in published for row in rows]
    columns = columns_of(metrics, measured, others, all_ways=all_ways)
    unlikes = unlike(measured, others)
    at_heads = {}
    for column in columns:
        benchmark, way = column.metric.benchmark, column.way
        if way:
            text = f"{label_of[benchmark]}: {way}"
            at_heads[benchmark, way] = (letters.of(f"{text} {UNLIKE}" if way in unlikes.get(benchmark, []) else text),)
    columns = marked(columns, at_heads)
    groups = []
    for label, rows in published:
        numbered = [(row, _published_cells(row, columns)) for row in rows]
        kept = [(row, cells) for row, cells in numbered if cells]
        mixed = _mixed([row for row, _ in kept])
        competing = {column.key for column in columns if column.metric.benchmark not in mixed}
        if kept:
            groups.append((label, with_best([Row(row.name, cells) for row, cells in kept], columns, competing)))
    own_rows = _our_rows(columns, ours, measured, letters)
    groups += our_groups([run for _, run in ours], own_rows, columns, _competing(columns, ours, measured))
    for text in left_out(columns, others):
        letters.of(text)
    warnings = [
        f"{label_of[name]} of {row}: {way} {UNLIKE}"
        for (row, _), ways in zip(ours, measured, strict=True)
        for name, own in ways.items()
        for way in own
        if way in unlikes.get(name, [])
    ]
    return Table(number, columns, groups, letters.texts, warnings)


def _competing(columns: Sequence[Column], ours: Sequence[tuple[str, NamedRun]], measured: Sequence[Ways]) -> set[str]:
    """Keys of the columns in which the numbers of the user's runs compete."""
    found = set()
    for column in columns:
        name = column.metric.benchmark
        own = [
            (run.run, ways[name][column.way])
            for (_, run), ways in zip(ours, measured, strict=True)
            if column.way in ways.get(name, {})
        ]
        if comparable(own, name):
            found.add(column.key)
    return found


def our_groups(
    runs: Sequence[NamedRun], rows: Sequence[Row], columns: Sequence[Column], competing: set[str]
) -> list[tuple[str, list[Row]]]:
    """The groups of the user's runs. Controls have groups of their own, so that none is taken for a method.

    Args:
        runs: Runs of the user.
        rows: Row of each run.
        columns: Columns of the table.
        competing: Keys of the columns whose numbers compete.
    """
    by_label: dict[str, list[Row]] = {OURS: []}
    for run, row in zip(runs, rows, strict=True):
        label = OURS if run.control is None else f"Controls: trained with {CONTROLS[run.control]}"
        by_label.setdefault(label, []).append(row)
    return [(label, with_best(own, columns, competing)) for label, own in by_label.items() if own]


class Letters:
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


def _mixed(rows: Sequence[_Published]) -> set[str]:
    """Benchmarks whose numbers in these rows were measured in several ways."""
    ways: dict[str, set[str]] = {}
    for row in rows:
        for name, own in row.ways.items():
            ways.setdefault(name, set()).update(own)
    return {name for name, texts in ways.items() if len(texts) > 1}


def _our_rows(
    columns: Sequence[Column], ours: Sequence[tuple[str, NamedRun]], measured: Sequence[Ways], letters: Letters
) -> list[Row]:
    """The rows of the user's runs. A footnote of every row is at the rows' names, any other footnote at its numbers."""
    label_of = benchmark_labels()
    shown = {column.metric.benchmark for column in columns}
    prints = differing_fingerprints([run.run for _, run in ours])
    found = [
        {name: texts + served.get(name, []) for name, texts in deviations(run.run).items() if name in shown}
        for (_, run), served in zip(ours, prints, strict=True)
    ]
    at_names: dict[str, str] = {}
    for text in dict.fromkeys(text for by_name in found for texts in by_name.values() for text in texts):
        where = [[name for name, texts in by_name.items() if text in texts] for by_name in found]
        if all(names == where[0] for names in where):
            everywhere = all(names == list(by_name) for names, by_name in zip(where, found, strict=True))
            at_names[text] = text if everywhere else f"{', '.join(label_of[name] for name in where[0])}: {text}"

    rows = []
    for (name, run), ways, by_name in zip(ours, measured, found, strict=True):
        results = {key: run.run.benchmarks[key] for key in label_of if key in shown and key in run.run.benchmarks}
        on_all = _common([result.remarks for result in results.values()])
        name_marks = tuple(letters.of(text) for text in [*at_names.values(), *on_all])
        cells: dict[str, Cell] = {}
        for benchmark, result in results.items():
            remarks = [remark for remark in result.remarks if remark not in on_all]
            texts = [text for text in by_name.get(benchmark, []) if text not in at_names]
            texts += [f"{label_of[benchmark]}: {remark}." for remark in remarks]
            marks = tuple(map(letters.of, texts))
            if not result.metrics:
                name_marks += marks
            for column in columns:
                rated = ways.get(benchmark, {}).get(column.way)
                value = None if rated is None else rated.metrics.get(column.metric.name)
                if column.metric.benchmark == benchmark and value is not None:
                    cells[column.key] = Cell(value.value, value.ci95, marks, is_part=rated is not result)
        rows.append(Row(name, cells, name_marks))
    return rows


def _common(remarks: Sequence[Sequence[str]]) -> list[str]:
    """The notes that all of the benchmarks share."""
    first = remarks[0] if len(remarks) > 1 else []
    return [remark for remark in first if all(remark in others for others in remarks)]


def with_best(rows: Sequence[Row], columns: Sequence[Column], competing: set[str]) -> list[Row]:
    """Mark the best of each column that has two numbers or more, if its numbers compete."""
    best: dict[str, str] = {}
    known = {column.key: column.metric for column in columns}
    for key, metric in known.items():
        values = [metric.format(row.cells[key].value) for row in rows if key in row.cells]
        if len(values) > 1 and key in competing and metric.better is not None:
            best[key] = (max if metric.better == "higher" else min)(values, key=float)
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


@dataclass(frozen=True)
class _Published:
    """A published row.

    Attributes:
        name: Name of the model.
        values: Metric key -> number.
        ways: Benchmark -> the one way in which its numbers were measured.
    """

    name: str
    values: Mapping[str, float]
    ways: Ways


def _published_groups() -> list[tuple[str, list[_Published]]]:
    """Group of Table 1 -> published rows."""
    groups: dict[str, list[_Published]] = {}
    for row in published_table("napo-1").rows:
        groups.setdefault(row.group, []).append(_published(row))
    return list(groups.items())


def _published(row: PublishedRow) -> _Published:
    """A published row. Of two tasks of a benchmark, the paper has one."""
    ways = {
        result.benchmark.name: {result.benchmark.measured(result.conditions.settings): None} for result in row.results
    }
    return _Published(row.name, row.values, ways)


def _published_cells(row: _Published, columns: Sequence[Column]) -> dict[str, Cell]:
    return {
        column.key: Cell(row.values[column.metric.key])
        for column in columns
        if column.metric.key in row.values and column.way in row.ways[column.metric.benchmark]
    }


def _letter(index: int) -> str:
    return chr(ord("a") + index % 26) * (1 + index // 26)


def _cells(table: Table, row: Row, text: Callable[[Metric, Cell], str], absent: str) -> list[str]:
    cells = [(column.metric, row.cells.get(column.key)) for column in table.columns]
    return [absent if cell is None else text(metric, cell) for metric, cell in cells]


def _tex_benchmarks(columns: Sequence[Column]) -> tuple[str, str]:
    """The line with each benchmark's name over its columns of one way, and the rules under the names."""
    labels = benchmark_labels()
    names, rules, first = [""], "", 2
    for (benchmark, _), own in itertools.groupby(columns, lambda column: (column.metric.benchmark, column.way)):
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
