"""VLind-Bench: response rows -> pairs of answers -> counts of instances -> BenchmarkResult."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import Row, ScoreOptions, empty_doubt, empty_note, match_ids, measure
from napo_bench.benchmarks.unanswered import kept_thoughts, reason
from napo_bench.benchmarks.vlind import METRICS
from napo_bench.benchmarks.vlind.instance import Instance
from napo_bench.benchmarks.vlind.official import AnswerKey, data_files, load_instances, read_answers
from napo_bench.benchmarks.vlind.prompts import Question, questions
from napo_bench.benchmarks.vlind.score import STYLES, instance_counts, parse_answer, passes
from napo_bench.core.errors import NapoBenchError

Passed = dict[tuple[str, str], bool]
"""(test, image id) -> whether both statements are answered right, for the pairs that are there."""


def score_vlind(rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score VLind-Bench's responses; see `scoring.score`.

    Over a part of the answers, an instance counts where its pairs of CK, VP and CB are there, and one of LP.
    """
    folder = data_dir / "vlind"
    asked = [(instance, list(questions(instance))) for instance in load_instances(folder)]
    answers = read_answers(rows, options.source)
    match = match_ids(
        [answer.key for answer in answers],
        [question.key for _, instance_questions in asked for question in instance_questions],
        source=options.source,
        allow_partial=options.allow_partial,
        noun="answer",
        reasons=[reason(row) for row in rows],
    )
    thoughts = {answers[index].key: kept_thoughts(rows[index]) for index in match.indices}
    texts = {answers[index].key: answers[index].text for index in match.indices}
    samples: list[dict[str, Any]] = []
    groups: dict[str, list[dict[str, float]]] = {}
    for instance, instance_questions in asked:
        passed = _passed(instance_questions, texts)
        counts = _counts(passed, instance.good_images)
        if counts is None:
            continue
        samples.append(_sample(instance, instance_questions, texts, thoughts, counts, data_dir))
        groups.setdefault(f"concept/{instance.concept}", []).append(counts)
        for style, ids in STYLES.items():
            of_style = _counts(passed, [image for image in instance.good_images if int(image) in ids])
            if of_style is not None:
                groups.setdefault(f"style/{style}", []).append(of_style)
    if not samples:
        raise NapoBenchError(
            f"{options.source}: no instance has its pairs of ck, vp and cb and one of lp.",
            "An instance is scored over both statements of each of its four tests.",
        )
    notes = match.notes + empty_note(texts.values())
    if left_out := len(asked) - len(samples):
        notes.append(f"{left_out} of {len(asked)} instances left out: a pair of ck, vp or cb is missing, or every lp")
    if unclear := sum(parse_answer(text) == "NA" for text in texts.values()):
        notes.append(f"{unclear} of {len(texts)} answers are neither True nor False and pass nothing")
    return BenchmarkResult(
        metrics=measure([sample["counts"] for sample in samples], METRICS),
        breakdown={group: measure(groups[group], METRICS) for group in sorted(groups)},
        complete=not match.notes,
        notes=notes,
        doubts=empty_doubt(texts.values()),
        settings={"layout": "data.json" if data_files(folder)[0].name == "data.json" else "hub mirror"},
        unanswered=match.unanswered,
        samples=samples,
    )


def _passed(asked: Sequence[Question], texts: Mapping[AnswerKey, str]) -> Passed:
    return {
        (first.key.test, first.key.image_id): passes(texts[first.key], texts[second.key])
        for first, second in zip(asked[::2], asked[1::2], strict=True)
        if first.key in texts and second.key in texts
    }


def _counts(passed: Passed, images: Collection[str]) -> dict[str, float] | None:
    """The counts of an instance with LP over `images`; None where a test has no pair."""
    single = {test: right for (test, _), right in passed.items() if test != "lp"}
    lp = {image: right for (test, image), right in passed.items() if test == "lp" and image in images}
    if len(single) < 3 or not lp:
        return None
    return instance_counts(single["ck"], single["vp"], single["cb"], lp)


def _sample(
    instance: Instance,
    asked: Sequence[Question],
    texts: Mapping[AnswerKey, str],
    thoughts: Mapping[AnswerKey, dict[str, str]],
    counts: dict[str, float],
    data_dir: Path,
) -> dict[str, Any]:
    return {
        "sample_id": f"{instance.concept}/{instance.context_id}",
        "unit": "instance",
        "concept": instance.concept,
        "prompt": instance.context,
        "image": instance.counterfactual[instance.best_image].name(data_dir),
        "responses": [
            {
                "concept": instance.concept,
                "context_id": instance.context_id,
                "test": question.key.test,
                "statement": question.key.statement,
                "image_id": question.key.image_id,
                "text": texts[question.key],
                "prompt": question.prompt,
                "image": question.picture.name(data_dir),
                "expected": question.expected,
                "correct": parse_answer(texts[question.key]) == question.expected,
                **thoughts[question.key],
            }
            for question in asked
            if question.key in texts
        ],
        "counts": counts,
    }
