"""The results of the laboratory: `lab.md`, `lab.json` and the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napo_bench.benchmarks import benchmark_labels
from napo_bench.benchmarks.metrics import metric_named
from napo_bench.benchmarks.result import MetricValue
from napo_bench.core import files
from napo_bench.report import table
from napo_bench.report.figures import (
    DrawnFigure,
    MarginSample,
    alpha_sweep,
    draw_figures,
    label_noise,
    noise_against_margin,
    save_figures,
)
from napo_bench.report.runs import NamedRun
from napo_bench.runs.provenance import package_versions
from napo_bench.runs.result import RunResult
from napo_bench.runs.seeds import pooled
from napo_bench.studies.experiment import BASE
from napo_bench.studies.paper_claims.claims import (
    COMPARED,
    MARGIN_NAMES,
    Verdict,
)
from napo_bench.studies.paper_claims.estimate import Estimate
from napo_bench.studies.paper_claims.found import Found, mean_log, metric_of, noise_parts, read_found
from napo_bench.studies.paper_claims.laboratory import CHANGES, TABLES, Laboratory
from napo_bench.studies.paper_claims.margins import (
    MARGINS,
    Negatives,
)
from napo_bench.trainers.negatives import BIASED

SHOWN = (*COMPARED, "vlind.ck", "vlind.vp", "object_halbench.recall", "object_halbench.mean_words")
"""Metrics of every method: first those of the claims, then those that show the price."""


@dataclass(frozen=True)
class Grid:
    """A table of texts.

    Attributes:
        title: Title of the table.
        note: Text that says how to read the table.
        head: Heads of the columns.
        rows: Texts of each row, one for each column.
        texts: Number of columns with words, from the left.
    """

    title: str
    note: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1

    def to_markdown(self) -> str:
        """A section with a GitHub table."""
        align = ["---"] * self.texts + ["---:"] * (len(self.head) - self.texts)
        lines = [f"| {' | '.join(cells)} |" for cells in (self.head, align, *self.rows)]
        return "\n".join([f"## {self.title}", "", self.note, "", *lines, ""])


def write_page(laboratory: Laboratory) -> tuple[Path, list[Grid]]:
    """Write `lab.md`, `lab.json` and `figures/` from the results of the finished steps.

    Returns:
        The path of the page, and the laboratory's own tables. The page also contains the paper's tables.
    """
    found = read_found(laboratory)
    grids = list(_grids(found))
    figures = list(_figures(found))
    save_figures(figures, laboratory.out / "figures")
    page = laboratory.out / "lab.md"
    files.write_text(page, _page(found, grids, figures))
    files.write_json(laboratory.out / "lab.json", _document(found))
    return page, grids


def _grids(found: Found) -> Iterator[Grid]:
    yield _methods(found)
    if found.negatives:
        yield _noise(found)
        yield _noise_by_question(found)
        yield _finding_noise(found)
    yield from _sweeps(found)
    if found.laboratory.swapped:
        yield _label_noise(found)
    for part in found.changed:
        yield _changed(found, part)
    yield from _claims(found)


def _methods(found: Found) -> Grid:
    rows = [[BASE, *(_value(metric_of(found.base, key), key) for key in SHOWN)]]
    rows += [[method, *(_value(found.estimate(0, method, key), key) for key in SHOWN)] for method in found.runs[0]]
    return Grid(
        "Every method",
        f"Mean over {len(found.laboratory.seeds)} trainings, with 95% intervals over the trainings; of the base, over "
        "samples.",
        ["", *map(_heading, SHOWN)],
        rows,
    )


def _noise(found: Found) -> Grid:
    rows = []
    for kind, negatives in found.negatives.items():
        lengths = [
            _text(Estimate.of(negatives.length_margins[part].tolist()), 1, "+") for _, part in noise_parts(negatives)
        ]
        rows.append([kind, f"{len(negatives.noisy)}", f"{negatives.noisy.mean():.1%}", *lengths])
    return Grid(
        "Noise in the biased negatives (Table 7)",
        "Noise: the negative is right. Length margin: tokens of the chosen response minus those of the "
        "negative, with 95% intervals over rows.",
        ["biased to", "negatives", "noise", "length margin, noise-free", "length margin, noisy"],
        rows,
    )


def _noise_by_question(found: Found) -> Grid:
    counts = {kind: _question_counts(negatives) for kind, negatives in found.negatives.items()}
    asked = dict.fromkeys(name for by_question in counts.values() for name in by_question)
    return Grid(
        "Noise by kind of question",
        "Share of the negatives that are noise, and the number of negatives.",
        ["question", *counts],
        [
            [
                name,
                *(
                    f"{noisy / n:.0%} of {n}" if n else "–"
                    for n, noisy in (by_question.get(name, (0, 0)) for by_question in counts.values())
                ),
            ]
            for name in asked
        ],
    )


def _question_counts(negatives: Negatives) -> dict[str, tuple[int, int]]:
    """Kind of question -> number of its negatives and of those that are noise, the most frequent kind first."""
    noisy = Counter(name for name, noise in zip(negatives.asked, negatives.noisy, strict=True) if noise)
    return {name: (n, noisy[name]) for name, n in Counter(negatives.asked).most_common()}


def _finding_noise(found: Found) -> Grid:
    return Grid(
        "Which margin finds noise (Figure 4, Table 4)",
        "AUC: the chance that a noise-free negative has a larger margin than a noisy one; 0.5 is no better than "
        "chance. Within: between negatives of one kind of question. 95% intervals over trainings.",
        [
            "trained with",
            "biased to",
            "margin of",
            "AUC",
            "AUC within",
            "mean margin, noise-free",
            "mean margin, noisy",
        ],
        [
            [
                row.policy,
                row.kind,
                MARGIN_NAMES[row.margin],
                _text(row.auc, 3),
                _text(row.auc_within, 3),
                _text(row.noise_free, 2, "+"),
                _text(row.noisy, 2, "+"),
            ]
            for row in found.separations
        ],
        texts=3,
    )


def _sweeps(found: Found) -> Iterator[Grid]:
    for name, methods in found.laboratory.swept.items():
        sweep = found.laboratory.sweeps[name]
        yield Grid(
            f"Alpha of {name} ({sweep.figure})",
            f"Only {sweep.key} differs. 95% intervals over trainings.",
            ["alpha", *map(_heading, SHOWN)],
            [
                [f"{alpha:g}", *(_value(found.estimate(0, method, key), key) for key in SHOWN)]
                for alpha, method in methods.items()
            ],
        )


def _label_noise(found: Found) -> Grid:
    recipes = found.laboratory.main.recipes
    told = {recipes[name].label_smoothing for name in found.laboratory.swapped_methods}
    return Grid(
        "Noise in the labels",
        "Chosen and rejected of a share of the original pairs are swapped. 95% intervals over trainings. cDPO and rDPO "
        f"assume that {', '.join(f'{share:.0%}' for share in told)} of the labels are wrong, at every share.",
        ["method", "swapped", *map(_heading, SHOWN)],
        [
            [method, f"{percent}%", *(_value(found.estimate(percent, method, key), key) for key in SHOWN)]
            for method in found.laboratory.swapped_methods
            for percent in sorted(found.runs)
        ],
    )


def _changed(found: Found, part: str) -> Grid:
    change = CHANGES[part]
    rows = []
    for method, runs in found.changed[part].items():
        for name, run in (("as they are", found.pooled[0, method]), (change.label, pooled(runs))):
            rows.append([method, name, *(_value(metric_of(run, key), key) for key in SHOWN)])
    return Grid(
        change.title,
        f"{change.note} The rows differ in nothing else. 95% intervals over trainings.",
        ["method", "rows", *map(_heading, SHOWN)],
        rows,
        texts=2,
    )


def _claims(found: Found) -> Iterator[Grid]:
    note = (
        "Difference with its 95% interval over trainings, paired by seed; in brackets the paper's. Holds: the "
        "interval is on the side of 0 that the claim says; contradicted: the interval is on the other side; open: the "
        "interval contains 0."
    )
    about_metrics = [
        row for row in found.verdicts if row.claim.quantity in {metric_named(key).label for key in COMPARED}
    ]
    by_claim: dict[tuple[str, str], dict[str, Verdict]] = {}
    for row in about_metrics:
        by_claim.setdefault((row.claim.where, row.claim.text), {})[row.claim.quantity] = row
    labels = [metric_named(key).label for key in COMPARED]
    if by_claim:
        yield Grid(
            "What the paper claims, and what is found here: methods",
            note,
            ["", "claim", *map(_heading, COMPARED)],
            [
                [where, text, *(_verdict(rows[label]) if label in rows else "–" for label in labels)]
                for (where, text), rows in by_claim.items()
            ],
            texts=2,
        )
    others = [row for row in found.verdicts if row not in about_metrics]
    if others:
        yield Grid(
            "What the paper claims, and what is found here: margins",
            "As above; length margins have intervals over rows.",
            ["", "claim", "", "here"],
            [[row.claim.where, row.claim.text, row.claim.quantity, _verdict(row)] for row in others],
            texts=3,
        )


def _verdict(row: Verdict) -> str:
    paper = "" if row.claim.paper is None else f" (paper {row.claim.paper:+.{row.claim.decimals}f})"
    return f"{row.verdict}: {row.difference.text(row.claim.decimals, '+')}{paper}"


def _heading(key: str) -> str:
    metric = metric_named(key)
    return f"{metric.label} {metric.arrow}".strip()


def _value(value: MetricValue | None, key: str) -> str:
    if value is None:
        return "–"
    write = metric_named(key).format
    return f"{write(value.value)} [{write(value.ci95[0])}, {write(value.ci95[1])}]"


def _text(estimate: Estimate | None, decimals: int, sign: str = "") -> str:
    return "–" if estimate is None else estimate.text(decimals, sign)


def _named_runs(found: Found) -> list[NamedRun]:
    """The methods of the tables, pooled over seeds."""
    laboratory = found.laboratory
    if TABLES not in laboratory.parts:
        return []
    recipes = laboratory.main.recipes
    return [
        NamedRun(method, found.pooled[0, method], recipes[method], mean_log(found.logs[method]))
        for method in laboratory.methods
    ]


def _figures(found: Found) -> Iterator[DrawnFigure]:
    yield from draw_figures(_named_runs(found))
    for policy, by_margin in found.margins.items():
        samples = {
            f"{kind}, {margin}": MarginSample(np.mean(by_margin[kind, margin], axis=0), found.negatives[kind].noisy)
            for kind in BIASED
            for margin in MARGINS
            if len(found.negatives[kind].noisy)
        }
        if samples:
            figure = noise_against_margin(samples)
            caption = f"{figure.caption} Under {policy}, each margin a mean over trainings."
            yield replace(figure, name=f"{figure.name}-{policy}", title=f"{figure.title}: {policy}", caption=caption)
    for name, methods in found.laboratory.swept.items():
        points = {alpha: _metrics(found.pooled[0, method]) for alpha, method in methods.items()}
        yield alpha_sweep(f"sweep-{name}", f"{found.laboratory.sweeps[name].key} of {name}", points)
    if found.laboratory.swapped:
        yield label_noise(
            {
                method: {float(percent): _metrics(found.pooled[percent, method]) for percent in sorted(found.runs)}
                for method in found.laboratory.swapped_methods
            },
            found.laboratory.methods,
        )


def _metrics(run: RunResult) -> dict[str, MetricValue]:
    return {
        f"{benchmark}.{name}": value
        for benchmark, result in run.benchmarks.items()
        for name, value in result.metrics.items()
    }


def _page(found: Found, grids: Sequence[Grid], figures: Sequence[DrawnFigure]) -> str:
    laboratory = found.laboratory
    of_each = (
        "all of each benchmark"
        if laboratory.evaluation.limit is None
        else f"the first {laboratory.evaluation.limit} units of each"
    )
    lines = [
        "# The laboratory",
        "",
        f"{len(laboratory.seeds)} trainings of each recipe on {laboratory.rows} preference rows of the micro world, "
        f"evaluated on {' and '.join(benchmark_labels()[name] for name in laboratory.evaluation.suite)} ({of_each}). "
        f"Base: {_fingerprint(found)[:12]}."
        + (f" Every recipe with {', '.join(laboratory.overrides)}." if laboratory.overrides else ""),
        "",
    ]
    sections = [grid.to_markdown() for grid in grids]
    variants = table.variant_tables(_named_runs(found), paper=True)
    if variants:
        tables = [table.to_markdown(entry, intervals=True) for entry in variants]
        sections.insert(1, "\n".join(["## The paper's tables, with the micro world below", "", *tables]))
    if figures:
        shown = [f"![{figure.title}](figures/{figure.name}.png)\n\n{figure.caption}\n" for figure in figures]
        sections.append("\n".join(["## Figures", "", *shown]))
    return "\n".join([*lines, *sections])


def _fingerprint(found: Found) -> str:
    checkpoint = found.base.provenance.checkpoint
    return "" if checkpoint is None else checkpoint.fingerprint


def _document(found: Found) -> dict[str, Any]:
    """All numbers of the tables, in full precision."""
    laboratory = found.laboratory
    return {
        "settings": {
            "parts": list(laboratory.parts),
            "seeds": list(laboratory.seeds),
            "rows": laboratory.rows,
            "limit": laboratory.evaluation.limit,
            "overrides": list(laboratory.overrides),
            "swapped_percent": sorted(found.runs),
            "base_fingerprint": _fingerprint(found),
            "data_sha256": found.base.provenance.data.sha256,
            "versions": package_versions(),
        },
        "recipes": {name: asdict(recipe) for name, recipe in laboratory.main.recipes.items()},
        "base": {key: asdict(value) for key, value in _metrics(found.base).items()},
        "methods": [
            {
                "method": method,
                "swapped_percent": percent,
                "metrics": {
                    key: asdict(value) | {"by_seed": [_metrics(run)[key].value for run in found.runs[percent][method]]}
                    for key, value in _metrics(run).items()
                },
            }
            for (percent, method), run in found.pooled.items()
        ],
        "changed_rows": {
            part: {
                method: {key: [_metrics(run)[key].value for run in runs] for key in _metrics(runs[0])}
                for method, runs in methods.items()
            }
            for part, methods in found.changed.items()
        },
        "sweeps": {
            name: {
                "key": laboratory.sweeps[name].key,
                "methods": {f"{alpha:g}": method for alpha, method in methods.items()},
            }
            for name, methods in laboratory.swept.items()
        },
        "noise": {kind: _noise_document(negatives) for kind, negatives in found.negatives.items()},
        "separations": [asdict(row) for row in found.separations],
        "claims": [asdict(row) | {"verdict": row.verdict} for row in found.verdicts],
    }


def _noise_document(negatives: Negatives) -> dict[str, Any]:
    lengths = {name: Estimate.of(negatives.length_margins[part].tolist()) for name, part in noise_parts(negatives)}
    return {
        "negatives": len(negatives.noisy),
        "noisy": int(negatives.noisy.sum()),
        "length_margin": {name: None if value is None else asdict(value) for name, value in lengths.items()},
        "by_question": {
            name: {"negatives": n, "noisy": noisy} for name, (n, noisy) in _question_counts(negatives).items()
        },
    }
