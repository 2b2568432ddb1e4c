"""Names that a user gives, and several rooms know; and the one rule for names of plug-ins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from napo_bench.core.errors import NapoBenchError

MICRO = "micro"
"""The micro world: as a base checkpoint, as a suite, and as preference rows."""

Control = Literal["blind", "swapped"]
"""A control of a training: what replaces the images of the rows."""

CONTROLS: Mapping[Control, str] = {"blind": "blank images", "swapped": "the images of other rows"}
"""Control -> the images that the rows are trained with."""

TRAINING = "training.json"
"""File beside the weights of a trained checkpoint: what determined the training."""

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
