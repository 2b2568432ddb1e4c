"""Thoughts that a reasoning model writes before its answer, told apart by the marks around them.

The one place that knows what is a thought: answers of every model, stored responses and replies of a judge go through
`split_thoughts`. It imports nothing of the project but its exception.
"""

from __future__ import annotations

from collections.abc import Sequence

from napo_bench.core.errors import NapoBenchError

Marks = tuple[tuple[str, str], ...]
"""(opening, closing) marks of thoughts."""

DEFAULT_MARKS: Marks = (("<think>", "</think>"),)
NEVER_ENDS = "cut off inside its thoughts"
"""Why a text that opens a thought and never closes it is no answer."""

_NONE = "none"


def split_thoughts(text: str, marks: Marks = DEFAULT_MARKS) -> tuple[str, str | None]:
    """(thoughts, answer) of a model's text.

    The answer is what follows the last closing mark, without white space around it. The opening mark may be missing,
    because some chat templates put it into the prompt. A text without marks is an answer as it is.

    Args:
        text: As the model wrote it.
        marks: What encloses thoughts.

    Returns:
        The thoughts with their marks, "" if there are none; the answer, None if a thought is opened and never closed.
    """
    end = max((at + len(closing) for _, closing in marks if (at := text.rfind(closing)) >= 0), default=0)
    answer = text[end:]
    if any(opening in answer for opening, _ in marks):
        return text, None
    return text[:end], answer.strip() if end else answer


def read_marks(options: Sequence[str] | None) -> Marks:
    """The marks of an option's values.

    Args:
        options: Each "OPENING,CLOSING", or only "none"; DEFAULT_MARKS if there are none.

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
