import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napo_bench.trainers import losses
from napo_bench.trainers.losses import cdpo_loss, dpo_loss, hinge_loss, ipo_loss, mdpo_loss, napo_loss, rdpo_loss

pytestmark = pytest.mark.numeric

BETA = 0.1
LARGEST = torch.finfo(torch.float32).max
any_margin = st.floats(-LARGEST, LARGEST, width=32)
margin = st.floats(-300, 300, width=32)
moderate_margin = st.floats(-60, 60, width=32)
any_q = st.floats(1e-3, 1.0)
label_noise = st.floats(0.0, 0.49)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def value(loss: torch.Tensor) -> float:
    return loss.item()


def one(number: float) -> torch.Tensor:
    return torch.tensor([number], requires_grad=True)


@pytest.mark.parametrize(
    ("m", "expected"), [(0.0, math.log(2)), (10.0, 0.3132617), (-10.0, 1.3132617), (100.0, 4.5398e-5)]
)
def test_dpo_is_the_cross_entropy_of_the_scaled_margin(m, expected):
    assert value(dpo_loss(one(m), BETA)) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None)
@given(moderate_margin, st.floats(0.05, 1.0))
def test_napo_is_equation_9(m, q):
    assert value(napo_loss(one(m), q, BETA)) == pytest.approx((1 - sigmoid(BETA * m) ** q) / q, rel=1e-4, abs=1e-6)


@settings(deadline=None)
@given(margin)
def test_napo_goes_to_dpo_as_q_goes_to_zero(m):
    dpo = value(dpo_loss(one(m), BETA))
    assert value(napo_loss(one(m), 1e-6, BETA)) == pytest.approx(dpo, rel=1e-4, abs=1e-7)
    assert value(napo_loss(one(m), 0.0, BETA)) == pytest.approx(dpo, rel=1e-6, abs=1e-7)


@settings(deadline=None)
@given(margin)
def test_napo_with_q_one_is_the_mean_absolute_error(m):
    assert value(napo_loss(one(m), 1.0, BETA)) == pytest.approx(1 - sigmoid(BETA * m), rel=1e-5, abs=1e-7)


@settings(deadline=None)
@given(margin)
def test_mean_absolute_error_is_symmetric_and_dpo_is_not(m):
    """Eq. 5: a loss is robust to flipped labels if the losses of a label and its flip sum to a constant."""
    both_labels = value(napo_loss(one(m), 1.0, BETA)) + value(napo_loss(one(-m), 1.0, BETA))
    assert both_labels == pytest.approx(1.0, abs=1e-6)
    dpo_both_labels = value(dpo_loss(one(m), BETA)) + value(dpo_loss(one(-m), BETA))
    assert dpo_both_labels == pytest.approx(2 * math.log(2) + 2 * math.log(math.cosh(BETA * m / 2)), rel=1e-4)


@settings(deadline=None)
@given(margin, any_q)
def test_napo_gradient_is_dpo_gradient_damped_where_the_negative_is_preferred(m, q):
    x = one(m)
    (gradient,) = torch.autograd.grad(napo_loss(x, q, BETA), x)
    expected = -BETA * sigmoid(BETA * m) ** q * sigmoid(-BETA * m)
    assert value(gradient) == pytest.approx(expected, rel=1e-3, abs=1e-8)


@settings(deadline=None)
@given(margin, any_q, any_q)
def test_napo_lies_below_dpo_and_falls_as_q_grows(m, q1, q2):
    low, high = sorted((q1, q2))
    losses = [value(dpo_loss(one(m), BETA)), value(napo_loss(one(m), low, BETA)), value(napo_loss(one(m), high, BETA))]
    assert losses[0] >= losses[1] * (1 - 1e-5)
    assert losses[1] >= losses[2] * (1 - 1e-5)
    assert losses[2] <= 1 / high * (1 + 1e-6)


def test_napo_takes_one_q_for_each_row():
    margins = torch.tensor([-3.0, 2.0, 5.0])
    q = torch.tensor([0.1, 0.5, 1.0])
    rows = [napo_loss(margins[i : i + 1], float(q[i]), BETA) for i in range(3)]
    torch.testing.assert_close(napo_loss(margins, q, BETA), torch.cat(rows))


@settings(deadline=None)
@given(moderate_margin, moderate_margin, moderate_margin)
def test_mdpo_is_three_cross_entropies(m, image_m, anchor):
    expected = -sum(math.log(sigmoid(BETA * x)) for x in (m, image_m, anchor))
    assert value(mdpo_loss(one(m), one(image_m), one(anchor), BETA)) == pytest.approx(expected, rel=1e-4)


@settings(deadline=None)
@given(moderate_margin, label_noise)
def test_cdpo_is_the_expected_dpo_under_flipped_labels(m, noise):
    expected = (1 - noise) * value(dpo_loss(one(m), BETA)) + noise * value(dpo_loss(one(-m), BETA))
    assert value(cdpo_loss(one(m), BETA, noise)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@settings(deadline=None)
@given(moderate_margin, label_noise)
def test_rdpo_is_unbiased_under_flipped_labels(m, noise):
    seen_true, seen_flipped = value(rdpo_loss(one(m), BETA, noise)), value(rdpo_loss(one(-m), BETA, noise))
    expected = value(dpo_loss(one(m), BETA))
    scale = abs(seen_true) + abs(seen_flipped)
    assert (1 - noise) * seen_true + noise * seen_flipped == pytest.approx(expected, abs=1e-5 * scale + 1e-6)


def test_ipo_vanishes_at_its_target_margin():
    assert value(ipo_loss(one(5.0), BETA)) == 0.0
    assert value(ipo_loss(one(2.0), BETA)) == pytest.approx(9.0)


def test_hinge_vanishes_from_a_scaled_margin_of_one_on():
    assert value(hinge_loss(one(10.0), BETA)) == 0.0
    assert value(hinge_loss(one(50.0), BETA)) == 0.0
    assert value(hinge_loss(one(-5.0), BETA)) == pytest.approx(1.5)


LOSSES = {
    "dpo": dpo_loss,
    "napo q=0": lambda m, beta: napo_loss(m, 0.0, beta),
    "napo q=0.001": lambda m, beta: napo_loss(m, 1e-3, beta),
    "napo q=0.5": lambda m, beta: napo_loss(m, torch.tensor(0.5), beta),
    "napo q=1": lambda m, beta: napo_loss(m, 1.0, beta),
    "mdpo": lambda m, beta: mdpo_loss(m, m, m, beta),
    "cdpo": lambda m, beta: cdpo_loss(m, beta, 0.3),
    "rdpo": lambda m, beta: rdpo_loss(m, beta, 0.45),
    "ipo": ipo_loss,
    "hinge": hinge_loss,
}


def test_the_tests_of_finite_values_have_every_loss_of_the_table():
    assert {name.partition(" ")[0] for name in LOSSES} == losses.LOSSES.keys() - {"ipo_sum"}


def test_a_loss_says_what_it_needs_and_ipo_alone_takes_margins_of_means():
    needs = {name: set(loss.needs) for name, loss in losses.LOSSES.items()}
    assert needs["dpo"] == needs["ipo"] == needs["hinge"] == {"beta"}
    assert needs["napo"] == {"q", "beta"}
    assert needs["cdpo"] == needs["rdpo"] == {"beta", "label_smoothing"}
    assert needs["mdpo"] == {"image_margin", "chosen_logratio", "beta"}
    assert [name for name, loss in losses.LOSSES.items() if loss.margin == "mean"] == ["ipo"]


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@settings(deadline=None)
@given(m=any_margin, beta=st.floats(1e-3, 10.0))
def test_loss_and_gradient_are_finite_for_every_finite_margin(loss, m, beta):
    x = one(m)
    rows = loss(x, beta)
    (gradient,) = torch.autograd.grad(rows.sum(), x)
    assert rows.shape == (1,)
    assert torch.isfinite(rows).all(), (m, rows)
    assert torch.isfinite(gradient).all(), (m, gradient)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("m", [LARGEST, -LARGEST, 1e30, -1e30, 1e-40, 0.0])
def test_loss_and_gradient_are_finite_at_the_extremes(loss, m):
    x = one(m)
    rows = loss(x, BETA)
    (gradient,) = torch.autograd.grad(rows.sum(), x)
    assert torch.isfinite(rows).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_loss_and_gradient_are_finite_in_half_precision(loss, dtype):
    largest = torch.finfo(dtype).max
    margins = torch.tensor([-largest, -700, -3, 0, 1e-7, 3, 700, largest], dtype=dtype, requires_grad=True)
    rows = loss(margins, BETA)
    (gradient,) = torch.autograd.grad(rows.sum(), margins)
    assert torch.isfinite(rows).all()
    assert torch.isfinite(gradient).all()
    exact = loss(margins.detach().double()[1:-1], BETA)
    torch.testing.assert_close(rows[1:-1].double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("q", [0.0, torch.tensor(0.0, dtype=torch.float16)])
def test_napo_with_q_zero_is_dpo_in_half_precision(dtype, q):
    margins = torch.tensor([-40.0, -1.0, 0.0, 2.0, 40.0], dtype=dtype)
    torch.testing.assert_close(napo_loss(margins, q, BETA), dpo_loss(margins.float(), BETA))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_margin_that_is_not_a_number_is_not_hidden(loss):
    assert torch.isnan(loss(torch.tensor([float("nan")]), BETA)).all()
