"""Losses and gradients that no update is made of."""

import pytest
import torch
from torch import nn

from gtsvj_reward.alignment.updates import check_loss, clip_gradients


def parameter(*gradient):
    made = nn.Parameter(torch.zeros(len(gradient)))
    made.grad = torch.tensor(gradient)
    return made


def test_losses_without_a_gradient_or_a_value_are_refused():
    given = torch.ones((), requires_grad=True)
    check_loss(2 * given, "iteration 3")
    with pytest.raises(ValueError, match=r"iteration 3 has no gradient: the reward is constant"):
        check_loss(torch.ones(()), "iteration 3")
    with pytest.raises(ValueError, match=r"iteration 3 is nan: lower `learning_rate`"):
        check_loss(given * float("nan"), "iteration 3")


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_told():
    held = [parameter(3.0), parameter(0.0, 4.0)]
    assert clip_gradients(held, 1.0, "iteration 3") == pytest.approx(5.0)
    torch.testing.assert_close(held[1].grad, torch.tensor([0.0, 0.8]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (0.0, "iteration 3 is 0: the loss does not depend on the policy"),
        (float("nan"), "iteration 3 is nan: training has diverged"),
        (float("inf"), "iteration 3 is inf: training has diverged"),
    ],
)
def test_no_gradient_and_infinite_ones_are_refused(gradient, message):
    with pytest.raises(ValueError, match=message):
        clip_gradients([parameter(gradient)], 1.0, "iteration 3")
