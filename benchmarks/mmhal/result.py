"""MMHal-Bench: response rows -> judge replies -> ratings -> BenchmarkResult."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napo_bench.benchmarks.mmhal import METRICS
from napo_bench.benchmarks.mmhal.official import Answer, Question, load_judge_template, load_questions, read_answers
from napo_bench.benchmarks.mmhal.score import parse_rating, question_counts
from napo_bench.benchmarks.result import BenchmarkResult
from napo_bench.benchmarks.scoring import Row, ScoreOptions, empty_doubt, empty_note, match_ids, measure
from napo_bench.benchmarks.unanswered import kept_thoughts, reason, unanswered_note
from napo_bench.core import files
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.thoughts import Marks, split_thoughts
from napo_bench.engines.judge import NO_JUDGE_HINT, REQUEST, Judge, Reply, judge_settings, tokens_note

_WITHOUT_RATING = 0.05
_REPLIES_SHOWN = 3
_REPLY_LENGTH = 200
_TRIED = 3


def score_mmhal(rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score MMHal-Bench's responses; see `scoring.score`.

    The judge rates every answer. Without a judge, the replies that the rows hold are read; where there are none, the
    result has the responses as samples, no metrics, and a note that says what is missing. A reply without a rating
    counts as 0; an answer that the judge's endpoint refuses to rate is left out.

    Raises:
        NapoBenchError: more than one reply, and more than 5% of them, hold no rating.
    """
    folder = data_dir / "mmhal"
    questions = load_questions(folder)
    answers = read_answers(rows, options.source)
    match = match_ids(
        [answer.key for answer in answers],
        [question.key for question in questions],
        source=options.source,
        allow_partial=options.allow_partial,
        noun="question",
        reasons=[reason(row) for row in rows],
    )
    thoughts = {answers[index].key: kept_thoughts(rows[index]) for index in match.indices}
    given = {answers[index].key: answers[index] for index in match.indices}
    asked = [question for question in questions if question.key in given]
    matched = [given[question.key] for question in asked]
    notes = match.notes + empty_note(answer.text for answer in matched)
    doubts = empty_doubt(answer.text for answer in matched)
    replies = (
        _rate(options.judge, asked, matched, folder)
        if options.judge
        else _stored_replies(matched, options.source, options.thinking_marks)
    )
    if replies is None:
        return BenchmarkResult(
            metrics={},
            complete=False,
            doubts=doubts,
            notes=[*notes, f"not rated: there is no judge. {NO_JUDGE_HINT}"],
            unanswered=match.unanswered,
            samples=[
                _sample(question, answer, data_dir) | thoughts[answer.key]
                for question, answer in zip(asked, matched, strict=True)
            ],
        )
    refused = [
        {"sample_id": f"{question.index}", "reason": f"refused by the judge: {reply.refused}"}
        for question, reply in zip(asked, replies, strict=True)
        if reply.refused
    ]
    if refused:
        notes.append(unanswered_note(refused, len(replies), "unrated"))
    notes += _require_ratings([reply for reply in replies if not reply.refused])
    samples = []
    groups: dict[str, list[dict[str, float]]] = {}
    for question, answer, reply in zip(asked, matched, replies, strict=True):
        if reply.refused:
            continue
        counts = question_counts(reply.value)
        sample = _sample(question, answer, data_dir) | thoughts[answer.key]
        samples.append(sample | _judged(reply) | {"counts": counts})
        groups.setdefault(f"question_type/{question.question_type}", []).append(counts)
    return BenchmarkResult(
        metrics=measure([sample["counts"] for sample in samples], METRICS),
        breakdown={group: measure(counts, METRICS) for group, counts in groups.items()},
        complete=not match.notes and not refused,
        notes=[*notes, tokens_note(replies)],
        doubts=doubts,
        settings={"judge": judge_settings(replies)},
        unanswered=[*match.unanswered, *refused],
        samples=samples,
    )


def _rate(judge: Judge, asked: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Reply[int]]:
    template = load_judge_template(folder)
    prompts = [question.judge_prompt(template, answer.text) for question, answer in zip(asked, answers, strict=True)]
    return judge.ask(prompts, parse_rating)


def try_judge(judge: Judge, data_dir: Path) -> None:
    """Let the judge rate a human's answer, so that a wrong URL, key or model is found before answers are generated.

    Raises:
        NapoBenchError: the judge cannot be reached, or refuses the key, the model, or three prompts in a row.
    """
    folder = data_dir / "mmhal"
    template = load_judge_template(folder)
    judge.reach([asked.judge_prompt(template, asked.gt_answer) for asked in load_questions(folder)[:_TRIED]])


def _require_ratings(replies: Sequence[Reply[int]]) -> list[str]:
    """A note on replies without a rating, or none. Raises NapoBenchError where there are too many to be a measurement.

    One reply alone is always a note.
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


def _stored_replies(answers: Sequence[Answer], source: str, marks: Marks) -> list[Reply[int]] | None:
    """The replies that the rows hold, None where a row holds none."""
    replies = []
    for answer in answers:
        if answer.judge_reply is None:
            return None
        where = f"{source}, judge_reply of {answer.key.image_id}"
        text = files.field(answer.judge_reply, "text", str, where)
        _, said = split_thoughts(text, marks)
        replies.append(
            Reply(
                value=None if said is None else parse_rating(said),
                text=text,
                model=files.field(answer.judge_reply, "model", str, where),
                reported_model=files.field(answer.judge_reply, "reported_model", str, where),
                prompt_tokens=files.field(answer.judge_reply, "prompt_tokens", int, where),
                completion_tokens=files.field(answer.judge_reply, "completion_tokens", int, where),
                request=answer.judge_reply.get("request", REQUEST),
            )
        )
    return replies


def _judged(reply: Reply[int]) -> dict[str, Any]:
    stored = asdict(reply)
    del stored["refused"]
    if stored["request"] == REQUEST:
        del stored["request"]
    return {"rating": stored.pop("value"), "judge_reply": stored}


def _sample(question: Question, answer: Answer, data_dir: Path) -> dict[str, Any]:
    return {
        "sample_id": f"{question.index}",
        "unit": "question",
        "question_type": question.question_type,
        "image_id": question.image_id,
        "image": str(question.image.relative_to(data_dir)),
        "prompt": question.question,
        "response": answer.text,
        "expected": question.gt_answer,
    }
