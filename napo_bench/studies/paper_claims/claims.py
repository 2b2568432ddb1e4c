"""The paper's claims and their verdicts: each claim compares two quantities, and the measured numbers decide."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from napo_bench.benchmarks.metrics import metric_named
from napo_bench.core import files
from napo_bench.core.paths import results_dir
from napo_bench.report.published import published_table
from napo_bench.studies.paper_claims.estimate import Estimate

Direction = Literal["higher", "lower"]
COMPARED = ("vlind.cb", "vlind.lp", "object_halbench.chair_s", "object_halbench.chair_i")
"""The columns of the paper's Tables 2-6."""

MARGIN_NAMES = {"sum": "summed log-probs", "mean": "mean log-probs"}


@dataclass(frozen=True)
class Comparison:
    """A claim that one method is better or worse than another in every metric of `COMPARED`.

    Attributes:
        table: Number of the paper's table.
        text: The claim, in our words.
        method: Recipe of the method that the claim is about.
        other: Recipe of the other method.
        better: Whether the paper says that the method is better.
    """

    table: int
    text: str
    method: str
    other: str
    better: bool = True


COMPARISONS = (
    Comparison(1, "NaPO with biased negatives is better than DPO", "micro-napo", "micro-dpo"),
    Comparison(1, "NaPO with biased negatives is better than mDPO", "micro-napo", "micro-mdpo"),
    Comparison(2, "Dynamic weights help (A1 against A2)", "micro-napo", "micro-napo-a2"),
    Comparison(2, "NaPO suits biased negatives better than DPO (A1 against A3)", "micro-napo", "micro-napo-a3"),
    Comparison(2, "The same for language-biased ones alone (LB1 against LB2)", "micro-napo-lb1", "micro-napo-lb2"),
    Comparison(2, "The same for vision-biased ones alone (VB1 against VB2)", "micro-napo-vb1", "micro-napo-vb2"),
    Comparison(3, "Biased negatives help, even with one loss a step", "micro-napo-random", "micro-dpo"),
    Comparison(4, "q of language bias belongs on mean log-probs", "micro-napo-lb1", "micro-napo-lb1-sum"),
    Comparison(4, "q of vision bias belongs on summed log-probs", "micro-napo-vb1", "micro-napo-vb1-mean"),
    Comparison(5, "On the original pairs alone, NaPO is better than DPO", "micro-napo-original", "micro-dpo"),
    Comparison(
        6,
        "Dynamic weights hurt where the original pairs train with NaPO too",
        "micro-napo-everywhere",
        "micro-napo-everywhere-sum",
        better=False,
    ),
)


@dataclass(frozen=True)
class Claim:
    """A claim that one quantity is higher or lower than another.

    Attributes:
        where: Table or figure of the paper.
        text: The claim, in our words.
        quantity: Kind of the quantities: "CB", "AUC under micro-dpo".
        this: Name of the measured quantity that the claim is about.
        than: Name of the other quantity, or a fixed number.
        expected: Whether `this` is higher or lower according to the claim.
        decimals: Decimals of the difference in texts.
        paper: Difference in the paper; None if the paper gives no number.
    """

    where: str
    text: str
    quantity: str
    this: str
    than: str | float
    expected: Direction
    decimals: int
    paper: float | None


@dataclass(frozen=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        claim: The claim.
        difference: `this` minus `than`, paired over seeds or over rows.
    """

    claim: Claim
    difference: Estimate

    @property
    def verdict(self) -> Literal["holds", "contradicted", "open"]:
        """Whether the interval of the difference is on the expected side of 0, is on the other side, or contains 0."""
        low, high = self.difference.ci95
        if low <= 0 <= high:
            return "open"
        return "holds" if (low > 0) == (self.claim.expected == "higher") else "contradicted"


def verdicts_on(claims: Sequence[Claim], measured: Mapping[str, Sequence[float]]) -> list[Verdict]:
    """The verdicts on the claims whose quantities were measured.

    Args:
        claims: Claims to judge.
        measured: Name of a quantity -> its values. Two compared quantities have the same seeds, in the same order.
    """
    verdicts = []
    for claim in claims:
        values = measured.get(claim.this, ())
        fixed = [claim.than] * len(values) if isinstance(claim.than, float) else None
        others = measured.get(str(claim.than), ()) if fixed is None else fixed
        if len(values) == len(others):
            gap = Estimate.of([value - other for value, other in zip(values, others, strict=True)])
            if gap is not None:
                verdicts.append(Verdict(claim, gap))
    return verdicts


def metric_claims() -> list[Claim]:
    """The claims about methods, one for each metric."""
    claims = []
    for row in COMPARISONS:
        for key in COMPARED:
            metric = metric_named(key)
            numbers = [_published(row.table, name).get(key) for name in (row.method, row.other)]
            claims.append(
                Claim(
                    f"Table {row.table}",
                    row.text,
                    metric.label,
                    f"{row.method} {key}",
                    f"{row.other} {key}",
                    "higher" if (metric.better == "higher") == row.better else "lower",
                    metric.decimals,
                    None if numbers[0] is None or numbers[1] is None else round(numbers[0] - numbers[1], 4),
                )
            )
    return claims


def margin_claims(policies: Sequence[str]) -> list[Claim]:
    """The claims about margins and lengths of biased negatives.

    Args:
        policies: Policies under which margins were measured.
    """
    claims = []
    for policy in policies:
        named = f"AUC under {policy}"
        for kind, right, other in (("language", "mean", "sum"), ("vision", "sum", "mean")):
            auc = f"{policy} auc {kind} "
            larger = f"The larger the margin, the less noise: {kind}-biased, {MARGIN_NAMES[right]}, against 0.5"
            claims.append(Claim("Figure 4", larger, named, auc + right, 0.5, "higher", 3, None))
            finds = f"Noise in {kind}-biased negatives: {MARGIN_NAMES[right]} find it better than {MARGIN_NAMES[other]}"
            claims.append(Claim("Table 4", finds, named, auc + right, auc + other, "higher", 3, None))
    lengths = _table_7()
    sides: tuple[tuple[str, str, Direction], ...] = (
        ("noise-free", "Noise-free vision-biased negatives are longer than the chosen response", "lower"),
        ("noisy", "Noisy vision-biased negatives are shorter than the chosen response", "higher"),
    )
    for part, text, expected in sides:
        claims.append(
            Claim("Table 7", text, "length margin", f"length vision {part}", 0.0, expected, 1, lengths["vision", part])
        )
    return claims


@cache
def _published(table: int, method: str) -> Mapping[str, float]:
    """The paper's numbers of the 7B model for a recipe of the micro world, by metric key."""
    name = {
        "micro-dpo": "DPO with RLAIF-V",
        "micro-mdpo": "mDPO with RLAIF-V",
        "micro-napo": "NaPO with RLAIF-V-Bias",
    }.get(method)
    for row in published_table(f"napo-{table}").rows:
        same = row.name == name and "7B" in row.group if table == 1 else _is_recipe(row.recipe, method)
        if same:
            return {key: row.values[key] for key in COMPARED if key in row.values}
    return {}


def _is_recipe(recipe: str, method: str) -> bool:
    return recipe.removeprefix("llava-1.5-7b-") == method.removeprefix("micro-")


def _table_7() -> dict[tuple[str, str], float]:
    """(Kind, "noise-free" or "noisy") -> the paper's mean length margin."""
    found: dict[tuple[str, str], float] = {}
    path = results_dir() / "published" / "margins" / "napo-7.csv"
    for row in csv.DictReader(files.read_text(path).splitlines()):
        part = "noise-free" if "noise-free" in row["name"] else "noisy"
        found |= {("language", part): float(row["language"]), ("vision", part): float(row["vision"])}
    return found
