import json

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from gtsvj_reward.alignment import PromptStatistics, check_advantages
from gtsvj_reward.reward import group_z_scores

PROMPTS = ("a", "b", "c")
rewards = st.floats(-5, 5, allow_nan=False, width=32)
iteration = st.lists(st.tuples(rewards, st.sampled_from(PROMPTS)), min_size=1, max_size=6)


def slow(history, batch, *, length, enough, epsilon):
    """Advantages of a batch, from all rewards ever seen, one clip at a time."""
    seen = history + batch
    found = []
    for value, prompt in batch:
        own = [v for v, p in seen if p == prompt][-length:]
        basis = own if len(own) >= enough else [v for v, _ in batch]
        found.append((value - np.mean(basis)) / (np.std(basis) + epsilon))
    return found


@given(st.lists(iteration, min_size=1, max_size=4))
def test_advantages_equal_the_slow_reference(iterations):
    statistics = PromptStatistics(length=4, enough=2, epsilon=0.1)
    history = []
    for batch in iterations:
        values, prompts = zip(*batch, strict=True)
        found = statistics.advantages(torch.tensor(values), prompts)
        expected = slow(history, batch, length=4, enough=2, epsilon=0.1)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, rtol=1e-4)
        history += batch


def test_an_iteration_whose_rewards_are_all_the_same_is_refused_as_that():
    rewards = torch.tensor([0.5, 0.5, 2.0, 2.0])
    check_advantages(group_z_scores(rewards, ["a", "b", "b", "a"]), rewards)
    with pytest.raises(
        ValueError, match=r"each of the 4 clips has the same reward .* \(0.5 to 2\)"
    ):
        check_advantages(group_z_scores(rewards, ["a", "a", "b", "b"]), rewards)
    constant = torch.full((3,), 0.1)
    with pytest.raises(ValueError, match="has the same reward as the others of its prompt"):
        check_advantages(PromptStatistics().advantages(constant, ["a", "b", "c"]), constant)


def test_a_state_goes_through_json():
    statistics, again = PromptStatistics(), PromptStatistics()
    statistics.advantages(torch.arange(12.0), ["a", "b", "c"] * 4)
    again.load(json.loads(json.dumps(statistics.state())))
    new, prompts = torch.tensor([3.0, 9.0]), ["a", "c"]
    assert torch.equal(statistics.advantages(new, prompts), again.advantages(new, prompts))


def test_advantages_are_cut_off_from_the_graph_of_differentiable_rewards():
    rewards = torch.arange(4.0, requires_grad=True)
    found = PromptStatistics().advantages(rewards * 2, ["a"] * 4)
    assert found.abs().max() > 1
    assert not found.requires_grad


def test_equal_rewards_have_no_advantage():
    found = PromptStatistics().advantages(torch.full((8,), 0.1), ["a"] * 8)
    assert found.abs().max() < 1e-6


def test_what_cannot_be_normalised_is_refused():
    statistics = PromptStatistics()
    with pytest.raises(ValueError, match="clip 1 is nan"):
        statistics.advantages(torch.tensor([0.0, float("nan")]), ["a", "b"])
    with pytest.raises(ValueError, match="1 prompts"):
        statistics.advantages(torch.zeros(2), ["a"])
    with pytest.raises(ValueError, match="enough"):
        PromptStatistics(length=4, enough=5)
    with pytest.raises(ValueError, match="epsilon"):
        PromptStatistics(epsilon=0.0)
