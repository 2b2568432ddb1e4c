"""Signal detection of yes/no answers: sensitivity, criterion, and accuracy at another yes-rate.

Macmillan and Creelman, "Detection Theory: A User's Guide", with the equal-variance model: z(hit rate) = d'/2 - c and
z(false-alarm rate) = -d'/2 - c. Functions take numbers or arrays `[B]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_EXTREME = 12.0  # beyond this criterion every answer is No, and below its negative every answer is Yes
_HALVINGS = 60


@dataclass(frozen=True)
class Detection:
    """Counts of yes/no answers.

    Attributes:
        signals: Questions whose right answer is Yes.
        hits: Of these, answers Yes.
        noises: Questions whose right answer is No.
        false_alarms: Of these, answers Yes.
    """

    signals: Any
    hits: Any
    noises: Any
    false_alarms: Any

    @property
    def sensitivity(self) -> Any:
        """d': how well the answers tell Yes questions from No questions. 0 is chance."""
        return self._z_hit - self._z_false_alarm

    @property
    def criterion(self) -> Any:
        """c: the tendency to say No. 0 is none, and a negative c is a tendency to say Yes."""
        return -(self._z_hit + self._z_false_alarm) / 2

    def accuracy_at(self, yes_rate: Any) -> Any:
        """Accuracy, a fraction, if the same d' had the criterion with this share of answers Yes.

        The criterion is found by bisection. The share of Yes questions stays that of these counts.
        """
        from scipy.special import ndtr

        half = self.sensitivity / 2
        share = self.signals / np.maximum(self.signals + self.noises, 1)
        low = np.full(np.shape(half), -_EXTREME)
        high = -low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            too_often = share * ndtr(half - middle) + (1 - share) * ndtr(-half - middle) > yes_rate
            low, high = np.where(too_often, middle, low), np.where(too_often, high, middle)
        middle = (low + high) / 2
        return share * ndtr(half - middle) + (1 - share) * ndtr(half + middle)

    @property
    def _z_hit(self) -> Any:
        return _z(self.hits, self.signals)

    @property
    def _z_false_alarm(self) -> Any:
        return _z(self.false_alarms, self.noises)


def _z(said_yes: Any, asked: Any) -> Any:
    """The z of a rate with the log-linear correction: (count + 0.5) / (n + 1), which is never 0 or 1."""
    from scipy.special import ndtri

    return ndtri((np.asarray(said_yes, dtype=np.float64) + 0.5) / (np.asarray(asked, dtype=np.float64) + 1))
