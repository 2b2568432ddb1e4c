"""Regression gates: is a candidate worse than a baseline by more than allowed, and are the samples enough to tell?"""

from __future__ import annotations

import html
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from xml.etree import ElementTree

import msgspec

from napo_bench.benchmarks import all_benchmarks
from napo_bench.benchmarks.metrics import Better, Metric, metric_named
from napo_bench.benchmarks.result import BenchmarkResult, size_text
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError, nearest
from napo_bench.runs import compare
from napo_bench.runs.result import RunResult

Verdict = Literal["passed", "regressed", "inconclusive"]
Inconclusive = Literal["error", "fail", "pass"]

_FEWEST = 20  # with fewer samples a bootstrap interval is too narrow for a verdict
_OF_MAPPED = 0.975  # a mapped number is stored with its two-sided interval of 95%
_FORM = (
    "A gate is a table such as\n[vlind.lp]\nmax_regression = 10.0\n"
    "with max_regression, floor or ceiling; confidence and inconclusive stand at the top of the file."
)


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of one metric, in the metric's unit.

    Attributes:
        max_regression: Largest allowed difference to the baseline in the worse direction.
        floor: Smallest allowed value of the candidate.
        ceiling: Largest allowed value of the candidate.
        better: Better direction, for a metric without its own direction.
    """

    max_regression: Annotated[float, msgspec.Meta(ge=0)] | None = None
    floor: float | None = None
    ceiling: float | None = None
    better: Better | None = None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings at the top of a gates file; `_file_type` adds a table for each benchmark.

    Attributes:
        confidence: One-sided confidence of every verdict about a regression.
        inconclusive: Effect of an inconclusive gate: exit code 2 ("error"), 1 ("fail") or 0 ("pass").
    """

    confidence: Annotated[float, msgspec.Meta(ge=0.5, lt=1)] = 0.95
    inconclusive: Inconclusive = "error"


@cache
def _file_type() -> type[Settings]:
    """A gates file: the settings, and benchmark -> metric -> limits."""
    tables: list[Any] = [(name, dict[str, Limits], msgspec.field(default_factory=dict)) for name in all_benchmarks()]
    made = msgspec.defstruct("GatesFile", tables, bases=(Settings,), frozen=True, forbid_unknown_fields=True)
    return cast(type[Settings], made)


@dataclass(frozen=True)
class Gate:
    """One metric's limits.

    Attributes:
        metric: Which.
        better: Better direction of the metric.
        limits: Limits of the metric.
    """

    metric: Metric
    better: Better
    limits: Limits


@dataclass(frozen=True)
class Gates:
    """The gates of a file, and the confidence of a verdict.

    Attributes:
        gates: Gates in the order of the file's benchmarks.
        confidence: One-sided confidence of every verdict about a regression.
        inconclusive: Effect of an inconclusive gate.
    """

    gates: list[Gate]
    confidence: float
    inconclusive: Inconclusive


@dataclass(frozen=True)
class Check:
    """The verdict on one limit of one metric.

    Attributes:
        metric: Which.
        rule: "max_regression", "floor" or "ceiling".
        allowed: Limit of the rule.
        verdict: "passed", "regressed" or "inconclusive".
        candidate: The candidate's value: over the shared samples for a regression, over its own samples for a floor or
            ceiling.
        baseline: The baseline's value over the shared samples; None for a floor or ceiling.
        worse_by: (low, high): by how much the candidate is worse, with the gates' confidence at each end; None for a
            floor or ceiling.
        n: Number of samples that the metric covers.
        clusters: Number of clusters of these samples; None if an earlier version measured a floor or ceiling.
        reason: The verdict in a sentence.
    """

    metric: Metric
    rule: Literal["max_regression", "floor", "ceiling"]
    allowed: float
    verdict: Verdict
    candidate: float
    baseline: float | None
    worse_by: tuple[float, float] | None
    n: int
    clusters: int | None
    reason: str

    @property
    def limit(self) -> str:
        """The rule and its limit as a short text."""
        return f"{'' if self.rule == 'max_regression' else self.rule} {self.allowed:g}".strip()


@dataclass(frozen=True)
class GateReport:
    """Every check of a gate run.

    Attributes:
        checks: Checks in the order of the gates.
        notes: Numbers of samples that the runs do not share, and the notes of the runs.
        confidence: One-sided.
        inconclusive: Effect of an inconclusive check.
    """

    checks: list[Check]
    notes: list[str]
    confidence: float
    inconclusive: Inconclusive

    @property
    def exit_code(self) -> int:
        """Exit code: 0 passed, 1 regressed, 2 could not judge."""
        codes = {"error": 2, "fail": 1, "pass": 0}
        verdicts = {check.verdict for check in self.checks}
        if "regressed" in verdicts:
            return 1
        return codes[self.inconclusive] if "inconclusive" in verdicts else 0

    @property
    def verdict(self) -> str:
        """The verdict on the run in a sentence."""
        total = len(self.checks)
        of = {kind: sum(check.verdict == kind for check in self.checks) for kind in ("regressed", "inconclusive")}
        if of["regressed"]:
            return f"Regressed: {of['regressed']} of {total} checks failed."
        if of["inconclusive"]:
            outcome = {"error": "could not judge", "fail": "counted as a failure", "pass": "let through"}
            return f"Inconclusive: {of['inconclusive']} of {total} checks cannot tell ({outcome[self.inconclusive]})."
        return f"Passed: {total} checks."

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON value."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "confidence": self.confidence,
            "inconclusive": self.inconclusive,
            "notes": self.notes,
            "checks": [
                {
                    "metric": check.metric.key,
                    "rule": check.rule,
                    "allowed": check.allowed,
                    "verdict": check.verdict,
                    "candidate": check.candidate,
                    "baseline": check.baseline,
                    "worse_by": check.worse_by,
                    "n": check.n,
                    "clusters": check.clusters,
                    "reason": check.reason,
                }
                for check in self.checks
            ],
        }

    def to_markdown(self, title: str) -> str:
        """The report as markdown, for a GitHub step summary.

        Args:
            title: The run and its baseline.
        """
        marks = {"passed": "✅", "regressed": "❌", "inconclusive": "⚠️"}
        lines = [
            f"### napo-bench gate, {html.escape(title, quote=False)}: {self.verdict}",
            "",
            f"| | metric | baseline | candidate | worse by ({self.confidence:.0%} sure) | limit | n |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        for check in self.checks:
            baseline, candidate, worse_by, n = cells_of(check)
            metric = f"`{check.metric.key}` {check.metric.arrow}"
            cells = (marks[check.verdict], metric, baseline, candidate, worse_by, check.limit, n)
            lines.append(f"| {' | '.join(cells)} |")
        failed = [check for check in self.checks if check.verdict != "passed"]
        lines += ["", *(f"- `{check.metric.key}`: {check.reason}" for check in failed)]
        lines += [f"- {html.escape(note, quote=False)}" for note in self.notes]
        return "\n".join(lines).rstrip() + "\n"

    def to_junit(self, title: str) -> str:
        """The report as a JUnit XML document.

        Args:
            title: The run and its baseline.
        """
        inconclusive = {"error": "error", "fail": "failure", "pass": "skipped"}[self.inconclusive]
        tags = {"regressed": "failure", "inconclusive": inconclusive}
        found = [tags.get(check.verdict) for check in self.checks]
        suite = ElementTree.Element(
            "testsuite",
            name=_printable(f"napo-bench gate, {title}"),
            tests=str(len(found)),
            failures=str(found.count("failure")),
            errors=str(found.count("error")),
            skipped=str(found.count("skipped")),
        )
        for check, tag in zip(self.checks, found, strict=True):
            name = f"{check.metric.name} {check.rule} {check.allowed:g}"
            case = ElementTree.SubElement(suite, "testcase", classname=check.metric.benchmark, name=name)
            if tag is not None:
                ElementTree.SubElement(case, tag, message=check.reason)
        if self.notes:
            ElementTree.SubElement(suite, "system-out").text = "\n".join(map(_printable, self.notes))
        return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """The text without the control characters that XML does not allow."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def cells_of(check: Check) -> tuple[str, str, str, str]:
    """Baseline, candidate, worse by and n of a check, as text."""
    baseline = "" if check.baseline is None else check.metric.format(check.baseline)
    worse_by = "" if check.worse_by is None else _range(check.metric, check.worse_by)
    return baseline, check.metric.format(check.candidate), worse_by, size_text(check.n, check.clusters)


def load_gates(path: Path) -> Gates:
    """Read a gates file.

    Raises:
        NapoBenchError: not TOML, no gates, an unknown metric or key, or a value of the wrong kind.
    """
    try:
        document = tomllib.loads(files.read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise NapoBenchError(f"{path} is not valid TOML: {error}.", _FORM) from None
    try:
        content = msgspec.convert(document, _file_type())
    except msgspec.ValidationError as error:
        raise NapoBenchError(f"{path}: {error}.", _unknown_field_hint(str(error)) + _FORM) from None
    tables: dict[str, dict[str, Limits]] = {name: getattr(content, name) for name in all_benchmarks()}
    gates = [
        _gate(f"{benchmark}.{name}", limits, path)
        for benchmark, table in tables.items()
        for name, limits in table.items()
    ]
    if not gates:
        raise NapoBenchError(f"{path} holds no gate.", _FORM)
    return Gates(gates, content.confidence, content.inconclusive)


def check_gates(candidate: RunResult, baseline: RunResult, gates: Gates) -> GateReport:
    """Check every gate: a candidate against a baseline.

    A regression is a verdict about the paired interval: regressed if the candidate is worse by more than allowed with
    the given confidence, passed if the candidate is not worse by more than allowed with the same confidence, and
    inconclusive otherwise. A floor or ceiling is a verdict about the candidate's value, and for a mapped number
    (`napo-bench judge map`) about its interval.

    Raises:
        NapoBenchError: a run lacks a gated metric, the runs were scored against different data or in different ways,
            a run's metrics are not those of its samples, or its numbers are in doubt.
    """
    checks: list[Check] = []
    notes: list[str] = []
    for benchmark in dict.fromkeys(gate.metric.benchmark for gate in gates.gates):
        own = [gate for gate in gates.gates if gate.metric.benchmark == benchmark]
        new = _gated(benchmark, own, candidate, "candidate")
        if new.mapped_from:
            compare.require_no_doubt(benchmark, new, "candidate")
            checks += [check for gate in own for check in _of_mapped(gate, new, gates.confidence)]
            notes += [f"{benchmark}, candidate: {remark}" for remark in new.remarks]
            continue
        old = _gated(benchmark, own, baseline, "baseline")
        compare.require_same_data(benchmark, candidate, baseline)
        compare.require_same_settings(benchmark, new, old)
        compare.require_no_doubt(benchmark, new, "candidate")
        compare.require_no_doubt(benchmark, old, "baseline")
        compare.require_stated_values(benchmark, new, "candidate")
        compare.require_stated_values(benchmark, old, "baseline")
        pairs = compare.pair_samples(benchmark, new, old)
        notes += compare.remarks(benchmark, new, old)
        if pairs.unshared:
            notes.append(f"{benchmark}: {len(pairs.keys)} samples are in both runs, {pairs.unshared} in one only")
        level = 2 * gates.confidence - 1
        covered, uncovered = compare.covered_metrics([gate.metric for gate in own], pairs)
        if uncovered:
            raise NapoBenchError(
                f"Could not judge: {uncovered[0]}.", "Evaluate both runs on the same samples of the benchmark."
            )
        paired = compare.paired_metrics(covered, pairs, level)
        for gate, metric in zip(own, paired, strict=True):
            checks += _checks(gate, metric, new, gates.confidence)
    return GateReport(checks, notes, gates.confidence, gates.inconclusive)


def _unknown_field_hint(error: str) -> str:
    """The fields that are nearest to the unknown one that msgspec names, if it names one."""
    found = re.search(r"unknown field `([^`]*)`", error)
    if found is None:
        return ""
    kind = Limits if "$." in error else _file_type()
    near = nearest(found[1], kind.__struct_fields__)
    return f"Did you mean {' or '.join(near)}? " if near else ""


def _gate(key: str, limits: Limits, path: Path) -> Gate:
    metric = metric_named(key, str(path))
    if limits.max_regression is None and limits.floor is None and limits.ceiling is None:
        raise NapoBenchError(f"{path}: the gate {key} has no limit.", _FORM)
    better = limits.better or metric.better
    if better is None:
        raise NapoBenchError(f'{path}: {key} has no better direction; say better = "higher" or "lower".')
    if metric.better not in (None, better):
        raise NapoBenchError(f"{path}: {key} says better = {better!r}, but {metric.better} is better there.")
    return Gate(metric, better, limits)


def _gated(benchmark: str, gates: Iterable[Gate], run: RunResult, which: str) -> BenchmarkResult:
    hint = "Evaluate that benchmark too, or give a gates file that names only what both runs hold: --gates FILE"
    if benchmark not in run.benchmarks:
        there = ", ".join(run.benchmarks) or "none"
        raise NapoBenchError(f"The gates name {benchmark}, but the {which} holds only: {there}.", hint)
    result = run.benchmarks[benchmark]
    for gate in gates:
        if gate.metric.name not in result.metrics:
            there = ", ".join(result.metrics) or "none"
            raise NapoBenchError(f"The gates name {gate.metric.key}, but the {which} holds only: {there}.", hint)
    return result


def _checks(gate: Gate, paired: compare.PairedMetric, candidate: BenchmarkResult, confidence: float) -> list[Check]:
    checks = []
    if gate.limits.max_regression is not None:
        checks.append(_regression(gate, gate.limits.max_regression, paired, confidence))
    if gate.limits.floor is not None:
        checks.append(_absolute(gate, "floor", gate.limits.floor, candidate))
    if gate.limits.ceiling is not None:
        checks.append(_absolute(gate, "ceiling", gate.limits.ceiling, candidate))
    return checks


def _regression(gate: Gate, allowed: float, paired: compare.PairedMetric, confidence: float) -> Check:
    low, high = paired.interval
    worse_by = (low, high) if gate.better == "lower" else (-high, -low)
    needed = _least_n(gate.metric, allowed, 1 - confidence)
    measured = f"worse by {_range(gate.metric, worse_by)} with {confidence:.0%} confidence, {allowed:g} allowed"
    about = f" about {paired.clusters} pictures" if paired.clusters < paired.n else ""
    samples = f"{paired.n} samples{about}"
    verdict: Verdict
    if worse_by[0] > allowed and paired.clusters >= _FEWEST:
        verdict, reason = "regressed", measured
    elif paired.clusters < needed:
        verdict, reason = "inconclusive", f"n too small: {samples}, {needed} needed; {measured}"
    elif worse_by[1] <= allowed:
        verdict, reason = "passed", measured
    else:
        verdict, reason = "inconclusive", f"n too small: {samples} cannot tell; {measured}"
    return Check(
        gate.metric,
        "max_regression",
        allowed,
        verdict,
        paired.candidate,
        paired.baseline,
        worse_by,
        paired.n,
        paired.clusters,
        reason,
    )


def _absolute(gate: Gate, kind: Literal["floor", "ceiling"], limit: float, candidate: BenchmarkResult) -> Check:
    stated = candidate.metrics[gate.metric.name]
    broken = stated.value < limit if kind == "floor" else stated.value > limit
    verdict: Verdict
    if broken:
        relation = "below the floor" if kind == "floor" else "above the ceiling"
        verdict, reason = "regressed", f"{gate.metric.format(stated.value)} is {relation} of {limit:g}"
    elif stated.n == 0 or not candidate.complete:
        verdict, reason = "inconclusive", f"measured over a part of the benchmark (n = {stated.n})"
    else:
        verdict, reason = "passed", f"{gate.metric.format(stated.value)} keeps the {kind} of {limit:g}"
    return Check(gate.metric, kind, limit, verdict, stated.value, None, None, stated.n, stated.clusters, reason)


def _of_mapped(gate: Gate, candidate: BenchmarkResult, confidence: float) -> list[Check]:
    """The verdicts on a mapped number: both ends of its interval must be on the same side of the limit.

    Raises:
        NapoBenchError: a limit needs samples, or more confidence than the interval has.
    """
    stated = candidate.metrics[gate.metric.name]
    origin = f"{gate.metric.key} of the candidate is mapped from {candidate.mapped_from}"
    if gate.limits.max_regression is not None:
        raise NapoBenchError(
            f"{origin}, so no sample can be compared with the baseline's.",
            "Gate the run that was mapped, or set a floor or a ceiling in place of max_regression.",
        )
    if confidence > _OF_MAPPED:
        raise NapoBenchError(
            f"{origin}: its interval is {_OF_MAPPED:.1%} sure at each end; the gates want {confidence:.1%}.",
            f"Set confidence = {_OF_MAPPED:g} or less.",
        )
    checks = []
    limits: tuple[tuple[Literal["floor", "ceiling"], float | None], ...]
    limits = (("floor", gate.limits.floor), ("ceiling", gate.limits.ceiling))
    for rule, limit in limits:
        if limit is None:
            continue
        low, high = stated.ci95
        measured = f"{' to '.join(map(gate.metric.format, stated.ci95))} (mapped from {candidate.mapped_from})"
        verdict: Verdict
        if high < limit if rule == "floor" else low > limit:
            verdict, reason = "regressed", f"{measured} breaks the {rule} of {limit:g}"
        elif (low < limit if rule == "floor" else high > limit) or not candidate.complete:
            verdict, reason = "inconclusive", f"{measured} cannot tell about the {rule} of {limit:g}"
        else:
            verdict, reason = "passed", f"{measured} keeps the {rule} of {limit:g}"
        checks.append(
            Check(gate.metric, rule, limit, verdict, stated.value, None, None, stated.n, stated.clusters, reason)
        )
    return checks


def _least_n(metric: Metric, allowed: float, tail: float) -> int:
    """The number of samples that runs need so that no regression larger than allowed is possible even if they agree on
    every sample.
    """
    if metric.high is None or not 0 < allowed < metric.high:
        return _FEWEST
    return max(_FEWEST, math.ceil(math.log(tail) / math.log(1 - allowed / metric.high)))


def _range(metric: Metric, ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.{metric.decimals}f} to {ends[1]:+.{metric.decimals}f}"
