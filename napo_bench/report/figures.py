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
from numpy.typing import NDArray

from napo_bench import files
from napo_bench.metrics import METRICS
from napo_bench.report.runs import NamedRun
from napo_bench.results import MetricValue

PALETTE = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#a463f2", "#6cc5b0", "#ff8ab7", "#9c6b4e")
"""Colours of the runs, in their order; they stand out on white and on black."""

INK = "#1b1e24"
"""Colour of text and axes."""

_NEGATIVES = {
    "rejected": ("original pairs", PALETTE[0]),
    "lang": ("language-biased", PALETTE[3]),
    "vis": ("vision-biased", PALETTE[2]),
}
_STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial", "sans-serif"],
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
}
_PANELS_A_ROW = 4
_MARGIN_BINS = 40


@dataclass(frozen=True)
class DrawnFigure:
    """A figure, drawn.

    Attributes:
        name: Of its files.
        title: In a few words.
        caption: What it shows.
        figure: Itself.
    """

    name: str
    title: str
    caption: str
    figure: Figure

    def svg(self) -> str:
        """As SVG: text stays text, no background."""
        stream = io.StringIO()
        with rc_context({**_STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return stream.getvalue()

    def png(self) -> bytes:
        """As PNG: 200 dots an inch, white background."""
        stream = io.BytesIO()
        with rc_context(_STYLE):
            self.figure.savefig(stream, format="png", dpi=200, facecolor="white")
        return stream.getvalue()


@dataclass(frozen=True)
class MarginSample:
    """Margins of biased negatives that are known to be noise or not.

    Attributes:
        margins: One a negative, `[N]`.
        noisy: Whether the negative is in fact right, `[N]`.
    """

    margins: NDArray[np.float64]
    noisy: NDArray[np.bool_]


def draw_figures(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    """Every figure that the runs have data for."""
    return [*_training_figures(runs), *_sweep_figures(runs), *_funnel(runs), *_mmhal_types(runs)]


def save_figures(figures: Sequence[DrawnFigure], folder: Path) -> list[Path]:
    """Write each figure as SVG and PNG; the paths written."""
    written = []
    for figure in figures:
        files.write_text(folder / f"{figure.name}.svg", figure.svg())
        with files.atomic_path(folder / f"{figure.name}.png") as temporary:
            temporary.write_bytes(figure.png())
        written += [folder / f"{figure.name}.svg", folder / f"{figure.name}.png"]
    return written


def noise_against_margin(samples: Mapping[str, MarginSample]) -> DrawnFigure:
    """Figure 4: how margins of noisy and of noise-free negatives are distributed.

    Args:
        samples: Title of a panel ("language-biased, mean log-probs") -> its negatives.
    """

    def panel(axes: Axes, name: str) -> None:
        sample = samples[name]
        edges = np.histogram_bin_edges(sample.margins, bins=_MARGIN_BINS).tolist()
        for noisy, label, colour in ((False, "noise-free", PALETTE[0]), (True, "noise", PALETTE[1])):
            part = sample.margins[sample.noisy == noisy]
            if part.size:
                axes.hist(part, bins=edges, density=True, alpha=0.55, color=colour, label=label)
        axes.set_title(f"{name} ({sample.noisy.mean():.0%} of {len(sample.noisy)} noise)")
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
        name: Of the figure's files.
        title: Which alpha.
        points: Alpha -> metric key -> value.
    """
    caption = f"{title}: each metric over alpha (Eq. 12); Figures 5 and 6 of the paper."
    return _metrics_over(name, title, caption, "alpha", {"": points}, logarithmic=True)


def label_noise(lines: Mapping[str, Mapping[float, Mapping[str, MetricValue]]]) -> DrawnFigure:
    """Metrics over the share of swapped labels, with their intervals.

    Args:
        lines: Method -> percent of the pairs -> metric key -> value.
    """
    caption = "Each metric over the share of original pairs whose labels are swapped, with 95% intervals."
    return _metrics_over("noise-in-labels", "Noise in labels", caption, "% of labels swapped", lines)


def _metrics_over(
    name: str,
    title: str,
    caption: str,
    xlabel: str,
    lines: Mapping[str, Mapping[float, Mapping[str, MetricValue]]],
    *,
    logarithmic: bool = False,
) -> DrawnFigure:
    """A panel for each metric of Table 1 that every point has, a line for each entry of `lines`."""
    points = [values for line in lines.values() for values in line.values()]
    at = sorted({x for line in lines.values() for x in line})
    keys = [key for key in METRICS if METRICS[key].in_table and all(key in values for values in points)]

    def panel(axes: Axes, key: str) -> None:
        for index, (label, line) in enumerate(lines.items()):
            xs = sorted(line)
            values = [line[x][key] for x in xs]
            below = [max(value.value - value.ci95[0], 0) for value in values]
            above = [max(value.ci95[1] - value.value, 0) for value in values]
            axes.errorbar(
                xs,
                [value.value for value in values],
                [below, above],
                marker="o",
                markersize=4,
                elinewidth=0.8,
                capsize=2,
                color=PALETTE[index % len(PALETTE)],
                label=label,
            )
        axes.set_title(f"{METRICS[key].label} {METRICS[key].arrow}")
        if logarithmic:
            axes.set_xscale("log")
        axes.set_xticks(at, [f"{x:g}" for x in at])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(xlabel)

    return _panels(name, title, caption, keys, panel)


def _training_figures(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    kinds = (
        ("q", "napo/q_{}", "q over training", "The q of each kind of negative (Eq. 12); Figure 7 of the paper."),
        ("gamma", "napo/gamma_{}", "Weights over training", "The weight of each term of the objective (Eq. 13)."),
        ("margins", "rewards/margins_{}", "Margins over training", "Mean reward margin of each kind of negative."),
    )
    figures = []
    for name, pattern, title, caption in kinds:
        keys = {negative: pattern.format(negative).replace("margins_rejected", "margins") for negative in _NEGATIVES}
        logs = {run.name: run.log for run in runs if any(key in line for line in run.log for key in keys.values())}
        if logs:
            panel = _over_steps(logs, keys)
            figures.append(_panels(f"training-{name}", title, caption, list(logs), panel, ylabel=name))
    return figures


def _over_steps(logs: Mapping[str, list[dict[str, Any]]], keys: Mapping[str, str]) -> Callable[[Axes, str], None]:
    def panel(axes: Axes, name: str) -> None:
        for negative, key in keys.items():
            points = [(line["step"], line[key]) for line in logs[name] if key in line]
            if points:
                label, colour = _NEGATIVES[negative]
                axes.plot(*zip(*points, strict=True), color=colour, label=label)
        axes.set_title(name)
        axes.set_xlabel("step")

    return panel


def _sweep_figures(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    """A sweep for each alpha that three runs or more differ in, and in nothing else."""
    figures = []
    for field in ("alpha_rejected", "alpha_language", "alpha_vision"):
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


def _funnel(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    stages = ("CK", "VP", "CB", "LP")
    shares = {}
    for run in runs:
        if "vlind" in run.run.benchmarks and run.run.benchmarks["vlind"].samples:
            counts = [sample["counts"] for sample in run.run.benchmarks["vlind"].samples]
            left = [[row["ck"], row["ck"] * row["vp"], row["lp_eligible"], row["lp_share"]] for row in counts]
            shares[run.name] = 100 * np.mean(left, axis=0)
    if not shares:
        return []
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.2))
        axes = figure.subplots()
        width = 0.8 / len(shares)
        for index, (name, values) in enumerate(shares.items()):
            at = np.arange(len(stages)) + (index - (len(shares) - 1) / 2) * width
            bars = axes.bar(at, values, width * 0.92, color=_colour(runs, name), label=name)
            axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=1)
        axes.set_xticks(range(len(stages)), stages)
        axes.set_ylabel("% of instances still in")
        axes.set_ylim(0, 108)
        axes.grid(axis="x", visible=False)
        _legend_below(figure, len(shares))
        return [
            DrawnFigure(
                "vlind-funnel",
                "VLind-Bench: where instances fail",
                "Share of instances that pass each test and all before it; LP counts the share of its good images.",
                figure,
            )
        ]


def _mmhal_types(runs: Sequence[NamedRun]) -> list[DrawnFigure]:
    scores = {}
    for run in runs:
        breakdown = run.run.benchmarks["mmhal"].breakdown if "mmhal" in run.run.benchmarks else {}
        by_type = {group.partition("/")[2]: values["score"] for group, values in breakdown.items() if "score" in values}
        if by_type:
            scores[run.name] = by_type
    if not scores:
        return []
    types = list(dict.fromkeys(name for by_type in scores.values() for name in by_type))
    with rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.2))
        axes = figure.subplots()
        width = 0.8 / len(scores)
        for index, (name, by_type) in enumerate(scores.items()):
            there = [i for i, kind in enumerate(types) if kind in by_type]
            values = [by_type[types[i]] for i in there]
            at = np.array(there) + (index - (len(scores) - 1) / 2) * width
            errors = [
                [value.value - value.ci95[0] for value in values],
                [value.ci95[1] - value.value for value in values],
            ]
            heights = [value.value for value in values]
            axes.bar(at, heights, width * 0.92, color=_colour(runs, name), label=name)
            axes.errorbar(at, heights, np.maximum(errors, 0), fmt="none", ecolor=INK, elinewidth=0.7, alpha=0.6)
        axes.set_xticks(range(len(types)), types, rotation=20, ha="right")
        axes.set_ylabel("score (0-6)")
        axes.set_ylim(0, 6.2)
        axes.grid(axis="x", visible=False)
        _legend_below(figure, len(scores))
        return [
            DrawnFigure(
                "mmhal-types",
                "MMHal-Bench by question type",
                "Mean rating of each type of question, with 95% intervals.",
                figure,
            )
        ]


def _panels(
    name: str, title: str, caption: str, labels: Sequence[str], draw: Callable[[Axes, str], None], ylabel: str = ""
) -> DrawnFigure:
    columns = min(len(labels), _PANELS_A_ROW)
    rows = math.ceil(len(labels) / columns)
    with rc_context(_STYLE):
        figure = Figure(figsize=(max(3.2 * columns, 4.2), 2.8 * rows))
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, axes in enumerate(grid.flat):
            if index < len(labels):
                draw(axes, labels[index])
            else:
                axes.axis("off")
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        legends = [axes.get_legend_handles_labels() for axes in grid.flat]
        lines = {label: line for handles, labels in legends for line, label in zip(handles, labels, strict=True)}
        if lines:
            figure.legend(lines.values(), lines, loc="outside lower center", ncols=len(lines))
        return DrawnFigure(name, title, caption, figure)


def _legend_below(figure: Figure, entries: int) -> None:
    figure.legend(loc="outside lower center", ncols=min(entries, _PANELS_A_ROW))


def _colour(runs: Sequence[NamedRun], name: str) -> str:
    index = next(index for index, run in enumerate(runs) if run.name == name)
    return PALETTE[index % len(PALETTE)]
