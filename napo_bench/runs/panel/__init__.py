"""The panel: what a gain of a run over a baseline was bought with.

A gain may come from something else than sight: from a shift of the yes-rate, from shorter captions, from fewer objects
in them, from another format of the answers. The panel measures these. Every measure is a function of sums of counts, so
its difference has a paired interval that resamples clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from napo_bench.benchmarks import benchmark_labels
from napo_bench.benchmarks.reading import Reading
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.core.errors import NapoBenchError
from napo_bench.runs.compare import (
    covered_metrics,
    pair_samples,
    paired_answers,
    paired_metrics,
    require_same_data,
    require_same_settings,
    shared_metrics,
)
from napo_bench.runs.panel.captions import caption_measures
from napo_bench.runs.panel.choices import choice_measures
from napo_bench.runs.panel.rows import (
    ALL,
    ALL_CAPTIONS,
    ALL_CHOICES,
    ALL_OTHERS,
    CAPTIONS,
    GAINS,
    Built,
    Counts,
    Curve,
    Measure,
    Pair,
    PanelRow,
    Part,
    measured,
    share,
)
from napo_bench.runs.result import RunResult

EMPTY, CUT_OFF, IDENTICAL = "empty", "cut off at the token limit", "identical to the baseline's"


@dataclass(frozen=True)
class BenchmarkPanel:
    """The panel of one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        parts: Measures, by kind of answers.
        sentences: What is left of the gains, in words.
        notes: Measures that are left out, and the reason.
        curves: Curves over the length of captions.
    """

    benchmark: str
    parts: list[Part]
    sentences: list[str]
    notes: list[str]
    curves: list[Curve]

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
    answers = paired_answers(name, new, old)
    pairs: list[Pair] = [(mine, theirs) for mine, theirs, _ in answers]
    clusters = [cluster for _, _, cluster in answers]
    built = [
        Built(_gains(name, new, old)),
        *(build(pairs, clusters) for build in (choice_measures, caption_measures, _all_answers)),
    ]
    return BenchmarkPanel(
        name,
        [part for one in built for part in one.parts],
        [said for one in built for said in one.sentences],
        [note for one in built for note in one.notes],
        [curve for one in built for curve in one.curves],
    )


def _gains(name: str, new: BenchmarkResult, old: BenchmarkResult) -> list[Part]:
    wanted = [metric for metric in shared_metrics(name, new, old) if metric.in_table or metric.decides]
    if not wanted:
        return []
    pairs = pair_samples(name, new, old)
    metrics, _ = covered_metrics(wanted, pairs)
    rows = [
        PanelRow(
            f"{row.metric.label} {row.metric.arrow}".strip(),
            row.baseline,
            row.candidate,
            row.interval,
            row.metric.decimals,
        )
        for row in paired_metrics(metrics, pairs)
    ]
    return [Part(GAINS, rows)]


def _all_answers(pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    """The measures of any answer, for each kind of answers apart: most empty answers may be captions."""
    kinds: dict[str, list[int]] = {}
    for number, (reading, _) in enumerate(pairs):
        kinds.setdefault(_kind(reading), []).append(number)
    built = [
        _answers_of_kind(ALL if len(kinds) == 1 else kind, [pairs[n] for n in numbers], [clusters[n] for n in numbers])
        for kind, numbers in kinds.items()
    ]
    notes = dict.fromkeys(note for one in built for note in one.notes)
    return Built([part for one in built for part in one.parts], notes=list(notes))


def _kind(reading: Reading) -> str:
    if reading.caption is not None:
        return ALL_CAPTIONS
    return ALL_OTHERS if reading.choice is None else ALL_CHOICES


def _answers_of_kind(title: str, pairs: Sequence[Pair], clusters: Sequence[str]) -> Built:
    measures = [Measure(EMPTY, share("empty", "answers")), Measure(IDENTICAL, share("identical", "answers"))]
    notes = []
    if all(reading.cut_off is not None for pair in pairs for reading in pair):
        measures.insert(1, Measure(CUT_OFF, share("cut", "answers")))
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
    return Built([Part(title, measured(found, clusters, measures))], notes=notes)
