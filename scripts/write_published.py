"""Write docs/published.md: the published numbers, where they were read, and where they contradict each other.

    python scripts/write_published.py

Run the script after a change in results/published. A test compares the page with it.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from napo_bench.benchmarks import all_benchmarks, benchmark_labels
from napo_bench.benchmarks.metrics import all_metrics
from napo_bench.report.contradictions import Contradiction, contradictions, stated, within_papers
from napo_bench.report.published import Result, published
from napo_bench.report.table import markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "published.md"
FOLDER = ROOT / "results" / "published"

HEAD = """\
# Published numbers

This page is written by `scripts/write_published.py` from [results/published](../results/README.md#published-numbers).
`napo-bench report --published` puts a run below those numbers that were
[measured in the same way](reports.md#published-numbers).

{counts} No number is from memory. MPO's tables were read in a conversion by others, all others in the paper, on
its authors' pages or in the thread.

## Sources
"""


ABOUT_CONTRADICTIONS = """\
## Contradictions between tables

Several values for one method from one base on one metric. Values that are equal when rounded to the fewer digits do not
count. Methods that a paper trained itself carry its name and are compared with nothing. The last column names the
conditions that two of the tables state and state differently; if it is empty, nothing that is stated explains the
difference.
"""


def page() -> str:
    """The text of the page."""
    known = published()
    results = known.results
    papers = {table.source.paper for table in known.tables.values()}
    numbers = sum(len(result.values) for result in results)
    counts = f"{numbers:,} numbers of {len(known.tables)} tables from {len(papers)} sources."
    sections = [
        HEAD.format(counts=counts),
        _sources(),
        '## How they were measured\n\nA condition that no source states is "not stated".\n',
        _protocols(results),
        "## Contradictions within one paper\n\nNumbers that the paper measured itself, in two of its tables.\n",
        _contradictions(within_papers(results)),
        ABOUT_CONTRADICTIONS,
        _contradictions(contradictions(results)),
        '## Numbers\n\nThe column "measured by" is the name in the table of conditions above.\n',
        _numbers(results),
        "## Sought and not found\n",
        _sought(),
    ]
    return "\n".join(sections)


def _sources() -> str:
    lines = []
    for name, table in published().tables.items():
        source = table.source
        file = f"[{name}.csv](../results/published/{name}.csv)"
        paper = f"[{markdown(source.paper)}]({source.at})"
        lines.append([file, paper, source.date, source.place, markdown(source.read), markdown(source.note)])
    return _table(["numbers", "paper", "date", "table", "read in", "notes"], lines)


def _protocols(results: Iterable[Result]) -> str:
    found = {(result.authors, result.task): result.conditions for result in results}
    order = list(all_benchmarks())
    tasks = [task.name for name in order for task in all_benchmarks()[name].tasks]
    lines = []
    for (authors, task), conditions in sorted(found.items(), key=lambda entry: (tasks.index(entry[0][1]), entry[0][0])):
        told = [f"{name} {value}" for name, value in stated(conditions.settings).items()]
        told += [f"{key} is a run's {own}" for key, own in conditions.prints.items()]
        settings = "; ".join([*told, conditions.other] if conditions.other else told)
        row = (task, authors, conditions.decoding, conditions.conversation, str(conditions.answers), settings)
        lines.append([*map(markdown, row), markdown(conditions.why)])
    heads = ["task", "measured by", "decoding", "conversation", "n", "CHAIR, judge and others", "where it is written"]
    return _table(heads, lines)


def _contradictions(found: Sequence[Contradiction]) -> str:
    labels = benchmark_labels()
    order = list(all_metrics())
    lines = []
    for entry in sorted(found, key=lambda entry: (entry.base, entry.method, order.index(entry.metric.key))):
        values = [
            f"{value} ({', '.join(dict.fromkeys(result.source.label for result in results))})"
            for value, results in entry.values.items()
        ]
        row = (entry.base, entry.method, f"{labels[entry.metric.benchmark]} {entry.metric.label}", "; ".join(values))
        lines.append([*map(markdown, row), ", ".join(entry.differing)])
    return _table(["base", "method", "metric", "values", "differs"], lines)


def _numbers(results: Sequence[Result]) -> str:
    parts = []
    for benchmark in all_benchmarks().values():
        for task in benchmark.tasks:
            own = [result for result in results if result.task == task.name]
            if not own:
                continue
            metrics = [key for key in all_metrics() if any(key in result.values for result in own)]
            lines = [
                [
                    markdown(result.base),
                    markdown(result.method),
                    *(result.values.get(key, "") for key in metrics),
                    markdown(result.authors),
                    markdown(result.source.label),
                ]
                for result in sorted(own, key=lambda result: (result.base, result.method))
            ]
            heads = [f"{all_metrics()[key].label} {all_metrics()[key].arrow}" for key in metrics]
            title = benchmark.label if task is benchmark.tasks[0] else f"{benchmark.label} ({task.name})"
            parts.append(f"### {title}\n\n{_table(['base', 'method', *heads, 'measured by', 'source'], lines)}")
    return "\n".join(parts)


def _sought() -> str:
    found = tomllib.loads((FOLDER / "sought.toml").read_text(encoding="utf-8"))
    return _table(["method", "what was found"], [[markdown(name), markdown(text)] for name, text in found.items()])


def _table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [heads, ["---"] * len(heads), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    argparse.ArgumentParser(description="Write docs/published.md from results/published.").parse_args()
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
