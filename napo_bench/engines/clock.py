"""The seconds and tokens of the stages of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Clock:
    """Adds up the seconds of stages, and the tokens of each. Several threads may use one clock.

    Args:
        now: Function that returns the seconds of a clock, such as `time.thread_time` for CPU seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._adding = threading.Lock()
        self._seconds: dict[str, float] = {}
        self._tokens: dict[str, int] = {}
        self._open = threading.local()

    @contextmanager
    def __call__(self, stage: str, tokens: int = 0) -> Iterator[Callable[[int], None]]:
        """Measure a stage while the block lasts. The seconds of a stage within it count for that stage alone.

        The block gets a function that counts further tokens of the stage.
        """

        def count(further: int) -> None:
            with self._adding:
                self._tokens[stage] = self._tokens.get(stage, 0) + further

        around: list[float] = getattr(self._open, "inner", [])  # the seconds of the stages within each open stage
        self._open.inner = [*around, 0.0]
        began = self._now()
        try:
            yield count
        finally:
            whole = self._now() - began
            took = whole - self._open.inner[-1]
            self._open.inner = around
            if around:
                around[-1] += whole
            count(tokens)
            with self._adding:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + took

    def stages(self) -> dict[str, dict[str, Any]]:
        """Stage -> its seconds, and its tokens if the stage has tokens."""
        with self._adding:
            return {
                stage: {
                    "seconds": round(seconds, 3),
                    **({"tokens": count} if (count := self._tokens.get(stage)) else {}),
                }
                for stage, seconds in self._seconds.items()
            }


def merged_stages(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The sums of the seconds and tokens of equal stages."""
    sums: dict[str, dict[str, Any]] = {}
    for part in parts:
        for stage, amounts in part.items():
            sums[stage] = {
                name: round(sums.get(stage, {}).get(name, 0) + amount, 3)
                for name, amount in (sums.get(stage, {}) | dict(amounts)).items()
            }
    return sums
