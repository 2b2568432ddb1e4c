"""VLind-Bench: response rows -> pairs of answers -> counts of instances -> BenchmarkResult."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.question import Answer, Answers, Question
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import ScoreOptions, empty_doubt, empty_note, measure
from napo_bench.benchmarks.unanswered import kept_fields
from napo_bench.benchmarks.vlind import METRICS
from napo_bench.benchmarks.vlind.data import Vlind
from napo_bench.benchmarks.vlind.instance import BEST_IMG_ID, Instance
from napo_bench.benchmarks.vlind.official import data_files
from napo_bench.benchmarks.vlind.prompts import Statement
from napo_bench.benchmarks.vlind.score import STYLES, instance_counts, parse_answer, passes
from napo_bench.core.errors import NapoBenchError

Passed = dict[tuple[str, str], bool]
"""(test, image id) -> whether both statements are answered right, for the existing pairs."""


def score_vlind(data: Vlind, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    """Score VLind-Bench's answers.

    Over a part of the answers, an instance counts if its pairs of CK, VP and CB exist, and a pair of LP.

    Raises:
        NapoBenchError: no instance has all its tests.
    """
    given = {answer.question: answer for answer in answers}
    rule = data.rule_of(given)
    instances = data.instances(rule)
    texts = answers.texts
    samples: list[dict[str, Any]] = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for instance, questions in instances:
        passed = _passed(questions, given)
        counts = _counts(passed, instance.good_images)
        if counts is None:
            continue
        best = instance.counterfactual[instance.best_images[rule]]
        sample = _sample(instance, best.name(data.folder.parent), questions, given, counts, data.folder.parent)
        samples.append(sample)
        groups.setdefault(f"concept/{instance.concept}", []).append(sample)
        for style, ids in STYLES.items():
            of_style = _counts(passed, [image for image in instance.good_images if int(image) in ids])
            if of_style is not None:
                groups.setdefault(f"style/{style}", []).append(sample | {"counts": of_style})
    if not samples:
        raise NapoBenchError(
            f"{options.source}: no instance has its pairs of ck, vp and cb and one of lp.",
            "An instance is scored over both statements of each of its four tests.",
        )
    notes = [*answers.notes, *empty_note(texts)]
    total = len(instances)
    if left_out := total - len(samples):
        notes.append(f"{left_out} of {total} instances left out: a pair of ck, vp or cb is missing, or every lp")
    if unclear := sum(parse_answer(text) == "NA" for text in texts):
        notes.append(f"{unclear} of {len(texts)} answers are neither True nor False and pass nothing")
    return BenchmarkResult(
        metrics=measure(samples, METRICS),
        breakdown={group: measure(groups[group], METRICS) for group in sorted(groups)},
        complete=answers.is_complete,
        notes=notes,
        doubts=empty_doubt(texts),
        settings=_settings(data, rule),
        unanswered=answers.unanswered,
        samples=samples,
    )


def _settings(data: Vlind, rule: str) -> dict[str, Any]:
    """The layout, and the choice of the image of VP and CB if the choice is not VLind-Bench's own."""
    layout = "data.json" if data_files(data.folder)[0].name == "data.json" else "one row an image"
    return {"layout": layout} | ({"best_image": rule} if rule != BEST_IMG_ID else {})


def _passed(questions: Sequence[Question], given: Mapping[Question, Answer]) -> Passed:
    passed = {}
    for first, second in zip(questions[::2], questions[1::2], strict=True):
        if first in given and second in given:
            statement: Statement = first.item
            passed[statement.key.test, statement.key.image_id] = passes(given[first].text, given[second].text)
    return passed


def _counts(passed: Passed, images: Collection[str]) -> dict[str, float] | None:
    """The counts of an instance, with LP over `images`; None if a test has no pair."""
    single = {test: right for (test, _), right in passed.items() if test != "lp"}
    lp = {image: right for (test, image), right in passed.items() if test == "lp" and image in images}
    if len(single) < 3 or not lp:
        return None
    return instance_counts(single["ck"], single["vp"], single["cb"], lp)


def _sample(
    instance: Instance,
    image: str,
    questions: Sequence[Question],
    given: Mapping[Question, Answer],
    counts: dict[str, float],
    data_dir: Path,
) -> dict[str, Any]:
    return {
        "sample_id": f"{instance.concept}/{instance.context_id}",
        "unit": "instance",
        "concept": instance.concept,
        "prompt": instance.context,
        "image": image,
        "responses": [
            _response(question.item, given[question], data_dir) for question in questions if question in given
        ],
        "counts": counts,
    }


def _response(statement: Statement, answer: Answer, data_dir: Path) -> dict[str, Any]:
    return {
        **statement.key._asdict(),
        "text": answer.text,
        "prompt": statement.prompt,
        "image": statement.picture.name(data_dir),
        "expected": statement.expected,
        "correct": parse_answer(answer.text) == statement.expected,
        **kept_fields(answer.row),
    }
