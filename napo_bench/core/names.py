"""Names that a user gives, and several rooms know; and the one rule for names of plug-ins."""

from __future__ import annotations

import re

from napo_bench.core.errors import NapoBenchError

MICRO = "micro"
"""The micro world: as a base checkpoint, as a suite, and as preference rows."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def require_name(kind: str, name: object) -> None:
    """Refuse a name that a command line, a folder or a table of settings could not hold.

    Args:
        kind: Kind of the name: "benchmark", "task", "engine".
        name: Name to check.

    Raises:
        NapoBenchError: the name has other characters than the rule allows, or is the micro world's.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise NapoBenchError(
            f"{name!r} cannot be the name of a {kind}: a name has lower case letters, digits and underscores, and "
            "begins with a letter."
        )
    if name == MICRO:
        raise NapoBenchError(f"{name!r} cannot be the name of a {kind}: it is the name of the micro world.")
