import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from napo_bench.trainers.noise import bounded_weights, dynamic_weights, noise_robustness, shares_undefined

pytestmark = pytest.mark.numeric

margins = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=4)


def q(mean_margin: float, alpha: float, **clamp: float) -> float:
    return float(noise_robustness(torch.tensor(mean_margin), alpha, **clamp))


def test_q_is_one_when_margin_is_zero_or_the_negatives_are_preferred():
    assert q(0.0, 0.5) == 1.0
    assert q(-3.0, 0.5) == 1.0


@pytest.mark.parametrize(("mean_margin", "alpha"), [(2.0, 0.5), (0.7, 0.1), (150.0, 0.01), (30.0, 0.1)])
def test_q_is_equation_12(mean_margin, alpha):
    assert q(mean_margin, alpha) == pytest.approx(2 * (1 - 1 / (1 + math.exp(-alpha * mean_margin))), rel=1e-5)


def test_q_is_clamped_where_the_negatives_are_plainly_worse():
    assert q(1e6, 0.5) == pytest.approx(1e-3)
    assert q(1e6, 0.5, q_min=0.2) == pytest.approx(0.2)
    assert q(0.0, 0.5, q_max=0.8) == pytest.approx(0.8)


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False), st.floats(1e-3, 10))
def test_q_stays_in_its_range(mean_margin, alpha):
    assert 1e-3 * (1 - 1e-6) <= q(mean_margin, alpha) <= 1.0


@settings(deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_q_falls_as_the_margin_grows(a, b):
    low, high = sorted((a, b))
    assert q(low, 0.1) >= q(high, 0.1)


def test_no_gradient_flows_through_q_or_the_weights():
    margin = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    assert not noise_robustness(margin.mean(), 0.5).requires_grad
    assert not dynamic_weights(margin).requires_grad


def test_weights_are_shares_of_the_sum():
    torch.testing.assert_close(dynamic_weights(torch.tensor([1.0, 2.0, 5.0])), torch.tensor([0.125, 0.25, 0.625]))


@settings(deadline=None)
@given(margins, st.floats(1e-2, 1e2))
def test_a_common_factor_such_as_beta_changes_no_weight(values, factor):
    raw = torch.tensor(values, dtype=torch.float64)
    assume(abs(sum(values)) > 1e-3 * max(1.0, sum(map(abs, values))))
    torch.testing.assert_close(dynamic_weights(factor * raw), dynamic_weights(raw))


@pytest.mark.parametrize("values", [[0.0, 0.0, 0.0], [1e-9, -2e-9, 0.0], [5.0, -2.0, -3.0], [3e38, -3e38]])
def test_weights_are_equal_while_the_sum_is_tiny(values):
    assert bool(shares_undefined(torch.tensor(values)))
    assert dynamic_weights(torch.tensor(values)).tolist() == pytest.approx([1 / len(values)] * len(values))


def test_weights_are_equal_up_to_the_rounding_of_the_sum_and_shares_above_it():
    margins = torch.tensor([0.02, 0.03, 0.05])
    assert dynamic_weights(margins, rounding=0.11).tolist() == pytest.approx([1 / 3] * 3)
    assert dynamic_weights(margins, rounding=0.09).tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert dynamic_weights(-margins, rounding=0.11).tolist() == pytest.approx([1 / 3] * 3)


def test_one_margin_below_the_rounding_keeps_its_share_beside_larger_ones():
    assert dynamic_weights(torch.tensor([0.02, 0.4, 0.58]), rounding=0.1).tolist() == pytest.approx([0.02, 0.4, 0.58])


def test_a_kind_that_no_row_has_takes_no_weight_from_the_others():
    present = torch.tensor([True, False, True])
    for weights in (dynamic_weights, bounded_weights):
        assert weights(torch.zeros(3), present=present).tolist() == pytest.approx([0.5, 0.0, 0.5])
    assert dynamic_weights(torch.tensor([1.0, 9.0, 3.0]), present=present).tolist() == pytest.approx([0.25, 0.0, 0.75])
    assert bounded_weights(torch.tensor([0.0, 9.0, math.log(3)]), present).tolist() == pytest.approx([0.4, 0.0, 0.6])


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-5, 5, width=32)] * 3), min_size=1, max_size=4), st.floats(0, 3))
def test_each_group_has_the_weights_and_q_that_it_has_alone(groups, rounding):
    margins, threshold = torch.tensor(groups), torch.full((len(groups),), rounding)
    alone = [dynamic_weights(row, rounding=rounding) for row in margins]
    torch.testing.assert_close(dynamic_weights(margins, rounding=threshold), torch.stack(alone))
    torch.testing.assert_close(bounded_weights(margins), torch.stack([bounded_weights(row) for row in margins]))
    q_alone = torch.stack([noise_robustness(margin, 0.5) for margin in margins[:, 0]])
    torch.testing.assert_close(noise_robustness(margins[:, 0], 0.5), q_alone)


def test_weights_are_floored_and_never_above_one():
    assert dynamic_weights(torch.tensor([9.0, -2.0, 1.0])).tolist() == pytest.approx([1.0, 0.01, 0.125])
    assert dynamic_weights(torch.tensor([9.0, -2.0, 1.0]), floor=0.05).tolist() == pytest.approx([1.0, 0.05, 0.125])


def test_a_negative_sum_divides_as_the_formula_has_it():
    assert dynamic_weights(torch.tensor([-3.0, -2.0, 1.0])).tolist() == pytest.approx([0.75, 0.5, 0.01])


@settings(deadline=None)
@given(margins)
def test_weights_stay_between_the_floor_and_one(values):
    weights = dynamic_weights(torch.tensor(values))
    assert weights.shape == (len(values),)
    assert bool(((weights >= 0.01 - 1e-8) & (weights <= 1.0)).all())


def test_a_margin_that_is_not_a_number_is_not_hidden():
    assert math.isnan(q(float("nan"), 0.5))
    assert dynamic_weights(torch.tensor([float("nan"), 1.0])).isnan().all()


def test_bounded_weights_are_shares_of_the_probability_that_the_chosen_response_is_preferred():
    weights = bounded_weights(torch.tensor([0.0, math.log(3)]))
    assert weights.tolist() == pytest.approx([0.5 / 1.25, 0.75 / 1.25])


def test_bounded_weights_are_equal_before_the_first_update():
    assert bounded_weights(torch.zeros(3)).tolist() == pytest.approx([1 / 3] * 3)


@settings(deadline=None)
@given(margins)
def test_bounded_weights_sum_to_one_and_cannot_run_away_from_pairs_that_are_not_yet_learnt(values):
    weights = bounded_weights(torch.tensor([0.0, *values]))
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(weights.max()) <= 2 * float(weights[0]) + 1e-6
