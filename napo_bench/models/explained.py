"""What libraries raise about a damaged checkpoint, in one message of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napo_bench.core.errors import NapoBenchError


@contextmanager
def explained(folder: Path, part: str, hint: str) -> Iterator[None]:
    """Turn whatever transformers, safetensors and peft raise about a damaged `part` of a checkpoint into one
    message.
    """
    try:
        yield
    except NapoBenchError:
        raise
    except ImportError as error:
        raise NapoBenchError(
            f"{folder}: the {part} cannot be loaded: {first_line(error)}",
            "Install the package that the message names, and run the command again.",
        ) from error
    except Exception as error:
        raise NapoBenchError(f"{folder}: the {part} cannot be loaded: {first_line(error)}", hint) from error


def first_line(error: BaseException | None) -> str:
    """The first line of a message; with the next one if the first announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
