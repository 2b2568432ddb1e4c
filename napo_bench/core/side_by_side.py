"""Pieces of work that run side by side: the main process and further processes take the next piece that is ready.

A piece is ready when everything that it needs is made. The main process works too, so one job starts no process. A
further process begins like a new Python, because threads of torch do not survive a fork. It ends with the main process,
however that ends.
"""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Protocol

from napo_bench.core import interrupts
from napo_bench.core.errors import NapoBenchError
from napo_bench.core.progress import NO_VALUES, Progress
from napo_bench.core.remaining import Work, usual_seconds

_GRACE_SECONDS = 30.0
"""Time in which an interrupted process saves its work."""


class Piece(Protocol):
    """A piece of work."""

    @property
    def run(self) -> Callable[[Progress], None]:
        """The work. With several jobs the function and what it holds can be pickled."""

    @property
    def work(self) -> Work:
        """Amount of the work."""

    @property
    def makes(self) -> Hashable:
        """What exists after the work, for `needs` of other pieces."""

    @property
    def needs(self) -> Sequence[Hashable]:
        """What must exist before. A thing that no piece makes exists already."""


Begin = Callable[[int], AbstractContextManager[Progress]]
"""Function of a piece's number: the progress of the piece, while the piece runs."""


class _StoppedError(BaseException):
    """Another piece failed."""


def run_pieces(pieces: Sequence[Piece], begin: Begin, jobs: Sequence[Mapping[str, str]] = ({},)) -> None:
    """Run all pieces. With one job they run in their order, in this process.

    Args:
        pieces: The pieces. Each piece stands behind the pieces that make what it needs.
        begin: Called when a piece begins; its progress may be called from any thread.
        jobs: Environment variables of each process. The first process is this one, whose environment stays as it is.

    Raises:
        NapoBenchError: of the first piece that fails, or a further process ended by itself.
        RuntimeError: a piece in a further process raised another exception.
    """
    plan = _Plan(pieces, in_order=len(jobs) == 1)
    workers: list[_Worker] = []
    try:
        workers += [_Worker(plan, begin, surroundings) for surroundings in jobs[1 : len(pieces)]]
        while (index := plan.take()) is not None:
            with begin(index) as progress:
                pieces[index].run(_Stopping(progress, plan))
            plan.finish(index)
        for worker in workers:
            worker.thread.join()
    except _StoppedError:
        pass
    except BaseException as error:
        plan.fail(error)
        raise
    finally:
        _stop(workers)
    if plan.error is not None:
        raise plan.error


def _stop(workers: Sequence[_Worker]) -> None:
    """End all further processes. If a second interrupt comes meanwhile, they save nothing more."""
    try:
        for worker in workers:
            worker.end()
        for worker in workers:
            worker.wait()
    except KeyboardInterrupt:
        for worker in workers:
            worker.kill()
        raise


class _Plan:
    """Which piece is next. All methods may be called from any thread."""

    def __init__(self, pieces: Sequence[Piece], in_order: bool) -> None:
        self.pieces = pieces
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._waiting = list(range(len(pieces)))
        self._running = 0
        self._missing = {piece.makes for piece in pieces}
        self._urgency = [0.0 if in_order else _chain(pieces, index) for index in range(len(pieces))]

    def take(self) -> int | None:
        """The next piece, as soon as one is ready; None if no piece is left, or if one failed."""
        with self._changed:
            while self._waiting and self.error is None:
                ready = [index for index in self._waiting if not self._missing.intersection(self.pieces[index].needs)]
                if ready:
                    index = max(ready, key=lambda found: (self._urgency[found], -found))
                    self._waiting.remove(index)
                    self._running += 1
                    return index
                assert self._running, "the pieces need each other"
                self._changed.wait()
            return None

    def finish(self, index: int) -> None:
        """A piece is done."""
        with self._changed:
            self._missing.discard(self.pieces[index].makes)
            self._running -= 1
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Start no further piece."""
        with self._changed:
            self.error = self.error or error
            self._changed.notify_all()


def _chain(pieces: Sequence[Piece], index: int) -> float:
    """Usual seconds of a piece and of the longest chain of pieces behind it."""
    behind = [
        _chain(pieces, later) for later in range(index + 1, len(pieces)) if pieces[index].makes in pieces[later].needs
    ]
    return usual_seconds([pieces[index].work]) + max(behind, default=0.0)


@dataclass(frozen=True)
class _Stopping:
    """A progress that ends its piece when another piece failed."""

    progress: Progress
    plan: _Plan

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        if self.plan.error is not None:
            raise _StoppedError
        self.progress(stage, done, total, values)

    def note(self, text: str, /) -> None:
        self.progress.note(text)


class _Worker:
    """A further process, and the thread that gives it pieces and passes on its progress."""

    def __init__(self, plan: _Plan, begin: Begin, surroundings: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._plan, self._begin = plan, begin
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_work, args=(other, dict(surroundings)))
        # The process inherits the mask: Ctrl-C reaches the main process alone, which decides.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        other.close()
        self.thread = threading.Thread(target=self._give, daemon=True)
        self.thread.start()

    def end(self) -> None:
        """Let the process end, which may save its work first."""
        if self._plan.error is not None:
            self._process.terminate()
        else:
            self._pipe.close()

    def wait(self) -> None:
        """Wait until the process has ended, and kill it if this takes too long."""
        self._process.join(_GRACE_SECONDS)
        if self._process.is_alive():
            self.kill()
            self._process.join()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def _give(self) -> None:
        try:
            self._pipe.recv()  # the process is ready; until then others may take the pieces
        except (EOFError, OSError):
            return self._plan.fail(self._ended())
        try:
            while (index := self._plan.take()) is not None:
                with self._begin(index) as progress:
                    error = self._run(self._plan.pieces[index], progress)
                if error is not None:
                    return self._plan.fail(error)
                self._plan.finish(index)
        except BaseException as error:  # the main process raises it
            self._plan.fail(error)

    def _run(self, piece: Piece, progress: Progress) -> BaseException | None:
        """Let the process run a piece, and pass on its progress. Returns the error if the piece fails."""
        try:
            self._pipe.send(piece.run)
            while True:
                kind, *values = self._pipe.recv()
                if kind == "progress":
                    progress(*values)
                elif kind == "note":
                    progress.note(*values)
                else:
                    return values[0] if kind == "failed" else None
        except (EOFError, OSError):
            return self._ended()

    def _ended(self) -> NapoBenchError:
        """The error about a process that ended by itself."""
        self._process.join(1)
        ended = self._process.exitcode
        how = f"by signal {-ended}" if ended is not None and ended < 0 else f"with code {ended}"
        return NapoBenchError(
            f"One of the processes that work side by side ended {how}.",
            "Its memory may have been too small: run the same command again with --jobs 1.",
        )


@dataclass
class _Telling(io.TextIOBase):
    """The progress of a piece in a further process, and its stderr: all of it goes to the main process."""

    pipe: Connection
    _line: str = ""
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, stage: str, done: int, total: int | None, values: Mapping[str, float] = NO_VALUES, /) -> None:
        self.event("progress", stage, done, total, dict(values))

    def note(self, text: str, /) -> None:
        self.event("note", text)

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in filter(None, lines):
            self.note(line)
        return len(text)

    def event(self, *event: Any) -> None:
        with self._turn:
            try:
                self.pipe.send(event)
            except OSError:
                raise KeyboardInterrupt from None  # the main process has ended, and `_end_with_main` says so too late


def _work(pipe: Connection, surroundings: Mapping[str, str]) -> None:
    """The main function of a further process: run each piece that comes through the pipe."""
    os.environ.update(surroundings)
    sys.unraisablehook = interrupts.keep_interrupt
    threading.Thread(target=_end_with_main, daemon=True).start()
    telling = _Telling(pipe)
    sys.stdout = sys.stderr = telling
    warnings.showwarning = lambda message, *_: telling.note(str(message))
    try:
        with interrupts.sigterm_as_ctrl_c():
            pipe.send(("ready",))
            while True:
                pipe.send(_outcome(pipe.recv(), telling))
    except (EOFError, OSError, KeyboardInterrupt):
        pass  # nothing is asked any more
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        os._exit(0)  # threads of libraries are not waited for


def _outcome(run: Callable[[Progress], None], progress: Progress) -> tuple[Any, ...]:
    """Run a piece: how it ended, as the event for the main process."""
    try:
        run(progress)
    except NapoBenchError as error:
        return "failed", NapoBenchError(error.message, error.hint)
    except OSError as error:
        return "failed", error
    except Exception:
        return "failed", RuntimeError(f"in a process that works side by side:\n{traceback.format_exc()}")
    return ("done",)


def _end_with_main() -> None:
    """End this process when the main process ends, as an interrupt would end it."""
    main = multiprocessing.parent_process()
    assert main is not None
    multiprocessing.connection.wait([main.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(_GRACE_SECONDS)
    os._exit(1)
