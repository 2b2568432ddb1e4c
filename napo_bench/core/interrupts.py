"""Ctrl-C and SIGTERM: both end a command in the same way, and both can wait until the current work is safe.

A leaf: `trainers` uses it too, and it imports nothing of the project.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_REQUEST_SECONDS = 1.0


class Interrupted(KeyboardInterrupt):
    """A signal ended the work. A subclass of KeyboardInterrupt, so that libraries let it pass.

    Args:
        signum: The signal's number.
        kept: One sentence about what was saved first; "" if nothing was saved.
    """

    def __init__(self, signum: int, kept: str = "") -> None:
        super().__init__(signum)
        self.signum = signum
        self.kept = kept


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted` in this block, as Ctrl-C raises KeyboardInterrupt."""

    def interrupt(signum: int, _: FrameType | None) -> None:
        raise Interrupted(signum)

    with _handled((signal.SIGTERM,), interrupt):
        yield


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """In this block, only note a first SIGINT or SIGTERM.

    A second signal raises `Interrupted` at once. Signals within a second of the first are the same request: launchers
    and terminals often send the signal twice.

    Yields:
        A function that returns the number of the first signal, or 0 before a signal.
    """
    first, since = 0, 0.0

    def note(signum: int, _: FrameType | None) -> None:
        nonlocal first, since
        if not first:
            first, since = signum, time.monotonic()
        elif time.monotonic() - since >= _ONE_REQUEST_SECONDS:
            raise Interrupted(signum)

    with _handled(SIGNALS, note):
        yield lambda: first


def cause(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt that caused an exception, if there is one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def leave_signals_to_parent(*_: Any) -> None:
    """In a process that loads data: survive a signal to the whole process group, so that the parent can finish.

    The second SIGTERM ends the process: the parent sends a SIGTERM to a process that does not end alone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def keep_interrupt(ignored: sys.UnraisableHookArgs) -> None:
    """Repeat an interrupt that came while an object was finalized, because Python ignores exceptions there."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        signum = getattr(ignored.exc_value, "signum", signal.SIGINT)
        main = threading.main_thread().ident  # a signal to another thread would not wake it
        threading.Timer(0.1, signal.pthread_kill, [main, signum]).start()
    else:
        sys.__unraisablehook__(ignored)


@contextmanager
def _handled(signals: tuple[int, ...], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals in this block, except in another thread and except signals that the process ignores (nohup)."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {
        signum: found
        for signum in signals
        if in_main_thread and (found := signal.getsignal(signum)) not in (signal.SIG_IGN, None)
    }
    for signum in before:
        signal.signal(signum, handler)
    try:
        yield
    finally:
        for signum, found in before.items():
            signal.signal(signum, found)
