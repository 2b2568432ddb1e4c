"""Does a map between two raters hold for a run? Checks of the assumption that one rating depends on the other alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napo_bench.benchmarks.rated import Steps
from napo_bench.core import stats
from napo_bench.runs.map_sums import MapSums, histogram, mean_count
from napo_bench.runs.ratings import Item

_SURE = 0.05
_DRAWS = 2000
_ROUNDING = 1e-9
_FEWEST = 20  # pictures of a model whose answers both rated


def of_run(sums: MapSums, pairs: Sequence[Item], own: Sequence[Item]) -> list[str]:
    """A line if the first rater's ratings are distributed differently in a run and in the pairs, at 5%; else none."""
    p_value, mine, theirs = _shift(sums, pairs, own)
    if p_value >= _SURE:
        return []
    shown = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    return [
        f"the ratings of {sums.first} are distributed differently in this run (mean {mine:.2f}) and in the answers "
        f"that both rated (mean {theirs:.2f}, {shown}), so the map may not hold: let {sums.second} rate answers of "
        "this run"
    ]


def of_models(sums: MapSums, pairs: Sequence[Item]) -> list[str]:
    """A line for each model whose pairs are rated higher or lower than the map says, at 5% for all models together."""
    models: dict[str, list[Item]] = {}
    for item in pairs:
        models.setdefault(", ".join(sorted(item.runs)) or "the files", []).append(item)
    large = {name: items for name, items in models.items() if len({item.cluster for item in items}) >= _FEWEST}
    if len(large) < 2:
        return []
    fitted = sums.fitted(pairs)
    lines = []
    for name, items in large.items():
        rows = [{"n": 1.0, "above": _above(sums, fitted, item)} for item in items]
        clusters = stats.by_cluster(rows, [item.cluster for item in items])
        ends = stats.bootstrap_intervals(
            clusters, {"above": lambda s: s["above"] / s["n"]}, level=1 - _SURE / len(large)
        )
        low, high = ends["above"]
        if low > 0 or high < 0:
            lines.append(
                f"{sums.second} rates the answers of {name} {'higher' if low > 0 else 'lower'} than the map says, by "
                f"{min(abs(low), abs(high)):.2f} to {max(abs(low), abs(high)):.2f}: the map differs between models"
            )
    return lines


def _above(sums: MapSums, fitted: stats.Sums, item: Item) -> float:
    """How much higher the second rater rates an answer than the map says."""
    name = sums.rated.rating
    expected = [sums.expected(name, own, fitted) for own in item.by[sums.first]]
    return mean_count(name, item.by[sums.second]) - sum(expected) / len(expected)


def _shift(sums: MapSums, pairs: Sequence[Item], own: Sequence[Item]) -> tuple[float, float, float]:
    """P-value of equal distributions of the first rater's ratings in the run and in the pairs, by tables drawn with the
    same margins; and both means.
    """
    how = Steps(sums.rated.rating)
    counts = [histogram(how, sums.first, items) for items in (own, pairs)]
    levels = np.array(sorted({level for one in counts for level in one}))
    mine, theirs = (np.array([one.get(int(level), 0.0) for level in levels]) for one in counts)
    both = np.rint(mine).astype(int) + np.rint(theirs).astype(int)
    size = int(np.rint(mine).sum())
    expected, rest = both * size / both.sum(), both * (both.sum() - size) / both.sum()

    def distance(part: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nansum((part - expected) ** 2 * (1 / expected + 1 / rest), axis=-1)

    drawn = np.random.default_rng(0).multivariate_hypergeometric(both, size, size=_DRAWS)
    extreme = int(np.count_nonzero(distance(drawn) >= distance(np.rint(mine)) * (1 - _ROUNDING)))
    means = [float(levels @ part / part.sum()) for part in (mine, theirs)]
    return (extreme + 1) / (_DRAWS + 1), means[0], means[1]
