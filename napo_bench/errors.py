"""The one exception of the project, and the names that a mistyped one may have meant.

A leaf: `benchmarks` and `trainers` raise it too, and it imports nothing of the project.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def nearest(name: str, choices: Iterable[str], count: int = 3) -> list[str]:
    """The choices that look most like a mistyped name, the most similar first; none if none is similar.

    Args:
        name: The name as the user typed it. Case and the difference between "-" and "_" do not count.
        choices: The names that exist.
        count: Names at most.
    """
    plain = {choice: choice.lower().replace("-", "_") for choice in choices}
    found = difflib.get_close_matches(name.lower().replace("-", "_"), plain.values(), n=count, cutoff=0.6)
    return sorted((choice for choice in plain if plain[choice] in found), key=lambda choice: found.index(plain[choice]))
