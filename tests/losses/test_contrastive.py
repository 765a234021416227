"""The contrastive loss against values worked out by hand, and its bound."""

import pytest
import torch
from hypothesis import given, strategies as st

from gtsvj_reward.losses import bound_share, contrastive_bound, contrastive_loss

ENERGIES = st.floats(-20, 20)
BETAS = st.floats(0.01, 5)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_values_by_hand():
    # beta = 0.2, E+ - E- + 0.2 (E+^2 + E-^2):
    # (0, 0): 0.   (1, 0): 1 + 0.2 = 1.2.   (0, 1): -1 + 0.2 = -0.8.
    # (-1, 2): -3 + 0.2 * (1 + 4) = -2.   (3, -1): 4 + 0.2 * (9 + 1) = 6.
    positive, negative = doubles(0, 1, 0, -1, 3), doubles(0, 0, 1, 2, -1)
    expected = doubles(0, 1.2, -0.8, -2, 6)
    torch.testing.assert_close(contrastive_loss(positive, negative), expected)
    # The mean is 4.4 / 5 = 0.88.
    mean = contrastive_loss(positive, negative, reduction="mean")
    torch.testing.assert_close(mean, torch.tensor(0.88, dtype=torch.float64))


def test_another_beta_by_hand():
    # beta = 0.5: (-1, 2) gives -3 + 0.5 * 5 = -0.5.
    torch.testing.assert_close(contrastive_loss(doubles(-1), doubles(2), 0.5), doubles(-0.5))


def test_per_step_by_hand():
    # beta = 0.2. Positive steps (-1, 1): (-1 + 0.2 + 1 + 0.2) / 2 = 0.2.
    # Negative steps (0, 2, 4): (0 + (-2 + 0.8) + (-4 + 3.2)) / 3 = -2/3. Sum: -7/15.
    loss = contrastive_loss(doubles(-1, 1)[None], doubles(0, 2, 4)[None])
    torch.testing.assert_close(loss, doubles(-7 / 15))


@given(steps=st.lists(ENERGIES, min_size=2, max_size=5), beta=BETAS)
def test_per_step_exceeds_the_loss_of_the_means_by_beta_times_the_variance(steps, beta):
    energy = doubles(*steps)[None]
    per_step = contrastive_loss(energy, energy.flip(1) + 1, beta)
    of_means = contrastive_loss(energy.mean(1), energy.mean(1) + 1, beta)
    variance = energy.var(dim=1, correction=0)
    torch.testing.assert_close(per_step, of_means + 2 * beta * variance)


@given(positive=ENERGIES, negative=ENERGIES, beta=BETAS)
def test_it_is_least_squares_to_plus_and_minus_half_over_beta(positive, negative, beta):
    half = 1 / (2 * beta)
    expected = beta * (positive + half) ** 2 + beta * (negative - half) ** 2 - half
    loss = contrastive_loss(doubles(positive), doubles(negative), beta)
    torch.testing.assert_close(loss, doubles(expected), rtol=1e-9, atol=1e-9)
    assert loss.item() >= contrastive_bound(beta) - 1e-9


@given(beta=BETAS)
def test_the_bound_is_reached_at_half_over_beta(beta):
    positive = doubles(-1 / (2 * beta)).requires_grad_()
    negative = doubles(1 / (2 * beta)).requires_grad_()
    loss = contrastive_loss(positive, negative, beta, reduction="mean")
    loss.backward()
    torch.testing.assert_close(loss.item(), contrastive_bound(beta))
    torch.testing.assert_close(bound_share(loss.item(), beta), 1.0)
    torch.testing.assert_close(positive.grad, doubles(0))
    torch.testing.assert_close(negative.grad, doubles(0))


def test_the_papers_bound():
    assert contrastive_bound() == contrastive_bound(0.2) == -2.5


@given(positive=ENERGIES, negative=ENERGIES, beta=BETAS)
def test_gradient_in_closed_form(positive, negative, beta):
    # dL/dE+ = 1 + 2 beta E+, dL/dE- = -1 + 2 beta E-.
    better, worse = doubles(positive).requires_grad_(), doubles(negative).requires_grad_()
    contrastive_loss(better, worse, beta).sum().backward()
    torch.testing.assert_close(better.grad, doubles(1 + 2 * beta * positive))
    torch.testing.assert_close(worse.grad, doubles(-1 + 2 * beta * negative))


def test_bound_share_by_hand():
    # beta = 0.2, bound -2.5: a loss of -2 is 80 %, 0 is nothing, +1 is -40 %.
    torch.testing.assert_close(bound_share(doubles(-2, 0, 1)), doubles(0.8, 0, -0.4))
    assert bound_share(-0.5, 0.5) == 0.5
    assert isinstance(bound_share(-0.5), float)


def test_pairs_do_not_touch_each_other():
    positive, negative = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    together = contrastive_loss(positive, negative)
    alone = [contrastive_loss(positive[i : i + 1], negative[i : i + 1]) for i in range(6)]
    assert torch.equal(together, torch.cat(alone))
    assert together.std() > 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_in_float32(dtype):
    positive, negative = torch.tensor([-2.47]).to(dtype), torch.tensor([2.53]).to(dtype)
    loss = contrastive_loss(positive, negative)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, contrastive_loss(positive.float(), negative.float()))


@pytest.mark.parametrize("beta", [0.0, -0.2, float("nan"), float("inf")])
def test_bad_betas_are_refused(beta):
    energy = torch.zeros(2)
    for call in (
        lambda: contrastive_loss(energy, energy, beta),
        lambda: contrastive_bound(beta),
        lambda: bound_share(-1.0, beta),
    ):
        with pytest.raises(ValueError, match="`beta` must be positive"):
            call()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("first", "second"), [((3,), (1,)), ((3,), (3, 2)), ((), ()), ((2, 3, 4), (2, 3, 4))]
)
def test_shapes_that_do_not_pair_up_are_refused(first, second):
    with pytest.raises(ValueError, match="with the same batch; got shapes") as raised:
        contrastive_loss(torch.zeros(first), torch.zeros(second))
    assert f"{first} and {second}" in str(raised.value)


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match='"none" or "mean", got \'sum\''):
        contrastive_loss(torch.zeros(2), torch.zeros(2), reduction="sum")
