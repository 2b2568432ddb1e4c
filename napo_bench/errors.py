"""The one exception of the project.

A leaf: `benchmarks` and `trainers` raise it too, and it imports nothing.
"""

from __future__ import annotations


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
