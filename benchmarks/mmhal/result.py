"""MMHal-Bench: response rows -> judge replies -> ratings -> BenchmarkResult."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from napo_bench.benchmarks.mmhal import METRICS
from napo_bench.benchmarks.mmhal.data import Mmhal
from napo_bench.benchmarks.mmhal.official import Item
from napo_bench.benchmarks.mmhal.score import parse_rating, question_counts
from napo_bench.benchmarks.question import Answer, Answers
from napo_bench.benchmarks.replies import read_stored, settings_of, stored_fields
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import ScoreOptions, empty_doubt, empty_note, measure, measure_judges
from napo_bench.benchmarks.unanswered import kept_fields, unanswered_note
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import Marks
from napo_bench.engines.judge import Judge, Reply, tokens_note
from napo_bench.engines.judge_options import NO_JUDGE_HINT

_WITHOUT_RATING = 0.05
_REPLIES_SHOWN = 3
_REPLY_LENGTH = 200
_TRIED = 3

Replies = dict[str, list[list[Reply[int]]]]
"""Judge -> its replies to each answer, in the order of the repetitions."""


def score_mmhal(data: Mmhal, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    """Score MMHal-Bench's answers.

    Each judge rates every answer. Without a judge, the replies in the rows are read. Without replies, the result has
    the responses as samples, no metrics, and a note about what is missing. A reply without a rating counts as 0. An
    answer that the endpoint of a judge refuses to rate is left out of every judge's numbers.

    Raises:
        NapoBenchError: more than one reply, and more than 5% of the replies of a judge, contain no rating.
    """
    notes = [*answers.notes, *empty_note(answers.texts)]
    doubts = empty_doubt(answers.texts)
    replies = (
        _rate(options.judges, answers, data)
        if options.judges
        else _stored_replies(answers, options.source, options.thinking_marks)
    )
    if replies is None:
        return BenchmarkResult(
            metrics={},
            complete=False,
            doubts=doubts,
            notes=[*notes, f"not rated: there is no judge. {NO_JUDGE_HINT.removesuffix('.')}"],
            unanswered=answers.unanswered,
            samples=[_sample(answer, data) for answer in answers],
        )
    reasons = [_refusal(replies, number) for number, _ in enumerate(answers)]
    refused = [
        {"sample_id": f"{_item(answer).index}", "reason": f"refused by the judge: {reason}"}
        for answer, reason in zip(answers, reasons, strict=True)
        if reason
    ]
    if refused:
        notes.append(unanswered_note(refused, len(reasons), "unrated"))
    for judge, own in replies.items():
        given = [reply for repeats in own for reply in repeats if not reply.refused]
        notes += _require_ratings(given, f" of {judge}" if len(replies) > 1 else "")
    samples = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, (answer, reason) in enumerate(zip(answers, reasons, strict=True)):
        if reason:
            continue
        rated = {judge: own[number] for judge, own in replies.items()}
        counts = {judge: [question_counts(reply.value) for reply in repeats] for judge, repeats in rated.items()}
        samples.append(_sample(answer, data) | stored_fields(rated, counts))
        groups.setdefault(f"question_type/{_item(answer).question_type}", []).append(samples[-1])
    return BenchmarkResult(
        metrics=measure(samples, METRICS),
        breakdown={
            **measure_judges(samples, METRICS),
            **{group: measure(rated, METRICS) for group, rated in groups.items()},
        },
        complete=answers.is_complete and not refused,
        notes=[
            *notes,
            tokens_note([reply for own in replies.values() for repeats in own for reply in repeats]),
        ],
        doubts=doubts,
        settings=settings_of(replies),
        unanswered=[*answers.unanswered, *refused],
        samples=samples,
    )


def _item(answer: Answer) -> Item:
    item: Item = answer.question.item
    return item


def _rate(judges: Sequence[Judge], answers: Answers, data: Mmhal) -> Replies:
    template = data.judge_template
    prompts = [_item(answer).judge_prompt(template, answer.text) for answer in answers]
    if len(judges) > 1:  # a wrong URL, key or model of the last judge is found before the first judge is paid
        for judge in judges:
            judge.ask(prompts[:_TRIED], parse_rating)
    return {judge.name: judge.rate(prompts, parse_rating) for judge in judges}


def _refusal(replies: Replies, number: int) -> str:
    """The first reason why a judge refuses to rate an answer; "" if every judge rates the answer."""
    return next((reply.refused for own in replies.values() for reply in own[number] if reply.refused), "")


def try_judge(judge: Judge, data: Mmhal) -> None:
    """Let the judge rate a human's answer, so that a wrong URL, key or model is found before answers are generated.

    Raises:
        NapoBenchError: the judge cannot be reached, or refuses the key, the model, or three prompts in a row.
    """
    template = data.judge_template
    judge.reach([item.judge_prompt(template, item.gt_answer) for item in data.items[:_TRIED]])


def _require_ratings(replies: Sequence[Reply[int]], of: str) -> list[str]:
    """A note on replies without a rating, or none. Raises NapoBenchError if there are too many for a measurement.

    A single reply without a rating is always a note.
    """
    if not replies:
        raise NapoBenchError(f"The judge{of} refuses to rate every answer.", "Ask another judge.")
    without = [reply.text for reply in replies if reply.value is None]
    if not without:
        return []
    found = f"{len(without)} of {len(replies)} judge replies{of} hold no single rating"
    if len(without) > 1 and len(without) > _WITHOUT_RATING * len(replies):
        shown = "\n".join(
            f"- {textwrap.shorten(text, _REPLY_LENGTH) or '(empty)'}" for text in without[:_REPLIES_SHOWN]
        )
        raise NapoBenchError(
            f"{found}, more than {_WITHOUT_RATING:.0%}: this is no measurement. A rating is read from "
            f'"Rating: 4", in this very form. The first replies:\n{shown}',
            "Ask another judge, or give this one other settings with --judge-request. The replies are kept; the same "
            "command asks again for those without a rating.",
        )
    return [f"{found} and count as 0"]


def _stored_replies(answers: Answers, source: str, marks: Marks) -> Replies | None:
    """The replies in the rows; None if a row has no reply."""
    found: Replies = {}
    for done, answer in enumerate(answers):
        where = f"{source}, judge's reply of {_item(answer).image_id}"
        stored = read_stored(answer.row, parse_rating, marks, where)
        if stored is None:
            return None
        if done == 0:
            found = {judge: [] for judge in stored}
        given, expected = ({j: len(r) for j, r in stored.items()}, {j: len(r[0]) if r else 0 for j, r in found.items()})
        if done and given != expected:
            raise NapoBenchError(
                f"{where}: the ratings are {given}, those of the first row are {expected}.",
                "Score the responses again with every judge: replies that are stored are not asked for again.",
            )
        for judge, replies in stored.items():
            found[judge].append(replies)
    return found


def _sample(answer: Answer, data: Mmhal) -> dict[str, Any]:
    item = _item(answer)
    return {
        "sample_id": f"{item.index}",
        "unit": "question",
        "question_type": item.question_type,
        "image_id": item.image_id,
        "image": str(item.image.relative_to(data.folder.parent)),
        "prompt": item.question,
        "response": answer.text,
        "expected": item.gt_answer,
        **kept_fields(answer.row),
    }
