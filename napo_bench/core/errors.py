"""The one exception of the project, and its message about a mistyped name.

A leaf: `benchmarks` and `trainers` raise it too, and it imports nothing of the project.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CLOSE, _AS_CLOSE, _MOST = 0.6, 0.1, 3
_FEW = 12


class NapoBenchError(Exception):
    """An error that the user can fix.

    The command line prints it as one panel, without a traceback, and exits with code 2.

    Args:
        message: What is wrong: the file, the field, the value seen and the value expected.
        hint: The next step, if possible a command.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """The choices that are similar to a mistyped name, the most similar first.

    Upper and lower case, `-` and `_` are equal. A part of a name ("halbench") finds the whole name.
    """
    plain = {_plain(choice): choice for choice in choices}
    best = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=_CLOSE)
    if best:
        ratio = difflib.SequenceMatcher(None, best[0], _plain(name)).ratio()
        found = difflib.get_close_matches(_plain(name), plain, n=_MOST, cutoff=max(_CLOSE, ratio - _AS_CLOSE))
    else:
        found = sorted((choice for choice in plain if _plain(name) and _plain(name) in choice), key=len)[:_MOST]
    return [plain[choice] for choice in found]


def unknown_name(kind: str, name: str, choices: Iterable[str], where: str = "") -> NapoBenchError:
    """The error for a name that is none of the choices. The error names the nearest choices, or all choices if they are
    few.

    Args:
        kind: Kind of the name: "benchmark", "recipe".
        name: Name that the user gave.
        choices: Valid names.
        where: File or option with the name.
    """
    there = list(choices)
    near = nearest(name, there)
    hints = [f"Did you mean {' or '.join(near)}?"] if near else []
    if len(there) <= _FEW or not near:
        hints.append(f"Choose one of {', '.join(there)}.")
    return NapoBenchError(
        f"{where}: there is no {kind} {name!r}." if where else f"There is no {kind} {name!r}.", " ".join(hints)
    )


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", "-")
