"""The loss of a generator that climbs a reward."""

import pytest
import torch

from gtsvj_reward.losses.reward_gradient import reward_loss

REWARDS = torch.tensor([1.0, -2.0, 3.5])


def test_golden():
    # By hand: -0.5 r, and 0.1 |r - 1|
    torch.testing.assert_close(reward_loss(REWARDS, scale=0.5), torch.tensor([-0.5, 1.0, -1.75]))
    bounded = reward_loss(REWARDS, target=1.0, scale=0.1)
    torch.testing.assert_close(bounded, torch.tensor([0.0, 0.3, 0.25]))
    torch.testing.assert_close(reward_loss(REWARDS, reduction="mean"), torch.tensor(-2.5 / 3))


@pytest.mark.parametrize(
    ("target", "gradient"), [(None, [-0.25, -0.25, -0.25]), (1.5, [-0.25, -0.25, 0.25])]
)
def test_descent_raises_rewards_up_to_the_target(target, gradient):
    rewards = REWARDS.clone().requires_grad_()
    reward_loss(rewards, target, scale=0.75, reduction="mean").backward()
    torch.testing.assert_close(rewards.grad, torch.tensor(gradient))


def test_half_precision_is_read_in_float32():
    assert reward_loss(REWARDS.bfloat16()).dtype == torch.float32
    assert reward_loss(REWARDS.double()).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"scale": 0.0}, "`scale` must be positive and finite, got 0"),
        ({"scale": float("inf")}, "`scale` must be positive and finite"),
        ({"target": float("nan")}, "`target` must be finite"),
    ],
)
def test_settings_that_train_nothing_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        reward_loss(REWARDS, **arguments)
