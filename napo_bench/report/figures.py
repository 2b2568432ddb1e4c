"""The figures of a report: training curves, sweeps, and where answers fail, as SVG and PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from napo_bench.benchmarks import all_benchmarks, benchmark_labels
from napo_bench.benchmarks.metrics import table_1_metrics
from napo_bench.benchmarks.result import MetricValue
from napo_bench.benchmarks.view import Bar, BarChart
from napo_bench.core import files
from napo_bench.report.runs import NamedRun
from napo_bench.trainers.negatives import NEGATIVES

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9")
"""Colours of the methods, in the order of the runs: Okabe and Ito's, which colour-blind readers tell apart."""

HATCHES = ("", "////", "....", "xxxx")
"""Patterns of the methods after the palette's last colour: the next pattern repeats the colours."""

INK = "#1b1e24"
"""Colour of text and axes."""

# A colour means a method in every figure, so kinds of negative differ in form.
_LINES = dict(zip(NEGATIVES, ("-", "--", ":"), strict=True))
_MARKERS = ("o", "s", "^", "D")
_STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 2.6,
    "hatch.linewidth": 1.2,
    "lines.linewidth": 1.8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
}
_WIDTH = 6.4  # inches of every figure, so that its text has one size wherever it is shown
_TITLE = 24  # characters that fit above a panel, three in a row
_NAME = 48  # characters of a name in a legend
_LABELLED_BARS = 5  # beside more, numbers would overlap
_LEVEL_LABEL = 4  # characters of a label that fits under its group of bars
_LEGEND_LINE = 0.21  # inches
_LINE = 78  # characters of a line of a legend
_MARGIN_BINS = 40


@dataclass(frozen=True)
class DrawnFigure:
    """A drawn figure.

    Attributes:
        name: Name of the files.
        title: Title in a few words.
        caption: Sentence about the content.
        figure: Matplotlib figure.
    """

    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """The figure as SVG: text stays text, without a background."""
        stream = io.StringIO()
        with rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return stream.getvalue()

    def png(self) -> bytes:
        """The figure as PNG: 200 dots an inch, with a white background."""
        stream = io.BytesIO()
        with rc_context(_STYLE):
            self.figure.savefig(stream, format="png", dpi=200, facecolor="white")
        return stream.getvalue()


@dataclass(frozen=True)
class MarginSample:
    """Margins of biased negatives that are known to be noise or not.

    Attributes:
        margins: Margin of each negative, `[N]`.
        noisy: Whether the negative is right, `[N]`.
    """

    margins: NDArray[np.float64]
    noisy: NDArray[np.bool_]


def draw_figures(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    """Every figure that the runs have data for."""
    return [*_training_figures(runs), *_sweep_figures(runs), *_charts(runs)]


def save_figures(figures: Sequence[DrawnFigure], folder: Path) -> list[Path]:
    """Write each figure as SVG and PNG, and return the paths."""
    written = []
    for figure in figures:
        files.write_text(folder / f"{figure.name}.svg", figure.svg())
        with files.atomic_path(folder / f"{figure.name}.png") as temporary:
            temporary.write_bytes(figure.png())
        written += [folder / f"{figure.name}.svg", folder / f"{figure.name}.png"]
    return written


def noise_against_margin(samples: Mapping[str, MarginSample]) -> DrawnFigure:
    """Figure 4: distributions of the margins of noisy and of noise-free negatives.

    Args:
        samples: Title of a panel ("language-biased, mean log-probs") -> its negatives.
    """

    def panel(axes: Axes, name: str) -> None:
        sample = samples[name]
        edges = np.histogram_bin_edges(sample.margins, bins=_MARGIN_BINS).tolist()
        forms: tuple[dict[str, Any], ...] = (
            {"label": "noise-free", "color": INK, "alpha": 0.3},
            {"label": "noise", "facecolor": "none", "edgecolor": INK, "hatch": HATCHES[1], "histtype": "stepfilled"},
        )
        for noisy, form in zip((False, True), forms, strict=True):
            part = sample.margins[sample.noisy == noisy]
            if part.size:
                axes.hist(part, bins=edges, density=True, **form)
        axes.set_title(f"{name}\n({sample.noisy.mean():.0%} of {len(sample.noisy)} noise)")
        axes.set_xlabel("margin")

    return _panels(
        "noise-against-margin",
        "Noise against margin",
        "Margins of biased negatives that are wrong (noise-free) or happen to be right (noise); Figure 4 of the paper.",
        list(samples),
        panel,
        ylabel="density",
    )


def alpha_sweep(name: str, title: str, points: Mapping[float, Mapping[str, MetricValue]]) -> DrawnFigure:
    """Figures 5 and 6: metrics over alpha, with their intervals.

    Args:
        name: Name of the figure's files.
        title: Name of the alpha.
        points: Alpha -> metric key -> value.
    """
    caption = f"{title}: each metric over alpha (Eq. 12); Figures 5 and 6 of the paper."
    return _metrics_over(name, title, caption, "alpha", {"": points}, logarithmic=True)


def label_noise(lines: Mapping[str, Mapping[float, Mapping[str, MetricValue]]], methods: Sequence[str]) -> DrawnFigure:
    """Metrics over the share of swapped labels, with their intervals.

    Args:
        lines: Method -> percent of the pairs -> metric key -> value.
        methods: All methods, in the order of their colours in the other figures.
    """
    caption = "Each metric over the share of original pairs whose labels are swapped, with 95% intervals."
    return _metrics_over("noise-in-labels", "Noise in labels", caption, "% of labels swapped", lines, methods=methods)


def _metrics_over(
    name: str,
    title: str,
    caption: str,
    xlabel: str,
    lines: Mapping[str, Mapping[float, Mapping[str, MetricValue]]],
    *,
    methods: Sequence[str] = (),
    logarithmic: bool = False,
) -> DrawnFigure:
    """A panel for each metric of Table 1 that every point has, a line for each entry of `lines`.

    A line that is no method has the colour of the text.
    """
    points = [values for line in lines.values() for values in line.values()]
    at = sorted({x for line in lines.values() for x in line})
    metrics, label_of = {metric.key: metric for metric in table_1_metrics()}, benchmark_labels()
    keys = [key for key in metrics if all(key in values for values in points)]

    def panel(axes: Axes, key: str) -> None:
        for label, line in lines.items():
            index = methods.index(label) if label in methods else None
            xs = sorted(line)
            values = [line[x][key] for x in xs]
            below = [max(value.value - value.ci95[0], 0) for value in values]
            above = [max(value.ci95[1] - value.value, 0) for value in values]
            axes.errorbar(
                xs,
                [value.value for value in values],
                [below, above],
                marker=_MARKERS[pattern_of(index or 0)],
                markersize=4,
                elinewidth=0.8,
                capsize=2,
                color=INK if index is None else colour_of(index),
                label=_short(label, _NAME),
            )
        metric = metrics[key]
        shared = [metrics[other].label for other in keys].count(metric.label) > 1
        axes.set_title(f"{metric.label} {metric.arrow}" + (f", {label_of[metric.benchmark]}" if shared else ""))
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(xlabel)

    return _panels(name, title, caption, keys, panel)


def _training_figures(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    drawn = (
        ("q", "napo/q_{.tag}", "q over training", "The q of each kind of negative (Eq. 12); Figure 7 of the paper."),
        ("gamma", "napo/gamma_{.tag}", "Weights over training", "The weight of each term of the objective (Eq. 13)."),
        (
            "margins",
            "rewards/margins{.suffix}",
            "Margins over training",
            "Mean reward margin of each kind of negative.",
        ),
    )
    figures = []
    for name, key, title, caption in drawn:
        keys = {kind: key.format(negative) for kind, negative in NEGATIVES.items()}
        logs = {run.name: run.log for run in runs if any(key in line for line in run.log for key in keys.values())}
        if logs:
            panel = _over_steps(logs, keys, {name: _colour(runs, name) for name in logs})
            figures.append(_panels(f"training-{name}", title, caption, list(logs), panel, ylabel=name))
    return figures


def _over_steps(
    logs: Mapping[str, list[dict[str, Any]]], keys: Mapping[str, str], colours: Mapping[str, str]
) -> Callable[[Axes, str], None]:
    def panel(axes: Axes, name: str) -> None:
        for negative, key in keys.items():
            points = [(line["step"], line[key]) for line in logs[name] if key in line]
            if points:
                style, label = _LINES[negative], NEGATIVES[negative].label
                axes.plot(*zip(*points, strict=True), color=colours[name], linestyle=style, label=label)
        axes.set_title(_short(name, _TITLE))
        axes.set_xlabel("step")

    return panel


def _sweep_figures(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    """A sweep for each alpha, if three runs or more differ in this alpha only."""
    figures = []
    for field in (f"alpha_{negative}" for negative in NEGATIVES):
        families: dict[Any, dict[float, dict[str, MetricValue]]] = {}
        for run in runs:
            if run.recipe is not None:
                values = {
                    f"{benchmark}.{name}": value
                    for benchmark, result in run.run.benchmarks.items()
                    for name, value in result.metrics.items()
                }
                others = tuple(item for item in asdict(run.recipe).items() if item[0] != field)
                families.setdefault(others, {})[getattr(run.recipe, field)] = values
        for number, points in enumerate(points for points in families.values() if len(points) >= 3):
            name = field.replace("_", "-") + (f"-{number + 1}" if number else "")
            figures.append(alpha_sweep(f"sweep-{name}", f"Sweep of {field}", points))
    return figures


def _charts(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    """The benchmarks' own figures."""
    figures = []
    for name, benchmark in all_benchmarks().items():
        results = {run.name: run.run.benchmarks[name] for run in runs if name in run.run.benchmarks}
        for chart in benchmark.charts:
            bars = {run: found for run, result in results.items() if (found := chart.bars(result))}
            if bars:
                figures.append(DrawnFigure(chart.name, chart.title, chart.caption, _bar_figure(runs, chart, bars)))
    return figures


def _bar_figure(runs: Sequence[NamedRun], chart: BarChart, bars: Mapping[str, Mapping[str, Bar]]) -> Figure:
    """Groups of bars, one bar a run; bars without intervals have their values on top if there is room."""
    labels = list(dict.fromkeys(label for found in bars.values() for label in found))
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 3.4))
        axes = figure.subplots()
        width = 0.8 / len(bars)
        for index, (name, found) in enumerate(bars.items()):
            there = [place for place, label in enumerate(labels) if label in found]
            shown = [found[labels[place]] for place in there]
            at = np.array(there) + (index - (len(bars) - 1) / 2) * width
            heights = [bar.value for bar in shown]
            drawn = axes.bar(at, heights, width * 0.92, label=_short(name, _NAME), **_bar_form(runs, name))
            ends = [bar.interval for bar in shown if bar.interval is not None]
            if len(ends) == len(shown):
                errors = [
                    [height - low for height, (low, _) in zip(heights, ends, strict=True)],
                    [high - height for height, (_, high) in zip(heights, ends, strict=True)],
                ]
                axes.errorbar(at, heights, np.maximum(errors, 0), fmt="none", ecolor=INK, elinewidth=0.7, alpha=0.6)
            elif len(bars) <= _LABELLED_BARS:
                axes.bar_label(drawn, fmt="%.0f", fontsize=9, padding=1)
        if max(map(len, labels)) > _LEVEL_LABEL:
            axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right")
        else:
            axes.set_xticks(range(len(labels)), labels)
        axes.set_ylabel(chart.unit)
        axes.set_ylim(0, chart.top)
        axes.grid(axis="x", visible=False)
        _legend_below(figure)
    return figure


def _panels(
    name: str, title: str, caption: str, labels: Sequence[str], draw: Callable[[Axes, str], None], ylabel: str = ""
) -> DrawnFigure:
    columns = min(len(labels), 3 if max(map(len, labels)) <= _TITLE else 2)
    columns = 2 if len(labels) == 4 else columns
    rows = math.ceil(len(labels) / columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, 2.5 * rows + 0.4))
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(labels):
                draw(axes, labels[index])
            else:
                axes.axis("off")
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        _legend_below(figure)
        return DrawnFigure(name, title, caption, figure)


def _legend_below(figure: Figure) -> None:
    """One legend for all panels. A form that several methods share has the colour of the text."""
    entries: dict[str, list[Any]] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, []).append(handle)
    handles = [
        Line2D([], [], color=INK, linestyle=found[0].get_linestyle()) if isinstance(found[0], Line2D) else found[0]
        for found in entries.values()
    ]
    if entries:
        columns = min(len(entries), max(1, _LINE // (max(map(len, entries)) + 8)))
        figure.legend(handles, entries, loc="outside lower center", ncols=columns)
        figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * (math.ceil(len(entries) / columns) - 1))


def colour_of(index: int) -> str:
    """The colour of the method at a position in the order of the runs."""
    return PALETTE[index % len(PALETTE)]


def pattern_of(index: int) -> int:
    """The index in HATCHES of the pattern of the method at a position in the order of the runs; 0 within the
    palette.
    """
    return index // len(PALETTE) % len(HATCHES)


def _bar_form(runs: Sequence[NamedRun], name: str) -> dict[str, Any]:
    index = _place(runs, name)
    return {"facecolor": colour_of(index), "hatch": HATCHES[pattern_of(index)], "edgecolor": "#ffffff", "linewidth": 0}


def _colour(runs: Sequence[NamedRun], name: str) -> str:
    return colour_of(_place(runs, name))


def _place(runs: Sequence[NamedRun], name: str) -> int:
    return next(index for index, run in enumerate(runs) if run.name == name)


def _short(text: str, most: int) -> str:
    """The text without its middle if the text is longer than `most` characters.

    The result begins with a space if the text begins with an underscore, because matplotlib leaves such texts out of a
    legend.
    """
    text = f" {text}" if text.startswith("_") else text
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
