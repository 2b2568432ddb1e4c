"""Isotonic regression of many samples at once."""

from __future__ import annotations

from typing import Any

import numpy as np


def rising(means: Any, weights: Any) -> Any:
    """Isotonic regression: the means `[..., L]` that never fall and have the least weighted squared distance.

    A level of weight 0 gets the middle between its neighbours, at an end the neighbour. scikit-learn fits one
    regression at a time. This is the max-min formula of the same regression for all resamples at once (Barlow et al.,
    Statistical Inference under Order Restrictions, 1972).

    Args:
        means: Means of the levels `[..., L]`; those of weight 0 are ignored.
        weights: Weights of the levels `[..., L]`.
    """
    size = means.shape[-1]
    zero = np.zeros((*means.shape[:-1], 1))
    total = np.concatenate([zero, np.cumsum(np.where(weights > 0, means * weights, 0.0), axis=-1)], axis=-1)
    weight = np.concatenate([zero, np.cumsum(weights, axis=-1)], axis=-1)
    lowest, highest = np.full((2, *means.shape), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        window = [
            [(total[..., end + 1] - total[..., start]) / (weight[..., end + 1] - weight[..., start])
             for end in range(size)] for start in range(size)
        ]  # fmt: skip
    for level in range(size):
        for start in range(level + 1):
            least = window[start][level]
            for end in range(level + 1, size):
                least = np.fmin(least, window[start][end])
            lowest[..., level] = np.fmax(lowest[..., level], least)
        for end in range(level, size):
            most = window[level][end]
            for start in range(level):
                most = np.fmax(most, window[start][end])
            highest[..., level] = np.fmin(highest[..., level], most)
    return (lowest + highest) / 2
