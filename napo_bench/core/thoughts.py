"""Thoughts that a reasoning model writes before its answer, recognised by the marks around them.

Only this module knows what a thought is: answers of every model, stored responses and replies of a judge go through
`split_thoughts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from napo_bench.core.errors import NapoBenchError

Marks = tuple[tuple[str, str], ...]
"""The (opening, closing) marks of thoughts."""

DEFAULT_MARKS: Marks = (("<think>", "</think>"),)
NEVER_ENDS = "cut off inside its thoughts"
"""Reason why a text with an unclosed thought is no answer."""

_NONE = "none"


def split_thoughts(text: str, marks: Marks = DEFAULT_MARKS) -> tuple[str, str | None]:
    """The thoughts and the answer of a model's text.

    The answer is the text after the last closing mark, without white space around it. The opening mark may be missing,
    because some chat templates put the mark into the prompt. Capitals do not matter. A text without marks is an answer.

    Args:
        text: Text of the model.
        marks: Marks around thoughts.

    Returns:
        The thoughts with their marks, "" if there are none; the answer, None if a thought is opened and never closed.
    """
    end = max((found.end() for _, closing in marks for found in _found(closing, text)), default=0)
    answer = text[end:]
    if any(_found(opening, answer) for opening, _ in marks):
        return text, None
    return text[:end], answer.strip() if end else answer


def _found(mark: str, text: str) -> list[re.Match[str]]:
    return list(re.finditer(re.escape(mark), text, re.IGNORECASE))


def read_marks(options: Sequence[str] | None) -> Marks:
    """The marks of an option's values.

    Args:
        options: Values "OPENING,CLOSING", or only "none"; DEFAULT_MARKS if there are no values.

    Raises:
        NapoBenchError: a value is no pair of marks.
    """
    if not options:
        return DEFAULT_MARKS
    if list(options) == [_NONE]:
        return ()
    marks = []
    for option in options:
        opening, _, closing = option.partition(",")
        if not opening or not closing or "," in closing:
            raise NapoBenchError(
                f"--thinking-marks is {option!r}; an opening and a closing mark with a comma between are expected.",
                f"For example --thinking-marks '{','.join(DEFAULT_MARKS[0])}', or {_NONE} to keep thoughts.",
            )
        marks.append((opening, closing))
    return tuple(marks)
