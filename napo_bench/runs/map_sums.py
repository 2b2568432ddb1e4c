"""The map between two raters as a function of sums: what the bootstrap of a map and of a mapped run needs.

For each count of the second rater, the map is the mean of that count given the first rater's numbers. `Steps` is
isotonic regression over levels, `Line` is least squares with a slope that is not negative. Pairs and a run's answers
add up separately, so one row of sums for each cluster contains both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napo_bench.benchmarks.benchmark import Metric
from napo_bench.benchmarks.rated import Counts, Line, Rated, Steps
from napo_bench.core import stats
from napo_bench.core.counts import CountTable
from napo_bench.core.isotonic import rising
from napo_bench.runs.ratings import Item

_FLAT = 1e-9


@dataclass(frozen=True)
class MapSums:
    """The sums of a map from one rater to another.

    Attributes:
        rated: How the benchmark's ratings are mapped.
        first: The rater whose numbers are mapped.
        second: The rater whose numbers are estimated.
    """

    rated: Rated
    first: str
    second: str

    def of_pair(self, item: Item) -> dict[str, float]:
        """The sums of an answer that both rated. A rater who rated an answer several times counts once."""
        first, second = item.by[self.first], item.by[self.second]
        row: dict[str, float] = {}
        for count, how in self.rated.predicted.items():
            y = mean_count(count, second)
            for own in first:
                if isinstance(how, Steps):
                    level = how.level(own)
                    terms = {_key(count, "n", level): 1.0, _key(count, "y", level): y}
                else:
                    x = own[how.by]
                    powers = {"n": 1.0, "x": x, "xx": x * x, "y": y, "xy": x * y}
                    terms = {_key(count, name): value for name, value in powers.items()}
                for name, value in terms.items():
                    row[name] = row.get(name, 0.0) + value / len(first)
        return row

    def of_answer(self, item: Item) -> dict[str, float]:
        """The sums of an answer of the run: the first rater's counts, and its levels."""
        first = item.by[self.first]
        row = {name: mean_count(name, first) for name in first[0]}
        for count, how in self.rated.predicted.items():
            for own in first:
                if isinstance(how, Steps):
                    name = _key(count, "run", how.level(own))
                    row[name] = row.get(name, 0.0) + 1 / len(first)
        return row

    def metric(self, metric: Metric) -> stats.MetricFunction:
        """The metric of the second rater's counts, as a function of the sums of pairs and of answers."""

        def mapped(sums: stats.Sums) -> Any:
            fixed = {name: sums[name] for name in self.rated.fixed}
            return metric.function(fixed | {count: self._total(count, sums) for count in self.rated.predicted})

        return mapped

    def fitted(self, pairs: Sequence[Item]) -> dict[str, float]:
        """The sums of all pairs."""
        return CountTable.of([self.of_pair(item) for item in pairs]).total

    def expected(self, count: str, own: Counts, fitted: stats.Sums) -> float:
        """The mapped mean of a count for an answer with these counts of the first rater."""
        how = self.rated.predicted[count]
        if isinstance(how, Line):
            level, slope = line(count, fitted)
            return float(level + slope * own[how.by])
        levels = _levels(count, fitted)
        return float(steps(how, count, levels, fitted)[levels.index(how.level(own))])

    def _total(self, count: str, sums: stats.Sums) -> Any:
        """The mapped sum of a count over the run's answers."""
        how = self.rated.predicted[count]
        if isinstance(how, Line):
            level, slope = line(count, sums)
            return np.maximum(level * sums[self.rated.fixed[0]] + slope * sums[how.by], 0.0)
        levels = _levels(count, sums)
        used = _stack(sums, [_key(count, "run", level) for level in levels])
        return (used * steps(how, count, levels, sums)).sum(axis=-1)


def steps(how: Steps, count: str, levels: Sequence[int], sums: stats.Sums) -> Any:
    """The mapped mean of a count at each level `[..., L]`."""
    pairs = _stack(sums, [_key(count, "n", level) for level in levels])
    total = _stack(sums, [_key(count, "y", level) for level in levels])
    sign = 1 if how.rising else -1
    with np.errstate(divide="ignore", invalid="ignore"):
        return sign * rising(sign * total / pairs, pairs) + 0.0  # no -0


def line(count: str, sums: stats.Sums) -> tuple[Any, Any]:
    """The mapped mean of a count at 0, and its slope, which is 0 if the first rater's number does not vary."""
    n, x, xx, y, xy = (
        np.asarray(sums.get(_key(count, name), 0.0), dtype=float) for name in ("n", "x", "xx", "y", "xy")
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = xx - x * x / n
        slope = np.where(spread > _FLAT * np.maximum(xx, 1), np.maximum((xy - x * y / n) / spread, 0.0), 0.0)
        return (y - slope * x) / n, slope


def histogram(how: Steps, rater: str, items: Iterable[Item]) -> dict[int, float]:
    """Level -> number of answers; an answer that is rated several times counts in parts."""
    found: dict[int, float] = {}
    for item in items:
        for own in item.by[rater]:
            found[how.level(own)] = found.get(how.level(own), 0.0) + 1 / len(item.by[rater])
    return dict(sorted(found.items()))


def mean_count(name: str, counts: Sequence[Counts]) -> float:
    """The mean of a count over the ratings of an answer."""
    return sum(one.get(name, 0.0) for one in counts) / len(counts)


def _key(count: str, kind: str, level: int | None = None) -> str:
    """Name of a sum. No count of a benchmark has "|" in its name."""
    return f"{count}|{kind}" + ("" if level is None else f"|{level}")


def _levels(count: str, sums: stats.Sums) -> list[int]:
    """The levels in the sums of this count."""
    parts = [name.split("|") for name in sums]
    return sorted({int(part[2]) for part in parts if part[0] == count and len(part) == 3})


def _stack(sums: stats.Sums, names: Sequence[str]) -> Any:
    arrays = [np.asarray(sums.get(name, 0.0), dtype=float) for name in names]
    return np.stack(np.broadcast_arrays(*arrays), axis=-1)
