"""Limits of what comes from outside: sizes and times, each with the environment variable that changes it."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from napo_bench.core.errors import NapoBenchError


@dataclass(frozen=True)
class Limit:
    """A limit that a user can change.

    Attributes:
        variable: Environment variable with another value.
        default: Value without the variable.
    """

    variable: str
    default: int

    @property
    def value(self) -> int:
        """The limit. Raises NapoBenchError if the variable is no number above 0."""
        text = os.environ.get(self.variable, "").replace("_", "")
        if not text:
            return self.default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise NapoBenchError(f"{self.variable} is {text!r:.40}; a number above 0 is expected.", "Set it again.")
        return math.ceil(value)

    @property
    def hint(self) -> str:
        """How to go on if the input is right."""
        return f"If you trust this input, set {self.variable} to more than {self.value:,}."


ANSWER_BYTES = Limit("NAPO_BENCH_MAX_ANSWER_BYTES", 16 * 2**20)
ANSWER_SECONDS = Limit("NAPO_BENCH_MAX_ANSWER_SECONDS", 1800)
DOWNLOAD_BYTES = Limit("NAPO_BENCH_MAX_DOWNLOAD_BYTES", 20 * 10**9)
DOWNLOAD_SECONDS = Limit("NAPO_BENCH_MAX_DOWNLOAD_SECONDS", 24 * 3600)
IMAGE_SIDE = Limit("NAPO_BENCH_MAX_IMAGE_SIDE", 13_377)
ROWS_EXPANSION = Limit("NAPO_BENCH_MAX_ROWS_EXPANSION", 100)
"""Bytes of unpacked preference rows for each byte of their file."""
ROWS_BYTES = Limit("NAPO_BENCH_MAX_ROWS_BYTES", 2 * 2**30)
"""Memory for a few preference rows at a time."""
CHECK_SECONDS = Limit("NAPO_BENCH_MAX_CHECK_SECONDS", 60)
"""Time of a program that a checkpoint brings: a chat template, a regular expression."""
CHECK_BYTES = Limit("NAPO_BENCH_MAX_CHECK_BYTES", 2**30)
"""Memory that such a program may add."""


_THREAD_BYTES = 256 * 2**20
"""Address space for each core that the threads of a library may reserve inside a limit: stacks and arenas."""


_AGAIN_SECONDS = 0.5
"""The block is interrupted again after this time: a library's handler of every exception may have taken the first
interrupt."""


class _OverError(BaseException):
    """The time is over. No handler of errors inside the block catches this."""


@contextmanager
def at_most(what: str, seconds: Limit | None = None, memory: Limit | None = None) -> Iterator[None]:
    """Limit the time, and the added memory, of a block.

    The time has a limit in the main thread of a POSIX system, and the memory in the main thread under Linux. Elsewhere
    the block has no limit.

    Args:
        what: What the block does, for the message.
        seconds: Limit of the time; None is no limit.
        memory: Limit of the added memory, in bytes; None is no limit.

    Raises:
        NapoBenchError: the block takes longer, or wants more memory.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def over(number: int, frame: FrameType | None) -> Any:
        raise _OverError

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, over)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds.value if seconds else 0, _AGAIN_SECONDS)
    try:
        with _memory(memory.value if memory else 0):
            yield
    except _OverError:
        assert seconds is not None
        raise NapoBenchError(f"{what} takes more than {seconds.value:,} s.", seconds.hint) from None
    except MemoryError:
        if memory is None:
            raise
        raise NapoBenchError(f"{what} wants more than {memory.value:,} bytes of memory.", memory.hint) from None
    finally:
        left = max(left - (time.monotonic() - began), 1e-3) if left else 0
        signal.setitimer(signal.ITIMER_REAL, left, _AGAIN_SECONDS)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory(more: int) -> Iterator[None]:
    """Let the process grow by at most `more` bytes, and its threads' reserves, in this block; 0 is no limit."""
    used = Path("/proc/self/statm")
    if not more or not used.is_file():
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = int(used.read_text().split()[0]) * resource.getpagesize() + more
    most += _THREAD_BYTES * (os.cpu_count() or 1)
    if soft != resource.RLIM_INFINITY and soft < most:
        yield
        return
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
