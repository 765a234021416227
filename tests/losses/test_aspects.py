"""The aspect loss: masked entries are nothing, weights restore the original scales."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward.losses import aspect_loss


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def example():
    """Three clips of three aspects, six labels."""
    predicted = doubles([1, 2, 3], [0, -1, 4], [5, 5, 5])
    target = doubles([0, 2, math.nan], [math.nan, 1, math.nan], [5, 2, 4])
    return predicted, target, ~target.isnan()


def test_by_hand():
    # Squared errors: clip 0: 1, 0; clip 1: 4; clip 2: 0, 9, 1.
    torch.testing.assert_close(aspect_loss(*example()), doubles(1 / 2, 4, 10 / 3))
    # All six labels alike: 15 / 6, which is not the mean of the three.
    mean = aspect_loss(*example(), reduction="mean")
    torch.testing.assert_close(mean.item(), 15 / 6)


def test_weights_by_hand():
    # Weights 2, 1, 10: clip 0: (2 + 0) / 2; clip 1: 4; clip 2: (0 + 9 + 10) / 3; all: 25 / 6.
    weights = doubles(2, 1, 10)
    torch.testing.assert_close(aspect_loss(*example(), weights), doubles(1, 4, 19 / 3))
    mean = aspect_loss(*example(), weights, "mean")
    torch.testing.assert_close(mean.item(), 25 / 6)


def test_weights_of_the_squared_ranges_give_the_error_on_the_original_scales():
    low, high = doubles(1, -2, 0), doubles(5, 2, 10)
    generator = torch.Generator().manual_seed(0)
    raw = torch.rand(2, 4, 3, dtype=torch.float64, generator=generator) * (high - low) + low
    normal = (raw - low) / (high - low)
    mask = torch.rand(4, 3, generator=generator) > 0.3
    mask[:, 0] = True
    found = aspect_loss(*normal, mask, (high - low) ** 2, "mean")
    torch.testing.assert_close(found, ((raw[0] - raw[1]) ** 2)[mask].mean())


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("hidden", [math.nan, math.inf, 1e300, -7.0])
def test_what_is_masked_contributes_exactly_nothing(reduction, hidden):
    predicted, target, mask = example()
    losses, gradients = [], []
    for value in (0.0, hidden):
        leaf = predicted.clone().requires_grad_()
        loss = aspect_loss(
            leaf, target.masked_fill(~mask, value), mask, doubles(2, 1, 10), reduction
        )
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append(leaf.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
    assert (gradients[1][~mask] == 0).all()
    assert gradients[1][mask].count_nonzero() == 4, "two of the six errors are 0"


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_masked_prediction_counts_nothing_either(reduction):
    predicted, target, mask = example()
    leaf = predicted.masked_fill(~mask, math.nan).requires_grad_()
    loss = aspect_loss(leaf, target, mask, reduction=reduction)
    assert torch.equal(loss, aspect_loss(predicted, target, mask, reduction=reduction))
    loss.sum().backward()
    assert leaf.grad.isfinite().all()


def test_gradients_are_those_of_finite_differences():
    predicted, target, mask = example()
    for reduction in ("none", "mean"):
        assert torch.autograd.gradcheck(
            lambda p, reduction=reduction: aspect_loss(
                p, target, mask, doubles(2, 1, 10), reduction
            ),
            predicted.requires_grad_(),
        )


@settings(max_examples=40)
@given(
    labels=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_it_is_a_loop_over_the_labels(labels, seed):
    labels[0][0] = True
    generator = torch.Generator().manual_seed(seed)
    predicted, target = torch.randn(2, len(labels), 3, generator=generator).unbind()
    weights = torch.rand(3, generator=generator)
    errors = [
        [
            weights[q].item() * (predicted[n, q] - target[n, q]).item() ** 2
            for q in range(3)
            if row[q]
        ]
        for n, row in enumerate(labels)
    ]
    flat = [error for row in errors for error in row]
    mean = aspect_loss(predicted, target, torch.tensor(labels), weights, "mean")
    assert mean.item() == pytest.approx(sum(flat) / len(flat), rel=1e-5)
    if all(errors):
        found = aspect_loss(predicted, target, torch.tensor(labels), weights)
        expected = [sum(row) / len(row) for row in errors]
        assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_half_precision_is_read_in_float32():
    predicted, target, mask = example()
    loss = aspect_loss(predicted.bfloat16(), target.bfloat16(), mask)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, aspect_loss(predicted, target, mask).float())


def test_a_clip_without_labels():
    predicted, target, mask = example()
    mask[1] = False
    with pytest.raises(ValueError, match=r"clip 1 has no label \(1 of 3 clips\)"):
        aspect_loss(predicted, target, mask)
    rest = [0, 2]
    mean = aspect_loss(predicted, target, mask, reduction="mean")
    expected = aspect_loss(predicted[rest], target[rest], mask[rest], reduction="mean")
    torch.testing.assert_close(mean, expected)


@pytest.mark.usefixtures("unchecked")
def test_bad_batches_are_refused():
    predicted, target, mask = example()
    for reduction in ("none", "mean"):
        with pytest.raises(ValueError, match="none of 3 clips has a label for any of 3 aspects"):
            aspect_loss(predicted, target, torch.zeros_like(mask), reduction=reduction)
    with pytest.raises(ValueError, match=r"clip 0, aspect 2 is nan \(3 labels are not finite\)"):
        aspect_loss(predicted, target, torch.ones_like(mask))
    with pytest.raises(ValueError, match=r"got \(3, 3\), \(1, 3\) and \(3, 3\)"):
        aspect_loss(predicted, target[2:], mask)
    with pytest.raises(ValueError, match=r"boolean mask of one shape.*torch\.int64"):
        aspect_loss(predicted, target, mask.long())
    with pytest.raises(ValueError, match=r"each of 3 aspects, got shape \(2,\)"):
        aspect_loss(predicted, target, mask, doubles(1, 1))
    for bad in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="the weight of aspect 1 is"):
            aspect_loss(predicted, target, mask, doubles(1, bad, 1))
    with pytest.raises(ValueError, match='"none" or "mean", got \'sum\''):
        aspect_loss(predicted, target, mask, reduction="sum")
