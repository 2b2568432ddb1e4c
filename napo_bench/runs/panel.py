"""The panel: what a gain of a run over a baseline was bought with.

A gain may come from something else than sight: from a shift of the yes-rate, from shorter captions, from fewer objects
in them, from another format of the answers. The panel measures these. Every measure is a function of sums of counts, so
its difference has a paired interval that resamples clusters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napo_bench.benchmarks import benchmark_labels, benchmark_named
from napo_bench.benchmarks.reading import Caption, Reading
from napo_bench.benchmarks.result import BenchmarkResult, cluster_of
from napo_bench.core import stats
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.signal import Detection
from napo_bench.runs.compare import (
    pair_samples,
    paired_metrics,
    require_same_data,
    require_same_settings,
    shared_metrics,
    shared_samples,
)
from napo_bench.runs.result import RunResult

HEDGES = (
    "i can't",
    "i cannot",
    "i can not",
    "i am unable",
    "i'm unable",
    "i am not able",
    "i'm not able",
    "i am not sure",
    "i'm not sure",
    "i don't know",
    "i do not know",
    "i'm sorry",
    "i am sorry",
    "as an ai",
    "as a language model",
    "it is unclear",
    "it's unclear",
    "it is not clear",
    "it's not clear",
    "it is difficult to",
    "it's difficult to",
    "it is hard to",
    "it's hard to",
    "it is impossible to",
    "cannot be determined",
    "can't be determined",
    "there may be",
    "there might be",
)
"""Phrases of a caption that refuses or hedges. A phrase counts where it is whole words, in any case."""

_HEDGE = re.compile(rf"\b(?:{'|'.join(map(re.escape, HEDGES))})\b")
_WORDS_SHOWN = (10, 20, 40, 80, 120)
_MENTIONS_SHOWN = (1, 2, 4, 8, 12)
_POINTS = 40

Counts = dict[str, float]
Pair = tuple[Reading, Reading]
"""The candidate's answer to a question, and the baseline's."""


@dataclass(frozen=True)
class Measure:
    """A number of a panel.

    Attributes:
        label: Label in tables.
        function: Function of the summed counts of one run.
        unit: "%" or "".
        decimals: Digits after the point.
    """

    label: str
    function: stats.MetricFunction
    unit: str = "%"
    decimals: int = 1


@dataclass(frozen=True)
class PanelRow:
    """A measure of two runs.

    Attributes:
        label: Label of the measure.
        baseline: Value of the baseline.
        candidate: Value of the candidate.
        interval: 95% interval of candidate - baseline.
        decimals: Digits after the point.
    """

    label: str
    baseline: float
    candidate: float
    interval: tuple[float, float]
    decimals: int

    @property
    def difference(self) -> float:
        """Candidate - baseline."""
        return self.candidate - self.baseline

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return not self.interval[0] <= 0 <= self.interval[1]

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """Baseline, candidate, difference and interval of the difference, as text."""
        number = f".{self.decimals}f"
        low, high = (_plain_zero(f"{end:+{number}}") for end in self.interval)
        return (
            _plain_zero(f"{self.baseline:{number}}"),
            _plain_zero(f"{self.candidate:{number}}"),
            _plain_zero(f"{self.difference:+{number}}"),
            f"[{low}, {high}]",
        )


@dataclass(frozen=True)
class Part:
    """Measures of one kind of answers.

    Attributes:
        title: Kind of the answers.
        rows: Measures.
    """

    title: str
    rows: list[PanelRow]

    def row(self, label: str) -> PanelRow:
        """The row with this label. Raises KeyError if there is none."""
        for row in self.rows:
            if row.label == label:
                return row
        raise KeyError(label)


@dataclass(frozen=True)
class BenchmarkPanel:
    """The panel of one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        parts: Measures, by kind of answers.
        sentences: What is left of the gains, in words.
        notes: Measures that are left out, and the reason.
    """

    benchmark: str
    parts: list[Part]
    sentences: list[str]
    notes: list[str]

    def part(self, title: str) -> Part:
        """The part with this title. Raises KeyError if there is none."""
        for part in self.parts:
            if part.title == title:
                return part
        raise KeyError(title)


@dataclass(frozen=True)
class Panel:
    """What the gains of one run over a baseline were bought with.

    Attributes:
        candidate: Name of the run.
        baseline: Name of the baseline.
        benchmarks: Panel of each benchmark that both runs have.
        notes: Benchmarks that are left out, and the reason.
    """

    candidate: str
    baseline: str
    benchmarks: list[BenchmarkPanel]
    notes: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """The sentences of all benchmarks, each with the label of its benchmark."""
        return [sentence for found in self.benchmarks for sentence in _labelled(found)]

    @property
    def headline(self) -> str:
        """The first sentence about captions, else the first sentence; "" if there is none."""
        of_captions = [found for found in self.benchmarks if any(part.title == CAPTIONS for part in found.parts)]
        said = [_labelled(found)[-1] for found in of_captions if found.sentences]
        return next(iter([*said, *self.sentences]), "")

    @property
    def remarks(self) -> list[str]:
        """The notes of the panel and of its benchmarks, each with the labels of the benchmarks that it is about."""
        label_of = benchmark_labels()
        notes = dict.fromkeys(note for found in self.benchmarks for note in found.notes)
        about = {note: [found.benchmark for found in self.benchmarks if note in found.notes] for note in notes}
        told = [f"{', '.join(label_of[name] for name in names)}: {note}." for note, names in about.items()]
        return [*self.notes, *told]


def _labelled(found: BenchmarkPanel) -> list[str]:
    return [f"{benchmark_labels()[found.benchmark]}: {sentence}" for sentence in found.sentences]


GAINS, CHOICES, CAPTIONS, CURVES, ALL = "Numbers", "Yes/no answers", "Captions", "Curves of captions", "All answers"
UNPARSABLE, YES_RATE, SENSITIVITY, CRITERION = "unparsable", "yes-rate", "sensitivity d'", "criterion c"
ACCURACY, ACCURACY_AT = "accuracy of parsable answers", "accuracy at the baseline's yes-rate"
CHAIR, COVER, WORDS, MENTIONS = "CHAIR", "Cover", "words a caption", "mentions a caption"
CHAIR_AT_COVER, CHAIR_AT_LENGTH, HEDGING = "CHAIR at equal coverage", "CHAIR at equal length", "refusing or hedging"
EMPTY, CUT_OFF, IDENTICAL = "empty", "cut off at the token limit", "identical to the baseline's"


def panel(candidate: RunResult, baseline: RunResult, names: tuple[str, str] = ("candidate", "baseline")) -> Panel:
    """What the gains of a run over a baseline were bought with.

    Args:
        candidate: Run, with samples.
        baseline: Run to compare with, with samples.
        names: Names of the two.
    """
    found, notes = [], []
    for name in (name for name in candidate.benchmarks if name in baseline.benchmarks):
        new, old = candidate.benchmarks[name], baseline.benchmarks[name]
        try:
            require_same_data(name, candidate, baseline)
            require_same_settings(name, new, old)
            found.append(_of_benchmark(name, new, old))
        except NapoBenchError as error:
            notes.append(f"Left out. {error.message}")
    return Panel(*names, found, notes)


def _of_benchmark(name: str, new: BenchmarkResult, old: BenchmarkResult) -> BenchmarkPanel:
    readings = benchmark_named(name).readings
    pairs: list[Pair] = []
    clusters: list[str] = []
    for (_, _), (mine, theirs) in shared_samples(name, new, old).items():
        given = {reading.key: reading for reading in readings(theirs, old.settings)}
        both = [(one, given[one.key]) for one in readings(mine, new.settings) if one.key in given]
        pairs += both
        clusters += [cluster_of(mine)] * len(both)
    parts, notes, sentences = _gains(name, new, old), list[str](), list[str]()
    for build in (_choices, _captions, _all_answers):
        more, said, lacking = build(pairs, clusters)
        parts += more
        sentences += said
        notes += lacking
    return BenchmarkPanel(name, parts, sentences, notes)


Built = tuple[list[Part], list[str], list[str]]
"""Parts, sentences, and notes about what is left out."""


def _gains(name: str, new: BenchmarkResult, old: BenchmarkResult) -> list[Part]:
    metrics = [metric for metric in shared_metrics(name, new, old) if metric.in_table or metric.decides]
    if not metrics:
        return []
    rows = [
        PanelRow(
            f"{row.metric.label} {row.metric.arrow}".strip(),
            row.baseline,
            row.candidate,
            row.interval,
            row.metric.decimals,
        )
        for row in paired_metrics(metrics, pair_samples(name, new, old))
    ]
    return [Part(GAINS, rows)]


def _rows(
    counts: Sequence[tuple[Counts, Counts]], clusters: Sequence[str], measures: Sequence[Measure]
) -> list[PanelRow]:
    """The measures of both runs.

    Args:
        counts: Counts of each answer in the candidate, and in the baseline.
        clusters: Cluster of each answer.
        measures: Measures to compute.
    """
    new, old = (stats.by_cluster([pair[side] for pair in counts], clusters) for side in (0, 1))
    functions = {measure.label: measure.function for measure in measures}
    intervals = stats.paired_intervals(new, old, functions)
    sums = [{name: np.float64(sum(row[name] for row in side)) for name in side[0]} for side in (new, old)]
    return [
        PanelRow(
            measure.label,
            float(measure.function(sums[1])),
            float(measure.function(sums[0])),
            intervals[measure.label],
            measure.decimals,
        )
        for measure in measures
    ]


def _share(part: str, whole: str, unit: float = 100.0) -> stats.MetricFunction:
    """Unit * part / whole; 0 if whole is 0."""
    return lambda sums: unit * sums[part] / np.maximum(sums[whole], 1)


def _all_answers(pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    if not pairs:
        return [], [], []
    measures = [Measure(EMPTY, _share("empty", "answers")), Measure(IDENTICAL, _share("identical", "answers"))]
    notes = []
    if all(reading.cut_off is not None for pair in pairs for reading in pair):
        measures.insert(1, Measure(CUT_OFF, _share("cut", "answers")))
    else:
        notes.append(
            "answers that were cut off at the token limit are not counted, because a run does not say which these are"
        )

    def counts(reading: Reading, other: Reading, is_baseline: bool) -> Counts:
        return {
            "answers": 1.0,
            "empty": float(not reading.text.strip()),
            "cut": float(bool(reading.cut_off)),
            "identical": float(is_baseline or reading.text == other.text),
        }

    found = [(counts(new, old, False), counts(old, new, True)) for new, old in pairs]
    return [Part(ALL, _rows(found, clusters, measures))], [], notes


def _choices(pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    """The measures of yes/no answers. Answers that are neither count as unparsable, and in no other measure."""
    there = [number for number, (new, old) in enumerate(pairs) if new.choice is not None and old.choice is not None]
    if not there:
        return [], [], []

    def counts(reading: Reading, baseline: Reading) -> Counts:
        assert reading.choice is not None and baseline.choice is not None
        given, expected = reading.choice.given, reading.choice.expected
        told = given is not None
        return {
            "choices": 1.0,
            "unparsable": float(not told),
            "parsable": float(told),
            "yes": float(given is True),
            "signals": float(told and expected),
            "hits": float(given is True and expected),
            "noises": float(told and not expected),
            "false alarms": float(given is True and not expected),
            "right": float(given is expected),
            "baseline's parsable": float(baseline.choice.given is not None),
            "baseline's yes": float(baseline.choice.given is True),
        }

    pairs, clusters = [pairs[number] for number in there], [clusters[number] for number in there]
    found = [(counts(new, old), counts(old, old)) for new, old in pairs]
    measures = [
        Measure(UNPARSABLE, _share("unparsable", "choices")),
        Measure(YES_RATE, _share("yes", "parsable")),
        Measure(ACCURACY, _share("right", "parsable")),
    ]
    expected = {new.choice.expected for new, _ in pairs if new.choice is not None}
    if len(expected) == 1:
        rows = _rows(found, clusters, measures)
        word = "Yes" if expected == {True} else "No"
        note = f"sensitivity and criterion need questions of both kinds, and every right answer is {word}"
        return [Part(CHOICES, rows)], [], [note]
    measures[2:2] = [
        Measure(SENSITIVITY, lambda sums: _detection(sums).sensitivity, "", 2),
        Measure(CRITERION, lambda sums: _detection(sums).criterion, "", 2),
    ]
    measures.append(Measure(ACCURACY_AT, _accuracy_at_baseline))
    part = Part(CHOICES, _rows(found, clusters, measures))
    gain, left = part.row(ACCURACY), part.row(ACCURACY_AT)
    return [part], [_sentence("accuracy", gain, [(left, "an equal yes-rate")], sign=1)], []


def _detection(sums: stats.Sums) -> Detection:
    return Detection(sums["signals"], sums["hits"], sums["noises"], sums["false alarms"])


def _accuracy_at_baseline(sums: stats.Sums) -> Any:
    yes_rate = sums["baseline's yes"] / np.maximum(sums["baseline's parsable"], 1)
    return 100 * _detection(sums).accuracy_at(yes_rate)


def _captions(pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    there = [number for number, (new, old) in enumerate(pairs) if new.caption is not None and old.caption is not None]
    if not there:
        return [], [], []
    pairs, clusters = [pairs[number] for number in there], [clusters[number] for number in there]
    measures = [
        Measure(WORDS, _share("words", "captions", 1.0), ""),
        Measure(HEDGING, _share("hedging", "captions")),
    ]
    about = [(_text_counts(new.text), _text_counts(old.text)) for new, old in pairs]
    if not all(_placed(reading) for pair in pairs for reading in pair):
        note = (
            "CHAIR at equal coverage and at equal length, and the curves, need the place of each mention in the text. "
            "A run does not have these places: score its answers again. Objects that an extractor lists have no place"
        )
        return [Part(CAPTIONS, _rows(about, clusters, measures))], [], [note]
    grid = _Grid.of(pairs)
    counts = []
    for (new, old), (mine, theirs) in zip(pairs, about, strict=True):
        length = min(len(new.text.split()), len(old.text.split()))
        sides = [mine | grid.counts(new, length), theirs | grid.counts(old, length)]
        for side in sides:
            side["baseline's covered"] = sides[1]["covered"]
            side["candidate's covered"] = sides[0]["covered"]
        counts.append((sides[0], sides[1]))
    chair = [
        Measure(CHAIR, _share("hallucinated", "mentions")),
        Measure(COVER, _share("covered", "objects")),
        Measure(CHAIR_AT_COVER, grid.chair_at_equal_cover),
        Measure(CHAIR_AT_LENGTH, _share("hallucinated at length", "mentions at length")),
        Measure(MENTIONS, _share("mentions", "captions", 1.0), ""),
    ]
    curves = grid.measures()
    rows = _rows(counts, clusters, [*chair, *measures, *curves])
    part, curve = Part(CAPTIONS, rows[: len(chair) + len(measures)]), rows[len(chair) + len(measures) :]
    left = [(part.row(CHAIR_AT_COVER), "equal coverage"), (part.row(CHAIR_AT_LENGTH), "equal length")]
    sentence = _sentence("CHAIR", part.row(CHAIR), left, sign=-1)
    return [part, *([Part(CURVES, curve)] if curve else [])], [sentence], []


def _placed(reading: Reading) -> bool:
    return reading.caption is not None and reading.caption.mentions is not None


def _text_counts(text: str) -> Counts:
    plain = " ".join(text.lower().replace("\u2019", "'").split())
    return {"captions": 1.0, "words": float(len(plain.split())), "hedging": float(bool(_HEDGE.search(plain)))}


@dataclass(frozen=True)
class _Grid:
    """The points of the curves over the first k words and over the first k mentions of captions.

    Attributes:
        words: Numbers of words, ascending; the last is at least the number of words before any mention ends.
        mentions: Numbers of mentions that are shown.
    """

    words: tuple[int, ...]
    mentions: tuple[int, ...]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> _Grid:
        """Points that cut the mentions of both runs into equal parts, and the points that are shown."""
        captions = [_mentions(reading) for pair in pairs for reading in pair]
        ends = np.array([mention.place + 1 for mentions in captions for mention in mentions] or [1])
        most = max(map(len, captions), default=0)
        points = np.quantile(ends, np.linspace(0, 1, _POINTS), method="nearest").tolist()
        shown = [k for k in _WORDS_SHOWN if k < ends.max()]
        return cls(tuple(sorted({*points, *shown})), tuple(k for k in _MENTIONS_SHOWN if k < most))

    def counts(self, reading: Reading, length: int) -> Counts:
        """The counts of a caption: of the whole, of its first `length` words, and at each point of the curves."""
        mentions, caption = _mentions(reading), reading.caption
        assert caption is not None
        places = [mention.place for mention in mentions]
        wrong = np.concatenate([[0], np.cumsum([mention.hallucinated for mention in mentions])])
        covered, seen = [0], set[str]()
        for mention in mentions:
            if mention.object and not mention.hallucinated:
                seen.add(mention.object)
            covered.append(len(seen))
        found = {"objects": float(caption.objects)}

        def cut(suffix: str, count: int) -> None:
            found[f"mentions{suffix}"] = float(count)
            found[f"hallucinated{suffix}"] = float(wrong[count])
            found[f"covered{suffix}"] = float(covered[count])

        cut("", len(mentions))
        within = np.searchsorted(places, [length, *self.words])
        cut(" at length", int(within[0]))
        for number, count in enumerate(within[1:]):
            cut(f" at {self.words[number]} words", int(count))
        for k in self.mentions:
            cut(f" at {k} mentions", min(k, len(mentions)))
        return found

    def measures(self) -> list[Measure]:
        """CHAIR and Cover at the points of the curves that are shown."""
        at = {f"{k} words": f"first {k} words" for k in _WORDS_SHOWN if k in self.words}
        at |= {f"{k} mentions": f"first {k} mentions" if k > 1 else "first mention" for k in self.mentions}
        return [
            measure
            for point, label in at.items()
            for measure in (
                Measure(f"CHAIR, {label}", _share(f"hallucinated at {point}", f"mentions at {point}")),
                Measure(f"Cover, {label}", _share(f"covered at {point}", "objects")),
            )
        ]

    def chair_at_equal_cover(self, sums: stats.Sums) -> Any:
        """CHAIR at the point of a run's curve over words at which it covers as much as both whole runs do."""
        target = np.minimum(sums["baseline's covered"], sums["candidate's covered"])
        covered, wrong, mentions = (
            np.stack([0 * sums[name], *(sums[f"{name} at {k} words"] for k in self.words)])
            for name in ("covered", "hallucinated", "mentions")
        )
        last = len(self.words)
        below = (covered <= target).sum(axis=0) - 1
        above = np.minimum(below + 1, last)
        low, high = (np.take_along_axis(covered, index[None], axis=0)[0] for index in (below, above))
        part = np.where(high > low, (target - low) / np.where(high > low, high - low, 1), 0)

        def between(counts: Any) -> Any:
            first, second = (np.take_along_axis(counts, index[None], axis=0)[0] for index in (below, above))
            return first + part * (second - first)

        number = between(mentions)
        return 100 * between(wrong) / np.where(number > 0, number, 1)


def _mentions(reading: Reading) -> Sequence[Any]:
    caption: Caption | None = reading.caption
    assert caption is not None and caption.mentions is not None
    return sorted(caption.mentions, key=lambda mention: mention.place)


def _sentence(what: str, gain: PanelRow, left: Sequence[tuple[PanelRow, str]], sign: int) -> str:
    """What is left of a gain: "The CHAIR gain of 14.0 [11.1, 16.9] keeps 11.2 [8.0, 14.1] at equal coverage."

    Args:
        what: Name of the number that gained.
        gain: The number.
        left: Numbers under equal conditions, each with its condition.
        sign: 1 if a higher number is better, else -1.
    """
    low, high = gain.interval
    is_loss = sign * gain.difference < 0 and not low <= 0 <= high
    sign = -sign if is_loss else sign
    kept = " and ".join(f"{_gain_text(row, sign)} at {condition}" for row, condition in left)
    if low <= 0 <= high:
        return f"The {what} gain of {_gain_text(gain, sign)} is no more than chance; it is {kept}."
    return f"The {what} {'loss' if is_loss else 'gain'} of {_gain_text(gain, sign)} keeps {kept}."


def _gain_text(row: PanelRow, sign: int) -> str:
    ends = sorted(sign * end for end in row.interval)
    low, high = (_plain_zero(f"{end:.1f}") for end in ends)
    return f"{_plain_zero(f'{sign * row.difference:.1f}')} [{low}, {high}]"


def _plain_zero(text: str) -> str:
    """The number without the sign of a zero."""
    return text.lstrip("+-") if not text.strip("+-0.") else text
