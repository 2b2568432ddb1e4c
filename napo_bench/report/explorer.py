"""The explorer: tables, figures and every sample of one or several runs, in one HTML file that needs no network."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from napo_bench.benchmarks import all_benchmarks, benchmark_labels
from napo_bench.benchmarks.metrics import sample_values
from napo_bench.benchmarks.result import counts_of
from napo_bench.benchmarks.view import Thoughts, View
from napo_bench.core import files, urls
from napo_bench.core.errors import NapoBenchError
from napo_bench.report.columns import Column
from napo_bench.report.controls import TITLE
from napo_bench.report.curves import HEIGHT, WIDTH, chart
from napo_bench.report.figures import INK, DrawnFigure, colour_of, pattern_of
from napo_bench.report.panel import HEADS
from napo_bench.report.pictures import Reference, thumbnails
from napo_bench.report.places import find_folder
from napo_bench.report.runs import NamedRun
from napo_bench.report.table import OURS, Table
from napo_bench.runs.controls import ControlledMethod
from napo_bench.runs.panel import Panel
from napo_bench.runs.provenance import Provenance

_PAGE = Path(__file__).parent / "page"
_ALMOST = 0.995  # denominators that start at 0.001 keep a share below 1

Item = dict[str, Any]
ItemKey = tuple[str, str, str]
"""Benchmark, unit and id of a sample."""


def to_html(
    runs: Sequence[NamedRun],
    tables: Sequence[Table],
    figures: Sequence[DrawnFigure],
    data_dir: Path | None = None,
    *,
    panels: Sequence[Panel] = (),
    controls: Sequence[ControlledMethod] = (),
    intervals: bool = False,
    tell: Callable[[str], None] | None = None,
) -> str:
    """The explorer's page.

    Answers are data, never markup: the page contains them as JSON and shows them as text.

    Args:
        runs: The runs, with their samples.
        tables: Tables of `report.table`.
        figures: Figures of `report.figures`.
        data_dir: Folder with the images; None for the data folder that each run names.
        panels: Panels of `report.panel`.
        controls: Methods beside their controls.
        intervals: Whether the page shows the 95% intervals when it opens.
        tell: Function that gets a sentence about images that were not found.

    Raises:
        NapoBenchError: a sample has no id or no unit.
    """
    items = _items(runs)
    pictures, missing = _pictures(runs, items, data_dir)
    if missing and tell is not None:
        tell(missing)
    data = {
        "runs": [
            {"name": run.name, "color": colour_of(index), "pattern": pattern_of(index)}
            for index, run in enumerate(runs)
        ],
        "benchmarks": [{"key": key, "label": label} for key, label in benchmark_labels().items()],
        "items": list(items.values()),
    }
    script = (_PAGE / "explorer.js").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("explorer.html.j2").render(
        runs=[(run.name, colour_of(index), pattern_of(index), _about(run)) for index, run in enumerate(runs)],
        tables=[(table, _columns(table)) for table in tables],
        ours=OURS,
        panels=panels,
        controls=controls,
        controls_title=TITLE,
        heads=HEADS,
        chart=chart,
        chart_width=WIDTH,
        chart_height=HEIGHT,
        figures=[(figure, _inline(figure.svg())) for figure in figures],
        benchmarks=benchmark_labels(),
        right_if=_right_if(runs),
        intervals=intervals,
        style=(_PAGE / "explorer.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_json(data),
        pictures=_json(pictures),
    )


def _right_if(runs: Sequence[NamedRun]) -> list[tuple[str, str]]:
    """Label of each benchmark of the runs, and when a sample of it is right."""
    measured = {name for run in runs for name in run.run.benchmarks}
    return [(one.label, one.right_if) for name, one in all_benchmarks().items() if name in measured and one.right_if]


def _columns(table: Table) -> list[tuple[str, list[Column]]]:
    """The table's columns, by benchmark and way of measuring."""
    return [
        (name, list(columns))
        for (name, _), columns in itertools.groupby(table.columns, lambda column: (column.metric.benchmark, column.way))
    ]


def _about(run: NamedRun) -> list[tuple[str, list[str]]]:
    """Heading and lines about the origin of a run's numbers."""
    provenance = run.run.provenance
    checkpoint, responses = provenance.checkpoint, provenance.responses
    lines = {
        "Checkpoint": [] if checkpoint is None else [checkpoint.name, checkpoint.fingerprint[:16]],
        "Responses": [] if responses is None else [responses.path],
        "Command": [urls.without_secrets(provenance.command)],
        "Time": [_time(provenance)],
        "Versions": [", ".join(f"{name} {version}" for name, version in provenance.versions.items())],
    }
    label_of = benchmark_labels()
    for benchmark, result in run.run.benchmarks.items():
        settings = [f"{name.replace('_', ' ')}: {_plain(value)}" for name, value in result.settings.items()]
        lines[label_of.get(benchmark, benchmark)] = [*settings, *result.doubts, *result.notes]
    return [(heading, kept) for heading, found in lines.items() if (kept := [line for line in found if line])]


def _time(provenance: Provenance) -> str:
    """The duration of an evaluation, and the seconds and tokens of its stages."""

    def shown(amounts: Mapping[str, float]) -> str:
        tokens = f" ({amounts['tokens']:,} tokens)" if "tokens" in amounts else ""
        return f"{amounts.get('seconds', 0):,.1f} s{tokens}"

    stages = [f"{stage} {shown(amounts)}" for stage, amounts in provenance.stages.items()]
    return f"{provenance.wall_seconds:,.1f} s, of them {', '.join(stages)}" if stages else ""


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return str(value)


def _items(runs: Sequence[NamedRun]) -> dict[ItemKey, Item]:
    """Every sample once, with the answer of each run."""
    items: dict[ItemKey, Item] = {}
    for index, run in enumerate(runs):
        for benchmark, result in run.run.benchmarks.items():
            outcomes, show = _outcomes(benchmark, result.samples), all_benchmarks()[benchmark].show
            for number, (sample, right) in enumerate(zip(result.samples, outcomes, strict=True), start=1):
                where = f"{run.name}, {benchmark}, sample {number}"
                key = (benchmark, *(files.field(sample, name, str, where) for name in ("unit", "sample_id")))
                try:
                    view = show(sample)
                    item = items.setdefault(key, {**_question(benchmark, key[2], view), "answers": [None] * len(runs)})
                    item["answers"][index] = _answer(view, item) | {"right": right}
                except (KeyError, TypeError, ValueError) as error:
                    raise NapoBenchError(
                        f"{where}, {key[2]}: a field is missing or of another kind ({type(error).__name__}: {error}).",
                        "Run the command that made the run again: its answers are kept.",
                    ) from None
    return items


def _question(benchmark: str, sample_id: str, view: View) -> Item:
    """The question of a sample, which is the same in every run."""
    item = {
        "benchmark": benchmark,
        "id": sample_id,
        "group": view.group,
        "prompt": view.prompt,
        "expected": view.expected,
        "image": view.image,
        "facts": [] if view.facts is None else [{"label": "In the image", "words": list(map(str, view.facts))}],
    }
    if view.parts:
        item["decider"] = view.decider
        item["tests"] = [
            {
                "key": part.key,
                "section": part.section,
                "title": part.title,
                "image": part.image,
                "prompt": part.prompt,
                "expected": part.expected,
            }
            for part in view.parts
        ]
    return item


def _answer(view: View, item: Item) -> dict[str, Any]:
    """A run's answers to a sample, in the order of the sample's tests; None for a missing answer."""
    if "tests" in item:
        given = {part.key: part for part in view.parts}
        found = [given.get(test["key"]) for test in item["tests"]]
        shown = [part and {"text": part.text, "right": part.right} | _folded(part.thoughts) for part in found]
        return {"tests": shown}
    answer: dict[str, Any] = {"text": view.text} | _folded(view.thoughts)
    if view.wrong:
        answer["hallucinated"] = list(view.wrong)
    if view.right:
        answer["covered"] = list(view.right)
    if view.verdict:
        answer["verdict"] = view.verdict
    if view.detail[0]:
        answer["detail"] = dict(zip(("title", "text"), view.detail, strict=True))
    return answer


def _folded(thoughts: Thoughts | None) -> dict[str, Any]:
    """The field of an answer with its thoughts: title and text of what is folded away; no field without thoughts."""
    if thoughts is None:
        return {}
    count = "number of tokens unknown" if thoughts.tokens is None else f"{thoughts.tokens} tokens"
    return {"thoughts": {"title": f"Thoughts ({count})", "text": thoughts.text or "The endpoint did not send them."}}


def _outcomes(benchmark: str, samples: Sequence[Mapping[str, Any]]) -> list[bool | None]:
    """Right, wrong or unknown (None), for each sample."""
    outcomes: list[bool | None] = [None] * len(samples)
    rows = counts_of([{"counts": {}, **sample} for sample in samples], benchmark)
    for metric in all_benchmarks()[benchmark].metrics:
        if metric.decides and metric.high is not None:
            for index, value in enumerate(sample_values(metric, rows)):
                if value is not None:
                    share = value / metric.high
                    outcomes[index] = (share if metric.better == "higher" else 1 - share) >= _ALMOST
    return outcomes


def _pictures(runs: Sequence[NamedRun], items: Mapping[ItemKey, Item], data_dir: Path | None) -> tuple[list[str], str]:
    """The images that were found, and a sentence about the images that were not found.

    Each name in the items is replaced by its index in the list, or by None.
    """
    named: dict[Path, list[Reference]] = {}
    for index, run in enumerate(runs):
        folder = data_dir or _data_dir(run)
        shown = [item for item in items.values() if item["answers"][index] is not None]
        images = {(item["benchmark"], holder["image"]) for item in shown for holder in _holders(item)}
        named.setdefault(folder, []).extend(sorted(image for image in images if image[1]))
    addresses: dict[Reference, str] = {}
    for folder, references in named.items():
        absent = [reference for reference in references if reference not in addresses]
        # A run may come from anywhere, so its folder must hold the benchmarks' folders themselves.
        addresses |= thumbnails(absent, folder, follow=data_dir is not None)
    wanted = {reference for references in named.values() for reference in references}
    missing = len(wanted - addresses.keys())
    places: dict[str, int] = {}
    for item in items.values():
        for holder in _holders(item):
            address = addresses.get((item["benchmark"], holder["image"]))
            holder["image"] = None if address is None else places.setdefault(address, len(places))
    return list(places), _missing_note(missing, len(wanted), named) if missing else ""


def _data_dir(run: NamedRun) -> Path:
    """The folder in which a run's data is now."""
    stored = run.run.provenance.data.path
    found = find_folder(stored, run.folder, Path.is_dir) if run.folder is not None else None
    return found or Path(stored)


def _missing_note(missing: int, wanted: int, folders: Iterable[Path]) -> str:
    searched = ", ".join(str(folder) for folder in folders)
    return f"{missing} of {wanted} images are not in {searched} and are not shown. Give --data-dir."


def _holders(item: Item) -> list[dict[str, Any]]:
    """The sample and its tests, each with the name of an image."""
    return [item, *item.get("tests", [])]


def _inline(svg: str) -> str:
    """An SVG document as an element with the page's text colour."""
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def _json(value: Any) -> str:
    """JSON that is safe in a script element: it contains no `<`."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
