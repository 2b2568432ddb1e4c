"""Isotonic regression of many samples at once equals scikit-learn's."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from napo_bench.core.isotonic import rising


def test_it_equals_scikit_learns_regression():
    rng = np.random.default_rng(0)
    means, weights = rng.integers(0, 7, (200, 7)).astype(float), rng.integers(1, 5, (200, 7)).astype(float)
    expected = [
        IsotonicRegression().fit_transform(np.arange(7), one, sample_weight=weight)
        for one, weight in zip(means, weights, strict=True)
    ]
    assert rising(means, weights) == pytest.approx(np.array(expected))


def test_a_level_without_weight_is_between_its_neighbours_and_changes_no_other():
    means = np.array([np.nan, 1.0, np.nan, np.nan, 3.0, 2.0, np.nan])
    weights = np.array([0.0, 1.0, 0.0, 0.0, 1.0, 3.0, 0.0])
    assert rising(means, weights).tolist() == [1.0, 1.0, 1.625, 1.625, 2.25, 2.25, 2.25]
