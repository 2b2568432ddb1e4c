"""Response rows for scoring: thoughts are separated from the answer, and prompts without an answer are marked.

A row may have five fields beside the official fields. `thoughts` is the text before the answer, and `thought_tokens`
is its number of tokens, if the number is known. `cut_off` says whether
the answer ends at the token limit, if the engine knows it. `sent` is the prompt as the model got it, in the first rows
of a run. `unanswered` is the reason why there is no answer: the
endpoint refused the prompt, or the text was cut off. Such a row is left out of the score, because an empty answer would
count as a good or a bad answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from napo_bench.core.thoughts import NEVER_ENDS, Marks, split_thoughts

_REASONS_SHOWN = 3


def answer_rows(rows: Sequence[Mapping[str, Any]], fields: Sequence[str], marks: Marks) -> list[dict[str, Any]]:
    """The rows with answers in place of the model's texts. Malformed rows stay unchanged, and the benchmark's reader
    names them.

    Args:
        rows: Response rows. A sample with several rows as `responses` becomes these rows.
        fields: Fields that may contain the answer. The first existing field is used.
        marks: Marks around thoughts.
    """
    single: list[Any] = []
    for row in rows:
        inner = row.get("responses")
        single += inner if isinstance(inner, list) else [row]
    return [_answer_row(row, fields, marks) if isinstance(row, dict) else row for row in single]


def reason(row: Mapping[str, Any]) -> str:
    """The reason why a row has no answer; "" if the row has an answer."""
    found = row.get("unanswered")
    return found if isinstance(found, str) else ""


def kept_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields `thoughts`, `thought_tokens`, `cut_off` and `sent` of a sample, if its row has them."""
    thoughts = {"thoughts": row["thoughts"]} if row.get("thoughts") else {}
    if (tokens := _thought_tokens(row)) is not None:
        thoughts["thought_tokens"] = tokens
    cut_off = {"cut_off": row["cut_off"]} if isinstance(row.get("cut_off"), bool) else {}
    return thoughts | cut_off | sent_field(row.get("sent"))


def thoughts_note(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One note with the number of answers with thoughts and the tokens of the thoughts, or none."""
    thinking = [row for row in rows if isinstance(row, Mapping) and (row.get("thoughts") or _thought_tokens(row))]
    if not thinking:
        return []
    counts = [count for row in thinking if (count := _thought_tokens(row)) is not None]
    total = f"{sum(counts)} tokens, {sum(counts) / len(counts):.0f} each" if counts else "number of tokens unknown"
    known = f" (known of {len(counts)})" if 0 < len(counts) < len(thinking) else ""
    return [f"thoughts in {len(thinking)} of {len(rows)} answers: {total}{known}"]


def _thought_tokens(row: Mapping[str, Any]) -> int | None:
    count = row.get("thought_tokens")
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def sent_field(prompt: object) -> dict[str, Any]:
    """The field `sent` of a row or of a sample; no field without a prompt."""
    return {"sent": prompt} if isinstance(prompt, dict) else {}


def unanswered_note(unanswered: Sequence[Mapping[str, str]], total: int, what: str = "unanswered") -> str:
    """One line with the number of unanswered prompts, the number of all prompts, and the reasons."""
    counts = Counter(entry["reason"] for entry in unanswered)
    shown = [f"{reason.rstrip('.')} ({count})" for reason, count in counts.most_common(_REASONS_SHOWN)]
    if len(counts) > _REASONS_SHOWN:
        shown.append(f"{len(counts) - _REASONS_SHOWN} more reasons")
    return f"{len(unanswered)} of {total} prompts {what} and left out: {'; '.join(shown)}"


def _answer_row(row: dict[str, Any], fields: Sequence[str], marks: Marks) -> dict[str, Any]:
    field = next((name for name in fields if name in row), None)
    if field is None or not isinstance(row[field], str):
        return row
    thoughts, answer = split_thoughts(row[field], marks)
    if answer is None:
        return {**row, field: "", "thoughts": thoughts, "unanswered": NEVER_ENDS}
    return {**row, field: answer, "thoughts": thoughts} if thoughts else row
