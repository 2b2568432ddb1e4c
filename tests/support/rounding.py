"""How far apart two float32 computations of the same thing may be. A processor chooses their order and so their error.

A logit of the tiny models is about 10 and comes from sums of some thousand products. Each product rounds by 2^-24 of
itself, and such errors add up as a random walk does: 10 * 2^-24 * sqrt(1000) = 2e-5 for the log-prob of a token, and
LOG_PROB for an answer of ten. What is computed from log-probs inherits their error by its derivative.
"""

from collections.abc import Iterable, Mapping

from torch import Tensor

LOG_PROB = 1e-4
"""Nats, of a summed log-prob and of a margin; a mean over tokens has no more."""

LOG_PROB_BF16 = 0.2
"""The same in bfloat16: 2^-9 of a logit of 10, over ten tokens, and as much again from each of two layers."""


def of_a_share(terms: Iterable[float], error: float) -> float:
    """Error of `term / sum(terms)`, a share in [0, 1], when each term has an error.

    The term adds error / sum, the sum adds share * n * error / sum: small margins make a loose share.
    """
    terms = list(terms)
    return (len(terms) + 1) * error / max(abs(sum(terms)), error)


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Between the weights of two checkpoints, as one vector.

    Two trainings are compared by the distance between their ends over the way that they went. Single weights are no
    measure: Adam divides a gradient by its own size, so a gradient that is all rounding moves its weight a whole step.
    """
    assert one.keys() == other.keys()
    return sum((one[name] - other[name]).double().square().sum().item() for name in one) ** 0.5
