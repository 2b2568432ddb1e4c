"""The one exception of the project, and what it says of a mistyped name.

A leaf: `benchmarks` and `trainers` raise it too, and it imports nothing of the project.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CLOSE, _AS_CLOSE, _MOST = 0.6, 0.1, 3
_FEW = 12


class NapoBenchError(Exception):
    """Something the user can fix.

    The command line prints it as one panel, without a traceback, and exits with code 2.

    Args:
        message: What is wrong: the file, the field, the value seen and the value expected.
        hint: The next step, where possible a command to type.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def nearest(name: str, choices: Iterable[str]) -> list[str]:
    """The choices that a mistyped name is nearest to, the nearest first; none if it is like none of them.

    Upper case and the choice between `-` and `_` do not count. A part of a name ("halbench") finds the whole name.
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
    """The error for a name that is none of the choices; the nearest ones are named, and all of them if they are few.

    Args:
        kind: What is named: "benchmark", "recipe".
        name: What the user gave.
        choices: What there is.
        where: File or option that gives the name.
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
