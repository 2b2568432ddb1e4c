"""Contradictions of published numbers: one checkpoint, one metric, several values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations, product
from typing import Any

from napo_bench.benchmarks.benchmark import NOT_STATED, Metric
from napo_bench.benchmarks.metrics import all_metrics
from napo_bench.report.published import Result


@dataclass(frozen=True)
class Contradiction:
    """The values of a metric that tables print for one checkpoint.

    Attributes:
        method: The method.
        base: Model that the method starts from.
        metric: The metric.
        values: Value as printed -> the numbers of the tables that print it.
        differing: Names of the conditions that two of the disagreeing tables state differently: "judge model".
    """

    method: str
    base: str
    metric: Metric
    values: Mapping[str, Sequence[Result]]
    differing: tuple[str, ...]


def contradictions(results: Iterable[Result]) -> list[Contradiction]:
    """The contradictions of published numbers. Values that are equal when rounded do not contradict each other."""
    by_checkpoint: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        for key in result.values:
            by_checkpoint.setdefault((result.method, result.base, key), []).append(result)
    found = []
    for (method, base, key), printed in by_checkpoint.items():
        values = _distinct(printed, key)
        if len(values) > 1:
            found.append(Contradiction(method, base, all_metrics()[key], values, _differing(values)))
    return found


def same(value: str, other: str) -> bool:
    """Whether two printed values may be roundings of one number."""
    places = min(-int(Decimal(entry).as_tuple().exponent) for entry in (value, other))
    return abs(Decimal(value) - Decimal(other)) <= Decimal(1).scaleb(-places) / 2


def stated(settings: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Settings as names and texts: {"judge": {"model": "x"}} is {"judge model": "x"}."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        name = f"{before}{key}".replace("_", " ")
        found |= stated(value, f"{name} ") if isinstance(value, Mapping) else {name: str(value)}
    return found


def conditions_of(result: Result) -> dict[str, str]:
    """All conditions of a published number, by name."""
    conditions = result.conditions
    return {
        "decoding": conditions.decoding,
        "conversation": conditions.conversation,
        "answers": str(conditions.answers),
        **stated(conditions.settings),
    }


def unlike(conditions: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    """Names of the conditions that are stated twice, and differ."""
    both = [name for name in conditions if NOT_STATED not in (conditions[name], others.get(name, NOT_STATED))]
    return [name for name in both if conditions[name] != others[name]]


def within_papers(results: Iterable[Result]) -> list[Contradiction]:
    """The contradictions between tables of one paper, of numbers that the paper measured in one way."""
    own: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        own.setdefault((result.source.paper, result.authors), []).append(result)
    return [found for entries in own.values() for found in contradictions(entries)]


def _distinct(printed: Sequence[Result], key: str) -> dict[str, list[Result]]:
    """Value -> the results with it, the value with the most digits for values that are equal when rounded."""
    found: dict[str, list[Result]] = {}
    for result in sorted(printed, key=lambda result: Decimal(result.values[key]).as_tuple().exponent):
        value = result.values[key]
        known = next((other for other in found if same(value, other)), value)
        found.setdefault(known, []).append(result)
    return dict(sorted(found.items(), key=lambda entry: Decimal(entry[0])))


def _differing(values: Mapping[str, Sequence[Result]]) -> tuple[str, ...]:
    """Names of the conditions that two tables with different values state differently."""
    names: dict[str, None] = {}
    for some, others in combinations(values.values(), 2):
        for one, other in product(some, others):
            names |= dict.fromkeys(unlike(conditions_of(one), conditions_of(other)))
    return tuple(sorted(names))
