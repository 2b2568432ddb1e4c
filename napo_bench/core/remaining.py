"""The time that the rest of a plan takes: one estimate, from the plan and from measured rates.

A piece of work has a kind and an amount, both known from the plan. The rate of a kind is measured on the pieces that
were computed. Pieces that are done already do not count. A kind without a measurement has its usual rate, times the
slowdown of the other kinds.
"""

from __future__ import annotations

import re
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


class Remaining:
    """The time that the rest of a plan takes.

    Args:
        plan: Pieces, in their order.
        clock: Function that returns seconds.
    """

    def __init__(self, plan: Sequence[Work], clock: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._clock = plan, clock
        self._current = -1
        self._measured: dict[Kind, tuple[float, float]] = {}
        self._began = self._piece_began = clock()
        self._told = False
        self._done = self._skipped = 0.0

    def begin(self, index: int) -> None:
        """The pieces before this one are done, and this one begins."""
        now = self._clock()
        if self._told and self._skipped < 1:
            piece = self._plan[self._current]
            seconds, amount = self._measured.get(piece.kind, (0.0, 0.0))
            done = piece.amount * (1 - self._skipped)
            self._measured[piece.kind] = (seconds + now - self._piece_began, amount + done)
        self._current, self._piece_began = index, now
        self._told, self._done, self._skipped = False, 0.0, 0.0

    def progress(self, stage: str, done: int, total: int) -> None:
        """Note the progress of a stage of the current piece."""
        span = _span(self._plan[self._current].kind, stage)
        if span is None or not total:
            return
        place = span[0] + (span[1] - span[0]) * done / total
        if not self._told and done > 1:  # a training that goes on, or one whose reference is there already
            self._skipped = span[0] + (span[1] - span[0]) * (done - 1) / total
        self._told = True
        self._done = max(self._done, place)

    def seconds(self) -> float:
        """Seconds that the rest takes; 0 at the end."""
        rest = self._rest_of_current()
        return rest + sum(self._expected(piece) for piece in self._plan[self._current + 1 :])

    def share(self) -> float:
        """Share of the whole time that has passed, in [0, 1]."""
        over, rest = self._clock() - self._began, self.seconds()
        return over / (over + rest) if over + rest else 1.0

    def _evidence(self) -> dict[Kind, tuple[float, float]]:
        """Kind -> seconds and amount of the computed work, including the finished part of the current piece."""
        found = dict(self._measured)
        part = self._part()
        if part > 0:
            piece = self._plan[self._current]
            seconds, amount = found.get(piece.kind, (0.0, 0.0))
            over = self._clock() - self._piece_began
            found[piece.kind] = (seconds + over, amount + piece.amount * (1 - self._skipped) * part)
        return found

    def _rate(self, kind: Kind, evidence: Mapping[Kind, tuple[float, float]]) -> float:
        """Seconds for each unit of a kind's amount."""
        seconds, amount = evidence.get(kind, (0.0, 0.0))
        if amount > 0:
            return seconds / amount
        usual = sum(USUAL[name] * amount for name, (_, amount) in evidence.items())
        return USUAL[kind] * (sum(seconds for seconds, _ in evidence.values()) / usual if usual else 1.0)

    def _expected(self, piece: Work) -> float:
        return piece.amount * self._rate(piece.kind, self._evidence())

    def _part(self) -> float:
        """Finished share of the work that the current piece had at its beginning, in [0, 1]; 0 until its rate
        counts.
        """
        part = (self._done - self._skipped) / (1 - self._skipped) if self._told and self._skipped < 1 else 0.0
        return part if part >= _LEAST_PART else 0.0

    def _rest_of_current(self) -> float:
        """Estimate from the expected time of the piece and from its own rate. The rate's weight grows with the
        progress.
        """
        if not 0 <= self._current < len(self._plan):
            return 0.0
        piece, part = self._plan[self._current], self._part()
        expected = piece.amount * (1 - self._skipped) * self._rate(piece.kind, self._measured)
        over = self._clock() - self._piece_began
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
