"""What an iteration trains on: which steps, which clips, which reward of a step."""

import pytest
import torch

from gtsvj_reward.alignment import rollout, step_taken
from gtsvj_reward.alignment.advantages import best_and_worst, some_of, step_advantages, step_gains
from gtsvj_reward.alignment.average import AdapterAverage
from gtsvj_reward.alignment.steps import trained_steps, window
from tests.alignment.tiny import TEXTS, moved

KEYS = [(0, 1), (0, 2)]


def test_a_window_moves_by_one_step_and_never_holds_the_last():
    assert [list(window(i, 5, 2)) for i in range(4)] == [[0, 1], [1, 2], [2, 3], [0, 1]]
    assert window(7, 5, 4) == range(4)  # all that may be stochastic
    assert window(7, 5, 0) == range(5)
    for width in (-1, 5):
        with pytest.raises(ValueError, match=f"`window` must be .* got {width}"):
            window(0, 5, width)


def test_a_window_over_all_steps_is_no_window(policy):
    moved(policy)
    prompts = policy.encode(TEXTS)
    plain = rollout(policy, prompts, KEYS, steps=4, eta=1.0)
    whole = rollout(policy, prompts, KEYS, steps=4, eta=1.0, stochastic=window(3, 4, 3))
    assert torch.equal(plain.clean, whole.clean)
    assert plain.log_probabilities.keys() == whole.log_probabilities.keys() == {0, 1, 2}
    part = rollout(policy, prompts, KEYS, steps=4, eta=1.0, stochastic=window(1, 4, 1))
    assert set(part.log_probabilities) == {1}
    without = rollout(policy, prompts, KEYS, steps=4, eta=0.0)
    assert torch.equal(part.path[1], without.path[1])  # the step before the window has no noise
    assert (part.path[2] - without.path[2]).abs().max() > 0.1


def test_a_share_of_the_steps_is_drawn_by_its_key():
    steps = [0, 1, 2, 3, 5]
    assert trained_steps(steps, 1.0, 0) == steps
    assert trained_steps(steps, 0.01, 0)[0] in steps  # at least one
    drawn = [tuple(trained_steps(steps, 0.6, 0, key)) for key in range(200)]
    assert {len(some) for some in drawn} == {3}
    assert all(list(some) == sorted(set(some)) for some in drawn)
    counts = [sum(step in some for some in drawn) for step in steps]
    assert min(counts) > 90  # each three times in five: 120, with a deviation of 7


def test_the_best_and_the_worst_of_each_prompt_are_kept():
    rewards = torch.tensor([3.0, 0.0, 1.0, 2.0, 5.0, 5.0, 9.0, 7.0])
    prompts = ["a"] * 4 + ["b"] * 4
    # a: best 0, worst 1; b: best 6, worst 5 (of the equal ones the first counts as better)
    assert best_and_worst(rewards, prompts, 2) == [0, 1, 5, 6]
    assert best_and_worst(rewards, prompts, 4) == best_and_worst(rewards, prompts, 0)
    for keep in (3, 6, -2):
        with pytest.raises(ValueError, match=f"even number, at most the 4 clips .* got {keep}"):
            best_and_worst(rewards, prompts, keep)


def test_some_clips_of_a_rollout_are_as_likely_as_they_were(policy):
    moved(policy)
    made = [
        rollout(policy, policy.encode(TEXTS), keys, steps=3, eta=1.0)
        for keys in (KEYS, [(0, 3), (0, 4)], [(0, 5), (0, 6)])
    ]
    first, second = some_of(policy, made, [1, 4])  # none of the second batch
    assert (first.keys, second.keys) == (((0, 2),), ((0, 5),))
    assert first.prompts.texts == (TEXTS[1],)
    for part in (first, second):
        for index, old in part.log_probabilities.items():
            now = step_taken(policy, part, index, reference=False)
            assert now.kl is None
            torch.testing.assert_close(now.log_probability.detach(), old, rtol=0, atol=1e-5)


def test_gains_of_steps_add_up_to_the_score_less_that_of_the_first_prediction(policy):
    moved(policy)
    made = [rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=1.0, predictions=True)]

    def score(latents, texts):
        assert list(texts) == TEXTS
        return latents.sin().flatten(1).mean(1)

    gains = step_gains(made, score)
    assert gains.shape == (2, 3)
    whole = score(made[0].clean, TEXTS) - score(made[0].predictions[0], TEXTS)
    torch.testing.assert_close(gains.sum(1), whole)
    # x̂₀ of the last step is the clip: it ends without noise
    torch.testing.assert_close(gains[:, 2], torch.zeros(2))
    bare = rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=1.0)
    with pytest.raises(ValueError, match="predictions=True"):
        step_gains([bare], score)


def test_advantages_of_a_step_are_among_the_clips_of_a_prompt():
    gains = torch.tensor([[1.0, 0.0, 9.0], [3.0, 4.0, 9.0], [0.0, 2.0, 9.0], [0.0, 0.0, 9.0]])
    found = step_advantages(gains, ["a", "a", "b", "b"], [0, 1])
    expected = torch.tensor([[-1.0, -1, 0], [1, 1, 0], [0, 1, 0], [0, -1, 0]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_average_of_an_adapter_is_the_sum_with_falling_weights(policy):
    parameters = policy.parameters()
    average = AdapterAverage(parameters, 0.75)
    name, first = next(iter(parameters.items()))
    start = first.detach().clone()
    for _ in range(3):  # of a constant it is that constant
        average.update()
    assert all(torch.equal(average.values[n], p.detach()) for n, p in parameters.items())
    for value in (1.0, 2.0):
        torch.nn.init.constant_(first, value)
        average.update()
    # 3/4 (3/4 a + 1/4) + 1/4 2
    torch.testing.assert_close(average.values[name], start * 9 / 16 + 3 / 16 + 2 / 4)
    with average.in_place():
        assert torch.equal(first.detach(), average.values[name])
    assert torch.equal(first.detach(), torch.full_like(start, 2.0))
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match="ema_decay"):
            AdapterAverage(parameters, decay)
