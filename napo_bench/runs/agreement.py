"""Agreement of raters on the same answers: Krippendorff's alpha for ordinal ratings, shares, and confusion tables.

Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011). Alpha is a function of the sums of each answer's
coincidences, so its interval is that of any other metric: whole pictures are resampled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from napo_bench.benchmarks.rated import Counts, Rated
from napo_bench.core import stats
from napo_bench.core.counts import CountTable
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.ratings import ASK_AGAIN, SAME_ANSWER, Item, Ratings

FEW_CLUSTERS = 20
"""With fewer pictures an interval is too narrow."""


@dataclass(frozen=True)
class Measured:
    """A number with its 95% interval.

    Attributes:
        value: The number; None if it is undefined.
        ci95: 95% interval; None if the number is undefined.
    """

    value: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Agreement:
    """Agreement of raters on the answers that they all rated.

    Attributes:
        raters: The two raters; one rater who rated answers several times; or all raters.
        n: Number of answers that two of them rated, or that the one rated twice or more.
        clusters: Number of clusters of these answers.
        alpha: Krippendorff's alpha for ordinal ratings: 1 is full agreement, 0 is chance.
        exact: Share of equal ratings, percent; this and the following measures are None for all raters.
        within_one: Share of ratings that differ by 1 or less, percent.
        flag: Share of answers on which both or neither say that the answer hallucinates, percent.
        higher_by: Mean rating of the second rater minus that of the first.
        levels: The ratings that occur.
        table: Number of answers by the first rater's rating (row) and the second's (column), in the order of `levels`;
            an answer that is rated several times counts in parts. Empty for all raters.
    """

    raters: tuple[str, ...]
    n: int
    clusters: int
    alpha: Measured
    exact: Measured | None
    within_one: Measured | None
    flag: Measured | None
    higher_by: Measured | None
    levels: tuple[int, ...]
    table: tuple[tuple[float, ...], ...]

    @property
    def is_repeated(self) -> bool:
        """Whether this is one rater, who rated answers several times."""
        return len(self.raters) == 1

    def to_json(self) -> dict[str, Any]:
        """The agreement as a JSON value."""
        return asdict(self)


def agreements(ratings: Ratings) -> list[Agreement]:
    """The agreement of each pair of raters, of each rater with itself, and of all raters if they are three or more.

    Raises:
        NapoBenchError: no answer has two ratings.
    """
    raters = list(ratings.raters)
    found = []
    for pair in itertools.combinations(raters, 2):
        shared = ratings.rated_by(*pair)
        if shared:
            found.append(_pair(ratings.rated, shared, pair))
    for rater in raters:
        repeated = [item for item in ratings.rated_by(rater) if len(item.by[rater]) > 1]
        if repeated:
            found.append(_pair(ratings.rated, repeated, (rater,)))
    if not found:
        shown = ", ".join(f"{rater} ({n} answers)" for rater, n in ratings.raters.items()) or "none"
        raise NapoBenchError(
            f"No answer has two ratings. The raters: {shown}.",
            f"{SAME_ANSWER} {ASK_AGAIN}",
        )
    if len(raters) > 2:
        found.append(_all(ratings.rated, [item for item in ratings.items if len(item.by) > 1], raters))
    return found


def ordinal_alpha(coincidences: Any) -> Any:
    """Krippendorff's alpha for ordinal ratings; nan if all ratings are equal, because then nothing can disagree.

    Args:
        coincidences: Sums of coincidences `[..., L, L]`, whose levels are in ascending order. An answer with m ratings
            adds 1 / (m - 1) for each ordered pair of its ratings.

    Returns:
        Alpha `[...]`.
    """
    each = coincidences.sum(axis=-1)
    total = each.sum(axis=-1)
    below = np.cumsum(each, axis=-1) - each / 2
    distance = (below[..., :, None] - below[..., None, :]) ** 2
    observed = (coincidences * distance).sum(axis=(-2, -1))
    expected = (each[..., :, None] * each[..., None, :] * distance).sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (total - 1) * observed / expected, np.nan)


def _pair(rated: Rated, items: Sequence[Item], raters: tuple[str, ...]) -> Agreement:
    """The agreement of two raters, or of one with itself."""
    paired = [_weighted_pairs(item, raters) for item in items]
    levels = _levels(rated, (one for pairs in paired for first, second, _ in pairs for one in (first, second)))
    rows = []
    for pairs in paired:
        row = {"n": 1.0, "exact": 0.0, "within one": 0.0, "flag": 0.0, "higher by": 0.0}
        for first, second, weight in pairs:
            a, b = first[rated.rating], second[rated.rating]
            row["exact"] += weight * (a == b)
            row["within one"] += weight * (abs(a - b) <= 1)
            row["flag"] += weight * (first[rated.flag] == second[rated.flag])
            row["higher by"] += weight * (b - a)
            row[_cell(a, b)] = row.get(_cell(a, b), 0.0) + weight
        rows.append(row)
    clusters = stats.by_cluster(rows, [item.cluster for item in items])

    def alpha(sums: stats.Sums) -> Any:
        table = _table(sums, levels)
        return ordinal_alpha(table + np.swapaxes(table, -1, -2))

    metrics: dict[str, stats.MetricFunction] = {
        name: _share(name, 1.0 if name == "higher by" else 100.0)
        for name in ("exact", "within one", "flag", "higher by")
    }
    spans = {name: stats.Span(0.0, 100.0, len(clusters)) for name in ("exact", "within one", "flag")}
    spans["alpha"] = stats.Span(-1.0, 1.0, len(clusters))
    measured = _measure(clusters, {"alpha": alpha, **metrics}, spans)
    table = _table(clusters.total, levels)
    return Agreement(
        raters,
        len(items),
        len(clusters),
        measured["alpha"],
        measured["exact"],
        measured["within one"],
        measured["flag"],
        None if len(raters) == 1 else measured["higher by"],
        levels,
        tuple(tuple(map(float, line)) for line in table),
    )


def _all(rated: Rated, items: Sequence[Item], raters: Sequence[str]) -> Agreement:
    """Alpha of all raters. A rater who rated an answer several times counts once, in parts."""
    levels = _levels(rated, (one for item in items for own in item.by.values() for one in own))
    rows = []
    for item in items:
        row: dict[str, float] = {}
        for first, second in itertools.permutations(item.by.values(), 2):
            weight = 1 / (len(item.by) - 1) / len(first) / len(second)
            for a, b in itertools.product(first, second):
                cell = _cell(a[rated.rating], b[rated.rating])
                row[cell] = row.get(cell, 0.0) + weight
        rows.append(row)
    clusters = stats.by_cluster(rows, [item.cluster for item in items])
    spans = {"alpha": stats.Span(-1.0, 1.0, len(clusters))}
    measured = _measure(clusters, {"alpha": lambda sums: ordinal_alpha(_table(sums, levels))}, spans)
    names = tuple(raters)
    return Agreement(names, len(items), len(clusters), measured["alpha"], None, None, None, None, levels, ())


def _weighted_pairs(item: Item, raters: tuple[str, ...]) -> list[tuple[Counts, Counts, float]]:
    """The pairs of ratings of an answer, with weights whose sum is 1."""
    if len(raters) == 1:
        pairs = list(itertools.combinations(item.by[raters[0]], 2))
    else:
        pairs = list(itertools.product(item.by[raters[0]], item.by[raters[1]]))
    return [(first, second, 1 / len(pairs)) for first, second in pairs]


def _levels(rated: Rated, counts: Iterable[Counts]) -> tuple[int, ...]:
    return tuple(sorted({int(one[rated.rating]) for one in counts}))


def _cell(a: float, b: float) -> str:
    return f"{int(a)} {int(b)}"


def _table(sums: stats.Sums, levels: Sequence[int]) -> Any:
    """The sums of the cells as `[..., L, L]`."""
    cells = [np.asarray(sums.get(_cell(a, b), 0.0), dtype=float) for a, b in itertools.product(levels, levels)]
    stacked = np.stack(np.broadcast_arrays(*cells), axis=-1)
    return stacked.reshape(*stacked.shape[:-1], len(levels), len(levels))


def _share(name: str, scale: float) -> stats.MetricFunction:
    return lambda sums: scale * sums[name] / sums["n"]


def _measure(
    clusters: CountTable,
    metrics: Mapping[str, stats.MetricFunction],
    spans: Mapping[str, stats.Span],
) -> dict[str, Measured]:
    """The metrics with their intervals; an undefined metric has none."""
    total = clusters.total
    values = {name: float(metric(total)) for name, metric in metrics.items()}
    defined = {name: metric for name, metric in metrics.items() if np.isfinite(values[name])}
    intervals = stats.bootstrap_intervals(clusters, defined, spans=spans)
    return {
        name: Measured(value, intervals[name]) if name in defined else Measured(None, None)
        for name, value in values.items()
    }
