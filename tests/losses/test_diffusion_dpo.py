import math
from inspect import unwrap

import pytest
import torch
from hypothesis import given, strategies as st

from gtsvj_reward.losses import denoising_error, diffusion_dpo_loss

errors = st.floats(0, 2, allow_nan=False, width=32)
rows = st.lists(st.tuples(errors, errors, errors, errors), min_size=1, max_size=5)


def slow(chosen, rejected, old_chosen, old_rejected, beta):
    """Eq. 14 of Wallace et al. 2024 for one pair: with T ω(λ) in β and the mean over elements."""
    inside = -beta / 2 * ((chosen - old_chosen) - (rejected - old_rejected))
    return -math.log(1 / (1 + math.exp(-inside)))


@given(rows, st.sampled_from([0.5, 10.0, 40.0]))
def test_loss_equals_the_formula(table, beta):
    columns = torch.tensor(table, dtype=torch.float64).T
    found = diffusion_dpo_loss(*columns, beta=beta).loss
    expected = [slow(*row, beta) for row in columns.T.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_policy_that_equals_its_reference_has_log_2_and_a_gradient_towards_the_better_clip():
    chosen = torch.tensor([0.3], requires_grad=True)
    rejected = torch.tensor([0.4], requires_grad=True)
    found = diffusion_dpo_loss(chosen, rejected, chosen, rejected, beta=100.0)
    assert found.loss.item() == pytest.approx(math.log(2))
    found.loss.sum().backward()
    # d/de -log σ(-β/2 (e - e_ref)) = β/4 where the margin is 0
    assert chosen.grad.item() == pytest.approx(25.0)
    assert rejected.grad.item() == pytest.approx(-25.0)


def test_swapping_the_clips_swaps_the_sign_of_the_margin():
    values = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    found = diffusion_dpo_loss(*values, beta=10.0)
    swapped = diffusion_dpo_loss(*values[[1, 0, 3, 2]], beta=10.0)
    torch.testing.assert_close(found.margin, -swapped.margin)


def test_arguments_are_checked():
    one = torch.zeros(2)
    with pytest.raises(ValueError, match="beta"):
        diffusion_dpo_loss(one, one, one, one, beta=0.0)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        # below the shape annotations, which only tests check
        unwrap(diffusion_dpo_loss)(one, one, one, torch.zeros(3), beta=1.0)


def test_denoising_error_is_the_mean_square_of_a_clip():
    output, target = torch.zeros(2, 1, 2, 1, 1), torch.zeros(2, 1, 2, 1, 1)
    output[1, 0, 1] = 3.0
    assert denoising_error(output, target).tolist() == [0.0, 4.5]
    assert denoising_error(output.bfloat16(), target.bfloat16()).dtype == torch.float32
