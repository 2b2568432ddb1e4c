"""MMHal-Bench: response rows -> judge replies -> ratings -> BenchmarkResult."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from napo_bench.benchmarks.mmhal import METRICS
from napo_bench.benchmarks.mmhal.data import Mmhal
from napo_bench.benchmarks.mmhal.official import Item
from napo_bench.benchmarks.mmhal.score import parse_rating, question_counts
from napo_bench.benchmarks.question import Answer, Answers
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import ScoreOptions, empty_doubt, empty_note, measure
from napo_bench.benchmarks.unanswered import kept_fields, unanswered_note
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import Marks, split_thoughts
from napo_bench.engines.judge import NO_JUDGE_HINT, REQUEST, Judge, Reply, judge_settings, tokens_note

_WITHOUT_RATING = 0.05
_REPLIES_SHOWN = 3
_REPLY_LENGTH = 200
_TRIED = 3


def score_mmhal(data: Mmhal, answers: Answers, options: ScoreOptions) -> BenchmarkResult:
    """Score MMHal-Bench's answers.

    The judge rates every answer. Without a judge, the replies in the rows are read. Without replies, the result has the
    responses as samples, no metrics, and a note about what is missing. A reply without a rating counts as 0. An answer
    that the judge's endpoint refuses to rate is left out.

    Raises:
        NapoBenchError: more than one reply, and more than 5% of the replies, contain no rating.
    """
    notes = [*answers.notes, *empty_note(answers.texts)]
    doubts = empty_doubt(answers.texts)
    replies = (
        _rate(options.judge, answers, data)
        if options.judge
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
    refused = [
        {"sample_id": f"{_item(answer).index}", "reason": f"refused by the judge: {reply.refused}"}
        for answer, reply in zip(answers, replies, strict=True)
        if reply.refused
    ]
    if refused:
        notes.append(unanswered_note(refused, len(replies), "unrated"))
    notes += _require_ratings([reply for reply in replies if not reply.refused])
    samples = []
    groups: dict[str, list[dict[str, Any]]] = {}
    for answer, reply in zip(answers, replies, strict=True):
        if reply.refused:
            continue
        counts = question_counts(reply.value)
        samples.append(_sample(answer, data) | _judged(reply) | {"counts": counts})
        groups.setdefault(f"question_type/{_item(answer).question_type}", []).append(samples[-1])
    return BenchmarkResult(
        metrics=measure(samples, METRICS),
        breakdown={group: measure(rated, METRICS) for group, rated in groups.items()},
        complete=answers.is_complete and not refused,
        notes=[*notes, tokens_note(replies)],
        doubts=doubts,
        settings={"judge": judge_settings(replies)},
        unanswered=[*answers.unanswered, *refused],
        samples=samples,
    )


def _item(answer: Answer) -> Item:
    item: Item = answer.question.item
    return item


def _rate(judge: Judge, answers: Answers, data: Mmhal) -> list[Reply[int]]:
    template = data.judge_template
    return judge.ask([_item(answer).judge_prompt(template, answer.text) for answer in answers], parse_rating)


def try_judge(judge: Judge, data: Mmhal) -> None:
    """Let the judge rate a human's answer, so that a wrong URL, key or model is found before answers are generated.

    Raises:
        NapoBenchError: the judge cannot be reached, or refuses the key, the model, or three prompts in a row.
    """
    template = data.judge_template
    judge.reach([item.judge_prompt(template, item.gt_answer) for item in data.items[:_TRIED]])


def _require_ratings(replies: Sequence[Reply[int]]) -> list[str]:
    """A note on replies without a rating, or none. Raises NapoBenchError if there are too many for a measurement.

    A single reply without a rating is always a note.
    """
    if not replies:
        raise NapoBenchError("The judge refuses to rate every answer.", "Ask another judge.")
    without = [reply.text for reply in replies if reply.value is None]
    if not without:
        return []
    found = f"{len(without)} of {len(replies)} judge replies hold no single rating"
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


def _stored_replies(answers: Answers, source: str, marks: Marks) -> list[Reply[int]] | None:
    """The replies in the rows; None for a row without a reply."""
    replies = []
    for answer in answers:
        stored = answer.row.get("judge_reply")
        if stored is None:
            return None
        where = f"{source}, judge_reply of {_item(answer).image_id}"
        text = files.field(stored, "text", str, where)
        _, said = split_thoughts(text, marks)
        replies.append(
            Reply(
                value=None if said is None else parse_rating(said),
                text=text,
                model=files.field(stored, "model", str, where),
                reported_model=files.field(stored, "reported_model", str, where),
                prompt_tokens=files.field(stored, "prompt_tokens", int, where),
                completion_tokens=files.field(stored, "completion_tokens", int, where),
                request=stored.get("request", REQUEST),
            )
        )
    return replies


def _judged(reply: Reply[int]) -> dict[str, Any]:
    stored = asdict(reply)
    del stored["refused"]
    if stored["request"] == REQUEST:
        del stored["request"]
    return {"rating": stored.pop("value"), "judge_reply": stored}


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
