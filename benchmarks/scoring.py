"""What all scorers share: their options, the reading of responses, the id check, and metrics with intervals."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo_bench.benchmarks.benchmark import Metric
from napo_bench.benchmarks.judged import GROUP, of_judge, ratings_of
from napo_bench.benchmarks.question import Answer, Answers, BenchmarkData, Question, Row
from napo_bench.benchmarks.result import MetricValue, cluster_of
from napo_bench.benchmarks.unanswered import reason, unanswered_note
from napo_bench.core import files, stats
from napo_bench.core.counts import CountTable
from napo_bench.core.errors import NapoBenchError, unknown_name
from napo_bench.core.judge_noise import NoiseIntervals, noise_intervals
from napo_bench.core.thoughts import DEFAULT_MARKS, Marks

if TYPE_CHECKING:
    from napo_bench.engines.judge import Judge


BOOTSTRAP_SEED = 0

_IDS_SHOWN = 5


@dataclass(frozen=True)
class ScoreOptions:
    """Options of scoring.

    Attributes:
        allow_partial: Whether to score the existing responses if ids are missing, duplicate or unknown.
        pipeline: Text pipeline that reads words: "official" or "closed_vocabulary".
        spacy_model: Name or path of the official pipeline's spaCy model; None is the benchmark's model.
        judges: Judges that rate answers.
        extractor: LLM that lists the objects of answers; None reads the words of answers.
        answers: Reading of yes/no answers: "exact" as published, or "lenient" by their first word.
        source: Source of the responses, for messages.
        thinking_marks: Marks around thoughts, which are not scored.

    Raises:
        NapoBenchError: there is no such pipeline; the nearest name is given.
    """

    allow_partial: bool = False
    pipeline: str = "official"
    spacy_model: str | None = None
    judges: tuple[Judge, ...] = ()
    extractor: Judge | None = None
    answers: str = "exact"
    source: str = "the responses"
    thinking_marks: Marks = DEFAULT_MARKS

    def __post_init__(self) -> None:
        from napo_bench.benchmarks.text import PIPELINES

        if self.pipeline not in PIPELINES:
            raise unknown_name("text pipeline", self.pipeline, PIPELINES)

    @property
    def judge(self) -> Judge | None:
        """The judge of a benchmark that asks one judge once; None if there is no judge.

        Raises:
            NapoBenchError: there are several judges, or the judge rates several times.
        """
        if len(self.judges) > 1 or any(judge.repeats > 1 for judge in self.judges):
            raise NapoBenchError(
                f"This benchmark asks one judge once; {len(self.judges)} judges, {self.judges[0].repeats} times each, "
                "are given.",
                "Give --judge-model once, and leave out --judge-repeats.",
            )
        return next(iter(self.judges), None)


@dataclass(frozen=True)
class IdMatch:
    """The rows to score.

    Attributes:
        indices: Index of a row for each expected id that has an answer, in the order of the expected ids.
        notes: Lines about each kind of difference; empty if every expected id has exactly one row with an answer.
        unanswered: {"sample_id", "reason"} of each expected id whose row has no answer.
    """

    indices: list[int]
    notes: list[str]
    unanswered: list[dict[str, str]]


def read_responses(path: Path) -> list[Row]:
    """The rows of a response file, a JSON list or JSON lines.

    Raises:
        NapoBenchError: the file does not exist, or a line is no JSON object. The error names the line.
    """
    text = files.read_text(path, "Give the file of stored responses.")
    if not text.lstrip().startswith("["):
        return files.read_jsonl(path)
    rows = files.read_json(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise NapoBenchError(f"{path}, row {number}: a JSON object is expected, {type(row).__name__} found.")
    return list(rows)


def match_answers(
    data: BenchmarkData,
    rows: Sequence[Row],
    given: Sequence[Question | Hashable],
    text_fields: Sequence[str],
    options: ScoreOptions,
) -> Answers:
    """Bring response rows and the benchmark's questions together.

    Args:
        data: The benchmark's data.
        rows: Response rows.
        given: The question of each row; its key if the benchmark has no such question.
        text_fields: The answer is in the first of these fields that a row has.
        options: How to score.

    Raises:
        NapoBenchError: as `match_ids`.
    """
    match = match_ids(
        given,
        data.expected(given),
        source=options.source,
        allow_partial=options.allow_partial,
        noun=data.noun,
        reasons=[reason(row) for row in rows],
    )
    answers = []
    for index in match.indices:
        question, row = given[index], rows[index]
        assert isinstance(question, Question)
        text = next((str(row[name]) for name in text_fields if name in row), "")
        answers.append(Answer(question, text, row))
    return Answers(answers, match.notes, match.unanswered)


def match_ids(
    given: Sequence[Hashable],
    expected: Iterable[Hashable],
    *,
    source: str,
    allow_partial: bool,
    noun: str = "id",
    reasons: Sequence[str] = (),
) -> IdMatch:
    """Match the ids of responses with those of the benchmark.

    Args:
        given: Id of each row.
        expected: Ids of the benchmark, without duplicates.
        source: Source of the rows, for messages.
        allow_partial: Whether to leave out unknown ids and all rows of a duplicate id except the first. Otherwise
            missing, unknown and duplicate ids are refused.
        noun: Word for an id in messages.
        reasons: Reason why each row has no answer; "" for a row with an answer. Empty if all rows have answers.

    Raises:
        NapoBenchError: no row has an expected id, no row has an answer, or ids differ without `allow_partial`; names
            and counts them.
    """
    first: dict[Hashable, int] = {}
    for index, key in enumerate(given):
        first.setdefault(key, index)
    expected = list(expected)
    known = set(expected)
    kinds = {
        "missing": [key for key in expected if key not in first],
        "duplicate": [key for key, count in Counter(given).items() if count > 1],
        "unknown": [key for key in first if key not in known],
    }
    notes = [_id_note(kind, noun, keys, len(expected)) for kind, keys in kinds.items() if keys]
    indices = [first[key] for key in expected if key in first]
    if not indices:
        raise NapoBenchError(
            f"{source}: none of the {len(expected)} {noun}s of the benchmark is there ({len(given)} rows).",
            "Give the responses of this benchmark, and its data folder.",
        )
    if notes and not allow_partial:
        raise NapoBenchError(
            f"{source}: " + "; ".join(notes) + ".",
            "Complete the responses, or score what is there with --allow-partial.",
        )
    unanswered = [
        {"sample_id": _id_text(given[index]), "reason": reasons[index]}
        for index in indices
        if reasons and reasons[index]
    ]
    if unanswered:
        notes.append(unanswered_note(unanswered, len(indices)))
        if len(unanswered) == len(indices):
            raise NapoBenchError(
                f"{source}: no prompt is answered. {notes[-1]}.",
                "Fix what the reasons name; the same command asks again. A model that is cut off inside its thoughts "
                "needs more tokens, or to think less: --request max_completion_tokens=8192 for an endpoint.",
            )
        indices = [index for index in indices if not reasons[index]]
    return IdMatch(indices, notes, unanswered)


def empty_note(responses: Iterable[str]) -> list[str]:
    """One note with the number of empty responses, or none."""
    count = sum(not response.strip() for response in responses)
    noun = "response" if count == 1 else "responses"
    return [f"{count} empty {noun}, scored like any other"] if count else []


def empty_doubt(responses: Iterable[str]) -> list[str]:
    """One line if more than half of the responses are empty, else none: empty responses measure nothing."""
    texts = list(responses)
    count = sum(not text.strip() for text in texts)
    if 2 * count <= len(texts):
        return []
    return [f"{count} of {len(texts)} responses are empty: the numbers measure nothing"]


def replaced_note(rows: Iterable[Row]) -> list[str]:
    """One note with the number of rows that contain U+FFFD, or none.

    U+FFFD replaces an incomplete character: tokens of a cut character, or half of a surrogate pair in an endpoint's
    reply.
    """
    count = sum(any(isinstance(value, str) and "\ufffd" in value for value in row.values()) for row in rows)
    noun = "response holds" if count == 1 else "responses hold"
    return [f"{count} {noun} U+FFFD in place of a character that could not be read"] if count else []


def measure(samples: Sequence[Mapping[str, Any]], metrics: Iterable[Metric]) -> dict[str, MetricValue]:
    """Values, 95% bootstrap intervals and n of metrics that share their samples; empty if there are no samples.

    Args:
        samples: Rows with "counts", and with what `cluster_of` reads.
        metrics: Metrics to compute.

    Raises:
        NapoBenchError: a metric needs a count that no sample has.
    """
    if not samples:
        return {}
    counts = CountTable.of([sample["counts"] for sample in samples])
    clusters = counts.by_cluster([cluster_of(sample) for sample in samples])
    sums = {name: math.fsum(counts.column(name).tolist()) for name in counts.names}
    wanted = {metric.name: metric for metric in metrics}
    values = {name: _value(metric, sums) for name, metric in wanted.items()}
    covered = {name: int((clusters.column(metric.count) > 0).sum()) for name, metric in wanted.items()}
    spans = {name: span for name, metric in wanted.items() if (span := metric.span(covered[name])) is not None}
    functions = {name: metric.function for name, metric in wanted.items()}
    intervals = stats.bootstrap_intervals(clusters, functions, seed=BOOTSTRAP_SEED, spans=spans)
    noise = _noise(samples, wanted, intervals)
    return {
        name: MetricValue(
            values[name],
            noise[name].both if name in noise else intervals[name],
            round(sums[metric.count]),
            covered[name],
            noise.get(name),
        )
        for name, metric in wanted.items()
    }


def _noise(
    samples: Sequence[Mapping[str, Any]], metrics: Mapping[str, Metric], pictures: Mapping[str, tuple[float, float]]
) -> dict[str, NoiseIntervals]:
    """What samples and judges each add to the intervals of metrics; empty if every answer has one rating."""
    ratings = ratings_of(samples)
    if not ratings:
        return {}
    return noise_intervals(
        ratings,
        [cluster_of(sample) for sample in samples],
        {name: metric.function for name, metric in metrics.items()},
        pictures,
        {name: (0.0, math.inf if metric.high is None else metric.high) for name, metric in metrics.items()},
        seed=BOOTSTRAP_SEED,
    )


def measure_judges(
    samples: Sequence[Mapping[str, Any]], metrics: Sequence[Metric]
) -> dict[str, dict[str, MetricValue]]:
    """Group of a breakdown -> the metrics as one of several judges rates; empty if one judge rated."""
    judges = dict.fromkeys(entry["judge"] for entry in (samples[0].get("judge_replies", []) if samples else []))
    if len(judges) < 2:
        return {}
    return {f"{GROUP}{judge}": measure([of_judge(sample, judge) for sample in samples], metrics) for judge in judges}


def _value(metric: Metric, sums: Mapping[str, float]) -> float:
    missing = metric.count
    try:
        if missing in sums:
            return float(metric.function(sums))
    except KeyError as error:
        missing = str(error.args[0])
        if missing in sums:
            raise
    raise NapoBenchError(
        f"The metric {metric.name!r} needs the count {missing!r}, which no sample has.",
        f"The samples' counts are {', '.join(sorted(sums))}.",
    )


def _id_note(kind: str, noun: str, keys: Sequence[Hashable], total: int) -> str:
    shown = ", ".join(map(_id_text, keys[:_IDS_SHOWN]))
    if len(keys) > _IDS_SHOWN:
        shown += f" and {len(keys) - _IDS_SHOWN} more"
    of = f" of {total}" if kind == "missing" else ""
    return f"{len(keys)}{of} {noun}s {kind}: {shown}"


def _id_text(key: Hashable) -> str:
    if isinstance(key, Question):
        key = key.key
    return "/".join(map(str, key)) if isinstance(key, tuple) else json.dumps(key, ensure_ascii=False)
