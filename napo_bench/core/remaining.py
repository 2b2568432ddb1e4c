"""The time that the rest of a plan takes: one estimate, from the plan and from measured rates.

A piece of work has a kind and an amount, both known from the plan. The rate of a kind is measured on the pieces that
were computed. Pieces that are done already do not count. A kind without a measurement has its usual rate, times the
slowdown of the other kinds.
"""

from __future__ import annotations

import heapq
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["rows", "negatives", "evaluation", "training", "margins"]

USUAL: Mapping[Kind, float] = {
    "rows": 1e-3,
    "negatives": 1.2e-2,
    "evaluation": 4.5e-3,
    "training": 7.5e-3,
    "margins": 1.2e-2,
}
"""Seconds for each unit of a kind's amount, in the micro world on two cores; only their ratios matter."""

_STAGES: Mapping[Kind, Mapping[str, tuple[float, float]]] = {
    "rows": {},
    "negatives": {},
    "evaluation": {"Loading": (0.0, 0.1), "Answering": (0.1, 0.8), "Scoring": (0.8, 1.0)},
    "training": {"Reference": (0.0, 0.3), "Training": (0.3, 1.0)},
    "margins": {"Reference": (0.0, 1.0)},
}
"""Kind -> stage -> the part of a piece's time that the stage takes."""

_LEAST_PART = 0.1
"""Part of a piece that is done before its rate counts, because the first moments are spent on loading."""

_SHARD = re.compile(r"Shard (\d+) of (\d+), (language|vision)")


@dataclass(frozen=True)
class Work:
    """A piece of work of a plan.

    Attributes:
        kind: What is computed.
        amount: Number of rows, rows times responses, or questions, depending on the kind.
    """

    kind: Kind
    amount: float


def usual_seconds(plan: Sequence[Work]) -> float:
    """Seconds that a plan takes at the usual rates, for the comparison of two plans."""
    return sum(USUAL[piece.kind] * piece.amount for piece in plan)


@dataclass
class _Running:
    """A piece that runs.

    Attributes:
        began: Time of its beginning.
        told: Whether a stage was heard of.
        done: Finished share, in [0, 1].
        skipped: Share that was finished before the beginning.
    """

    began: float
    told: bool = False
    done: float = 0.0
    skipped: float = 0.0

    def part(self) -> float:
        """Finished share of the work that the piece had at its beginning, in [0, 1]; 0 until its rate counts."""
        part = (self.done - self.skipped) / (1 - self.skipped) if self.told and self.skipped < 1 else 0.0
        return part if part >= _LEAST_PART else 0.0


class Remaining:
    """The time that the rest of a plan takes. The methods may be called from several threads.

    Args:
        plan: Pieces, in their order.
        clock: Function that returns seconds.
        jobs: Number of pieces at the same time.
    """

    def __init__(self, plan: Sequence[Work], clock: Callable[[], float] = time.monotonic, jobs: int = 1) -> None:
        self._plan, self._clock, self._jobs = plan, clock, jobs
        self._waiting = dict.fromkeys(range(len(plan)))
        self._running: dict[int, _Running] = {}
        self._measured: dict[Kind, tuple[float, float]] = {}
        self._began = clock()
        self._turn = threading.RLock()

    def begin(self, index: int) -> None:
        """This piece begins."""
        with self._turn:
            self._waiting.pop(index, None)
            self._running[index] = _Running(self._clock())

    def end(self, index: int) -> None:
        """This piece is done."""
        with self._turn:
            run, piece = self._running.pop(index), self._plan[index]
            if run.told and run.skipped < 1:
                seconds, amount = self._measured.get(piece.kind, (0.0, 0.0))
                took = self._clock() - run.began
                self._measured[piece.kind] = (seconds + took, amount + piece.amount * (1 - run.skipped))

    def progress(self, index: int, stage: str, done: int, total: int) -> None:
        """Note the progress of a stage of a piece that runs."""
        span = _span(self._plan[index].kind, stage)
        if span is None or not total:
            return
        with self._turn:
            run = self._running[index]
            place = span[0] + (span[1] - span[0]) * done / total
            if not run.told and done > 1:  # a training that goes on, or one whose reference is there already
                run.skipped = span[0] + (span[1] - span[0]) * (done - 1) / total
            run.told = True
            run.done = max(run.done, place)

    def seconds(self) -> float:
        """Seconds that the rest takes; 0 at the end."""
        with self._turn:
            evidence = self._evidence()
            ends = [self._rest(index) for index in self._running]
            ends += [0.0] * (self._jobs - len(ends))
            heapq.heapify(ends)
            for index in self._waiting:
                piece = self._plan[index]
                heapq.heapreplace(ends, ends[0] + piece.amount * self._rate(piece.kind, evidence))
            return max(ends)

    def share(self) -> float:
        """Share of the whole time that has passed, in [0, 1]."""
        over, rest = self._clock() - self._began, self.seconds()
        return over / (over + rest) if over + rest else 1.0

    def _evidence(self) -> dict[Kind, tuple[float, float]]:
        """Kind -> seconds and amount of the computed work, including the finished parts of the pieces that run."""
        found = dict(self._measured)
        for index, run in self._running.items():
            if (part := run.part()) > 0:
                piece = self._plan[index]
                seconds, amount = found.get(piece.kind, (0.0, 0.0))
                over = self._clock() - run.began
                found[piece.kind] = (seconds + over, amount + piece.amount * (1 - run.skipped) * part)
        return found

    def _rate(self, kind: Kind, evidence: Mapping[Kind, tuple[float, float]]) -> float:
        """Seconds for each unit of a kind's amount."""
        seconds, amount = evidence.get(kind, (0.0, 0.0))
        if amount > 0:
            return seconds / amount
        usual = sum(USUAL[name] * amount for name, (_, amount) in evidence.items())
        return USUAL[kind] * (sum(seconds for seconds, _ in evidence.values()) / usual if usual else 1.0)

    def _rest(self, index: int) -> float:
        """Estimate from the expected time of a piece and from its own rate. The rate's weight grows with the
        progress.
        """
        piece, run = self._plan[index], self._running[index]
        part = run.part()
        expected = piece.amount * (1 - run.skipped) * self._rate(piece.kind, self._measured)
        over = self._clock() - run.began
        if not part:
            return max(expected - over, 0.1 * expected)
        if not self._measured:  # the usual rates are those of another machine
            expected = over / part
        return (1 - part) * (over + (1 - part) * expected)


def _span(kind: Kind, stage: str) -> tuple[float, float] | None:
    if kind == "negatives" and (found := _SHARD.match(stage)):
        shard, shards, biased = int(found[1]), int(found[2]), found[3] == "vision"
        return (2 * shard - 2 + biased) / (2 * shards), (2 * shard - 1 + biased) / (2 * shards)
    return _STAGES[kind].get(stage)
