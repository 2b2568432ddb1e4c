"""A mean with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import fmean

from napo_bench.runs.seeds import t_interval


@dataclass(frozen=True)
class Estimate:
    """The mean of a few values.

    Attributes:
        mean: Mean of the values.
        ci95: 95% interval of the mean (Student's t over the values).
        n: Number of values.
    """

    mean: float
    ci95: tuple[float, float]
    n: int

    @classmethod
    def of(cls, values: Sequence[float], within: tuple[float, float] = (-inf, inf)) -> Estimate | None:
        """The estimate from two values or more; None for fewer values.

        Args:
            values: Values to average.
            within: Range of possible values; the interval is cut to this range.
        """
        if len(values) < 2:
            return None
        low, high = t_interval(values)
        return cls(fmean(values), (max(low, within[0]), min(high, within[1])), len(values))

    def text(self, decimals: int, sign: str = "") -> str:
        """Mean and interval, "51.2 [48.0, 54.4]".

        Args:
            decimals: Digits after the point.
            sign: "+" writes the sign of positive numbers too.
        """
        return "{0:{form}} [{1:{form}}, {2:{form}}]".format(self.mean, *self.ci95, form=f"{sign}.{decimals}f")
