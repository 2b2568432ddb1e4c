"""Replies of judges -> the fields of a sample and the settings of a result, and back; see `judged` for the fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from napo_bench.benchmarks.judged import Counts, mean_counts
from napo_bench.core import files
from napo_bench.core.thoughts import Marks, split_thoughts
from napo_bench.engines.judge import REQUEST, Reply, judge_settings

_BESIDE = ("value", "refused")
_LEFT_OUT = {"fingerprint": "", "request": REQUEST}
"""Fields of a stored reply that are left out if they have this value."""


def stored_fields(
    replies: Mapping[str, Sequence[Reply[Any]]], counts: Mapping[str, Sequence[Counts]]
) -> dict[str, Any]:
    """The fields of a sample with the ratings of its answer.

    Args:
        replies: Judge -> its replies, in the order of the repetitions.
        counts: Judge -> the counts of each reply.
    """
    given = [
        (judge, repeat, reply, counts[judge][repeat])
        for judge, own in replies.items()
        for repeat, reply in enumerate(own)
    ]
    if len(given) == 1:
        _, _, reply, own = given[0]
        return {"rating": reply.value, "judge_reply": _stored(reply), "counts": dict(own)}
    entries = [
        {"judge": judge, "repeat": repeat, "rating": reply.value, "counts": dict(own), **_stored(reply)}
        for judge, repeat, reply, own in given
    ]
    rated = [reply.value for _, _, reply, _ in given if reply.value is not None]
    return {
        "rating": sum(rated) / len(rated) if rated else None,
        "judge_replies": entries,
        "counts": mean_counts([own for _, _, _, own in given]),
    }


def settings_of(replies: Mapping[str, Sequence[Sequence[Reply[Any]]]]) -> dict[str, Any]:
    """The settings of a result with the ratings of these judges.

    Args:
        replies: Judge -> its replies to each answer, in the order of the repetitions.
    """
    found = {}
    for judge, own in replies.items():
        repeats = max(map(len, own), default=1)
        settings = judge_settings([reply for repeated in own for reply in repeated])
        named = {"name": judge} if judge != settings["model"] else {}
        found[judge] = named | settings | ({"repeats": repeats} if repeats > 1 else {})
    return {"judges": found} if len(found) > 1 else {"judge": next(iter(found.values()))}


def read_stored(row: Mapping[str, Any], parse: Any, marks: Marks, where: str) -> dict[str, list[Reply[Any]]] | None:
    """Judge -> its replies to the answer of a row, in the order of the repetitions; None for a row without replies.

    Args:
        row: Sample of a run.
        parse: Function from a reply's text to its value; None if there is no value.
        marks: Marks around thoughts, which are not parsed.
        where: File and row, for messages.

    Raises:
        NapoBenchError: a field is missing or has another type.
    """
    if "judge_replies" in row:
        found: dict[str, list[Reply[Any]]] = {}
        for entry in files.field(row, "judge_replies", list, where):
            found.setdefault(files.field(entry, "judge", str, where), []).append(_read(entry, parse, marks, where))
        return found
    if row.get("judge_reply") is None:
        return None
    reply = _read(row["judge_reply"], parse, marks, where)
    return {reply.model: [reply]}


def _stored(reply: Reply[Any]) -> dict[str, Any]:
    fields = asdict(reply)
    return {
        name: value
        for name, value in fields.items()
        if name not in _BESIDE and (name not in _LEFT_OUT or value != _LEFT_OUT[name])
    }


def _read(stored: Any, parse: Any, marks: Marks, where: str) -> Reply[Any]:
    text = files.field(stored, "text", str, where)
    _, said = split_thoughts(text, marks)
    return Reply(
        value=None if said is None else parse(said),
        text=text,
        model=files.field(stored, "model", str, where),
        reported_model=files.field(stored, "reported_model", str, where),
        prompt_tokens=files.field(stored, "prompt_tokens", int, where),
        completion_tokens=files.field(stored, "completion_tokens", int, where),
        request=stored.get("request", REQUEST),
        fingerprint=files.field(stored, "fingerprint", str, where) if "fingerprint" in stored else "",
    )
