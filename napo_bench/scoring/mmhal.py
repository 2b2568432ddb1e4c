"""MMHal-Bench: response rows -> judge replies -> ratings -> BenchmarkResult."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.mmhal.official import Answer, Question, load_judge_template, load_questions, read_answers
from benchmarks.mmhal.score import METRICS, parse_rating, question_counts
from napo_bench import files
from napo_bench.judge.client import NO_JUDGE_HINT, Judge, Reply, judge_settings, tokens_note
from napo_bench.results import BenchmarkResult
from napo_bench.scoring.base import Row, ScoreOptions, empty_note, match_ids, measure


def score_mmhal(rows: Sequence[Row], data_dir: Path, options: ScoreOptions) -> BenchmarkResult:
    """Score MMHal-Bench's responses; see `scoring.score`.

    The judge rates every answer. Without a judge, the replies that the rows hold are read; where there are none, the
    result has the responses as samples, no metrics, and a note that says what is missing.
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
    )
    given = {answers[index].key: answers[index] for index in match.indices}
    asked = [question for question in questions if question.key in given]
    matched = [given[question.key] for question in asked]
    notes = match.notes + empty_note(answer.text for answer in matched)
    replies = (
        _rate(options.judge, asked, matched, folder) if options.judge else _stored_replies(matched, options.source)
    )
    if replies is None:
        return BenchmarkResult(
            metrics={},
            complete=False,
            notes=[*notes, f"not rated: there is no judge. {NO_JUDGE_HINT}"],
            samples=[_sample(*pair, data_dir) for pair in zip(asked, matched, strict=True)],
        )
    if unrated := sum(reply.value is None for reply in replies):
        notes.append(f"{unrated} of {len(replies)} judge replies hold no single rating and count as 0")
    samples = []
    groups: dict[str, list[dict[str, float]]] = {}
    for question, answer, reply in zip(asked, matched, replies, strict=True):
        counts = question_counts(reply.value)
        samples.append(_sample(question, answer, data_dir) | _judged(reply) | {"counts": counts})
        groups.setdefault(f"question_type/{question.question_type}", []).append(counts)
    return BenchmarkResult(
        metrics=measure("mmhal", [sample["counts"] for sample in samples], METRICS),
        breakdown={group: measure("mmhal", counts, METRICS) for group, counts in groups.items()},
        complete=not match.notes,
        notes=[*notes, tokens_note(replies)],
        settings={"judge": judge_settings(replies)},
        samples=samples,
    )


def _rate(judge: Judge, asked: Sequence[Question], answers: Sequence[Answer], folder: Path) -> list[Reply[int]]:
    template = load_judge_template(folder)
    prompts = [question.judge_prompt(template, answer.text) for question, answer in zip(asked, answers, strict=True)]
    return judge.ask(prompts, parse_rating)


def _stored_replies(answers: Sequence[Answer], source: str) -> list[Reply[int]] | None:
    """The replies that the rows hold, None where a row holds none."""
    replies = []
    for answer in answers:
        if answer.judge_reply is None:
            return None
        where = f"{source}, judge_reply of {answer.key.image_id}"
        text = files.field(answer.judge_reply, "text", str, where)
        replies.append(
            Reply(
                value=parse_rating(text),
                text=text,
                model=files.field(answer.judge_reply, "model", str, where),
                reported_model=files.field(answer.judge_reply, "reported_model", str, where),
                prompt_tokens=files.field(answer.judge_reply, "prompt_tokens", int, where),
                completion_tokens=files.field(answer.judge_reply, "completion_tokens", int, where),
            )
        )
    return replies


def _judged(reply: Reply[int]) -> dict[str, Any]:
    stored = asdict(reply)
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
