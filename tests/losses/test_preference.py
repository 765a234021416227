"""Losses on pairs: values by hand, laws of the three models, extremes and refusals."""

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from gtsvj_reward.losses import bradley_terry_loss, bradley_terry_with_ties_loss, rao_kupper_loss

SCORES = st.floats(-8, 8)
FIRST, SECOND, TIE = torch.tensor([1]), torch.tensor([-1]), torch.tensor([0])


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def with_ties(first, second, labels):
    return bradley_terry_with_ties_loss(first, second, labels, 0.7)


def rao_kupper(first, second, labels):
    return rao_kupper_loss(first, second, labels, 0.8)


TIED = [with_ties, rao_kupper]
ALL = [bradley_terry_loss, *TIED]


def probabilities(loss, first, second):
    """P(first), P(second), P(tie) of one pair."""
    outcomes = [FIRST, SECOND] if loss is bradley_terry_loss else [FIRST, SECOND, TIE]
    return [loss(doubles(first), doubles(second), label).neg().exp().item() for label in outcomes]


def test_bradley_terry_by_hand():
    # Eq. 5 at r+ = log 3, r- = 0: 3 / (3 + 1) = 3/4, so 1/4 for the other.
    first, second = doubles(math.log(3), math.log(3), 0), doubles(0, 0, math.log(3))
    loss = bradley_terry_loss(first, second, torch.tensor([1, -1, 1]))
    torch.testing.assert_close(loss, -doubles(3 / 4, 1 / 4, 1 / 4).log())
    mean = bradley_terry_loss(first, second, torch.tensor([1, -1, 1]), "mean")
    torch.testing.assert_close(mean.item(), math.log(4 / 3 * 4 * 4) / 3)


def test_with_ties_by_hand():
    # Eq. 7 with e^{a/g} = 3, e^{b/g} = 2: 3/6, 2/6, and 1/6 left over for the tie.
    for gamma in (1.0, 0.25):
        first = doubles(math.log(3)).expand(3) * gamma
        second = doubles(math.log(2)).expand(3) * gamma
        loss = bradley_terry_with_ties_loss(first, second, torch.tensor([1, -1, 0]), gamma)
        torch.testing.assert_close(loss, -doubles(3 / 6, 2 / 6, 1 / 6).log())
    mean = bradley_terry_with_ties_loss(
        first, second, torch.tensor([1, -1, 0]), 0.25, reduction="mean"
    )
    torch.testing.assert_close(mean, loss.mean())


def test_rao_kupper_by_hand():
    # VideoReward's form, theta = 5: P(first) = a / (a + 5 b), P(second) = b / (5 a + b),
    # P(tie) = 24 a b / ((a + 5 b)(5 a + b)). a = b: 1/6, 1/6, 24/36 = 2/3.
    # a = 3, b = 1: 3/8, 1/16, 72/128 = 9/16; together 6/16 + 1/16 + 9/16 = 1.
    labels, c = torch.tensor([1, -1, 0]), math.log(5)
    zero = torch.zeros(3, dtype=torch.float64)
    loss = rao_kupper_loss(zero, zero, labels, c)
    torch.testing.assert_close(loss, -doubles(1 / 6, 1 / 6, 2 / 3).log())
    loss = rao_kupper_loss(zero + math.log(3), zero, labels, c)
    torch.testing.assert_close(loss, -doubles(3 / 8, 1 / 16, 9 / 16).log())
    mean = rao_kupper_loss(zero, zero, labels, c, "mean")
    torch.testing.assert_close(mean.item(), math.log(6 * 6 * 1.5) / 3)


def test_each_is_a_special_case_of_another():
    first, second = torch.randn(2, 9, dtype=torch.float64)
    labels = torch.tensor([1, -1, 1, 1, -1, -1, 1, -1, 1])
    plain = bradley_terry_loss(first, second, labels)
    torch.testing.assert_close(rao_kupper_loss(first, second, labels, 0), plain)
    # High up, where the 1 of Eq. 7 is nothing beside the scores, gamma is all that is left of it.
    raised = bradley_terry_with_ties_loss(first + 60, second + 60, labels, 0.5)
    torch.testing.assert_close(raised, bradley_terry_loss(2 * first, 2 * second, labels))


@pytest.mark.parametrize("loss", ALL)
@settings(max_examples=40)
@given(first=SCORES, second=SCORES)
def test_the_outcomes_have_probability_1_together(loss, first, second):
    chances = probabilities(loss, first, second)
    assert sum(chances) == pytest.approx(1, abs=1e-9)
    assert (chances[0] > chances[1]) == (first > second) or first == pytest.approx(second)


@pytest.mark.parametrize("loss", ALL)
@settings(max_examples=40)
@given(first=SCORES, second=SCORES, label=st.sampled_from([-1, 0, 1]))
def test_swapping_the_clips_swaps_the_answers(loss, first, second, label):
    label = label or int(loss is bradley_terry_loss)
    forth = loss(doubles(first), doubles(second), torch.tensor([label]))
    back = loss(doubles(second), doubles(first), torch.tensor([-label]))
    torch.testing.assert_close(forth, back)


@pytest.mark.parametrize("loss", [bradley_terry_loss, rao_kupper])
@settings(max_examples=40)
@given(first=SCORES, second=SCORES, shift=st.floats(-50, 50), label=st.sampled_from([-1, 1]))
def test_only_the_difference_counts(loss, first, second, shift, label):
    label = torch.tensor([label])
    shifted = loss(doubles(first + shift), doubles(second + shift), label)
    torch.testing.assert_close(shifted, loss(doubles(first), doubles(second), label))


@settings(max_examples=40)
@given(first=SCORES, second=SCORES, shift=st.floats(0.5, 50))
def test_eq_7_is_not_shift_invariant(first, second, shift):
    low = probabilities(with_ties, first, second)
    high = probabilities(with_ties, first + shift, second + shift)
    assert high[2] < low[2], "the tie loses where both scores rise"
    assert high[0] > low[0]
    assert high[1] > low[1]
    # The odds between the two clips stay.
    assert high[0] / high[1] == pytest.approx(low[0] / low[1])


@settings(max_examples=40)
@given(gap=st.floats(0, 8), more=st.floats(0.1, 5))
def test_a_rao_kupper_tie_is_likeliest_between_equals(gap, more):
    chances = [probabilities(rao_kupper, d, 0)[2] for d in (gap, gap + more)]
    assert chances[0] > chances[1]
    limit = (math.exp(0.8) - 1) / (math.exp(0.8) + 1)
    assert probabilities(rao_kupper, 3, 3)[2] == pytest.approx(limit)


@pytest.mark.parametrize("loss", ALL)
def test_gradients_are_those_of_finite_differences(loss):
    first, second = torch.randn(2, 6, dtype=torch.float64, requires_grad=True).unbind()
    labels = torch.tensor([1, -1, 0, 1, -1, 0])
    if loss is bradley_terry_loss:
        labels[labels == 0] = 1
    first, second = (side.detach().requires_grad_() for side in (first, second))
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, labels), (first, second))


@pytest.mark.parametrize("loss", ALL)
def test_a_step_downhill_moves_scores_towards_the_answer(loss):
    first, second = torch.tensor([0.5, 0.5]), torch.tensor([-0.2, -0.2])
    first, second = first.requires_grad_(), second.requires_grad_()
    loss(first, second, torch.tensor([1, -1])).sum().backward()
    assert first.grad[0] < 0 < first.grad[1]
    assert second.grad[1] < 0 < second.grad[0]


def test_a_tie_pulls_scores_together_or_all_down():
    for loss, signs in ((rao_kupper, (1, -1)), (with_ties, (1, 1))):
        first, second = (torch.tensor([x]).requires_grad_() for x in (0.9, -0.3))
        loss(first, second, TIE).backward()
        assert (first.grad.sign().item(), second.grad.sign().item()) == signs


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_scores_give_finite_losses_and_gradients(loss, size):
    labels = torch.tensor([1, -1, 1, -1] if loss is bradley_terry_loss else [1, -1, 0, 0])
    first = torch.tensor([size, size, -size, size], requires_grad=True)
    second = torch.tensor([-size, -size, size, size], requires_grad=True)
    values = loss(first, second, labels)
    values.sum().backward()
    for tensor in (values, first.grad, second.grad):
        assert tensor.isfinite().all()
    assert values[0] == 0
    assert values[1] >= size


@pytest.mark.parametrize("threshold", [1e-300, 1e-8, 1.0, 30.0, 1e3, 1e6])
def test_rao_kupper_holds_for_any_threshold(threshold):
    first = doubles(0, 0, 0)
    loss = rao_kupper_loss(first, first, torch.tensor([1, -1, 0]), threshold)
    assert loss.isfinite().all()
    # tanh(c / 2) is (e^c - 1) / (e^c + 1).
    assert math.exp(-loss[2].item()) == pytest.approx(math.tanh(threshold / 2))


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_in_float32(loss, dtype):
    first, second = torch.tensor([2.47, -1.0]).to(dtype), torch.tensor([2.53, 0.3]).to(dtype)
    labels = torch.tensor([1, -1])
    found = loss(first, second, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(first.float(), second.float(), labels))


@pytest.mark.parametrize("loss", ALL)
def test_pairs_do_not_touch_each_other(loss):
    first, second = torch.randn(2, 5)
    labels = torch.tensor([1, -1, 1, -1, 1], dtype=torch.int8)
    alone = [loss(first[i : i + 1], second[i : i + 1], labels[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(loss(first, second, labels), torch.cat(alone))
    assert torch.cat(alone).std() > 0.1


def test_ties_are_refused_where_the_model_has_none():
    scores, labels = torch.zeros(4), torch.tensor([1, 0, -1, 0])
    message = r"2 of 4 pairs are ties \(label 0; the first is pair 1\)"
    with pytest.raises(ValueError, match=f"{message}.*Use `rao_kupper_loss`"):
        bradley_terry_loss(scores, scores, labels)
    with pytest.raises(ValueError, match=f"{message}.*Use a positive threshold"):
        rao_kupper_loss(scores, scores, labels, 0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", ALL)
def test_bad_pairs_are_refused(loss):
    with pytest.raises(ValueError, match=r"pair 1 has the label 2 \(1 of 2 pairs\)"):
        loss(torch.zeros(2), torch.zeros(2), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"got torch\.float32"):
        loss(torch.zeros(2), torch.zeros(2), torch.ones(2))
    with pytest.raises(ValueError, match=r"got torch\.bool"):
        loss(torch.zeros(2), torch.zeros(2), torch.tensor([True, True]))
    with pytest.raises(ValueError, match=r"got shapes \(2,\), \(1,\) and \(2,\)"):
        loss(torch.zeros(2), torch.zeros(1), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match=r"got shapes \(2,\), \(2,\) and \(1,\)"):
        loss(torch.zeros(2), torch.zeros(2), torch.tensor([1]))
    with pytest.raises(ValueError, match="at least one pair"):
        loss(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match=r"got shapes \(2, 1\)"):
        loss(torch.zeros(2, 1), torch.zeros(2, 1), torch.ones(2, 1, dtype=torch.long))


@pytest.mark.usefixtures("unchecked")
def test_bad_settings_are_refused():
    pair = torch.zeros(1), torch.zeros(1), FIRST
    for gamma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="`gamma` must be positive and finite"):
            bradley_terry_with_ties_loss(*pair, gamma)
    for threshold in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="`threshold` must be >= 0 logits"):
            rao_kupper_loss(*pair, threshold)
    for call in (
        lambda: bradley_terry_loss(*pair, "sum"),
        lambda: bradley_terry_with_ties_loss(*pair, 1.0, "sum"),
        lambda: rao_kupper_loss(*pair, 1.0, "sum"),
    ):
        with pytest.raises(ValueError, match='"none" or "mean", got \'sum\''):
            call()
