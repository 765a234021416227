"""Sensitivity to the prompt: of made-up rewards by hand, of real judges that listen or do not."""

import pytest
import torch

from gtsvj_reward import GTSVJReward
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.reward.combine import RewardEnsemble, WeightedReward
from gtsvj_reward.reward.prompts import prompt_sensitivity
from tests.tiny import clips, tiny_judge


def text_of(*values):
    """Prompts of one word with one number each."""
    return TextCondition(torch.tensor(values)[:, None, None])


def tripled(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
    """A reward that is three times the prompt's number."""
    return 3 * text.embeds[:, 0, 0]


def test_by_hand():
    # Own scores 3, 6, 12, of standard deviation sqrt((16 + 1 + 25) / 2) = sqrt(21); with the next
    # clip's prompt 6, 12, 3: changes 3, 6, 9, mean 6; one of three prefers its own.
    found = prompt_sensitivity(tripled, clips(3), text_of(1.0, 2.0, 4.0))
    assert found.own.tolist() == [3, 6, 12]
    assert found.other.tolist() == [6, 12, 3]
    assert found.mean_change == pytest.approx(6 / 21**0.5)
    assert found.share_own_higher == pytest.approx(1 / 3)
    assert not found.ignores_prompt
    shifted = prompt_sensitivity(tripled, clips(3), text_of(1.0, 2.0, 4.0), shift=2)
    assert shifted.other.tolist() == [12, 3, 6]


def test_a_callable_that_does_not_listen_is_run_and_found_out():
    def deaf(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
        return latents.mean(dim=(1, 2, 3, 4))

    found = prompt_sensitivity(deaf, clips(3), text_of(1.0, 2.0, 4.0))
    assert (found.mean_change, found.share_own_higher, found.ignores_prompt) == (0, 0, False)
    assert torch.equal(found.own, found.other)


def test_a_judge_trained_without_prompts_is_not_run():
    judge = GTSVJReward(tiny_judge())
    text = TextCondition(torch.randn(2, 6, 8))
    for reward in (judge, RewardEnsemble({"a": judge, "b": judge})):
        found = prompt_sensitivity(reward, clips(2), text)
        assert found.ignores_prompt
        assert (found.mean_change, found.share_own_higher) == (0, 0)
        assert found.own is found.other is None


def test_a_judge_that_reads_prompts():
    judge = GTSVJReward(tiny_judge(text_input="prompt"))
    latents, text = clips(3).requires_grad_(), TextCondition(torch.randn(3, 6, 8))
    rolled = TextCondition(text.embeds[[1, 2, 0]])
    found = prompt_sensitivity(judge, latents, text)
    torch.testing.assert_close(found.own, judge(latents, text=text).detach())
    torch.testing.assert_close(found.other, judge(latents, text=rolled).detach())
    assert found.mean_change > 1e-3
    assert not found.own.requires_grad
    raw = prompt_sensitivity(judge, latents, text, normalize=False)
    assert raw.mean_change == pytest.approx(found.mean_change, rel=1e-3)
    mixed = WeightedReward([("a", judge, 1.0), ("b", GTSVJReward(tiny_judge()), 1.0)])
    both = prompt_sensitivity(mixed, latents, text)
    torch.testing.assert_close(both.own - both.other, found.own - found.other, atol=1e-5, rtol=1e-4)


def test_a_prompt_that_meets_itself_is_refused():
    with pytest.raises(ValueError, match=r"clip 1 has the prompt of clip 2 \(1 of 3 clips"):
        prompt_sensitivity(tripled, clips(3), text_of(1.0, 2.0, 2.0))
    with pytest.raises(ValueError, match=r"clip 0 has the prompt of clip 0 \(3 of 3"):
        prompt_sensitivity(tripled, clips(3), text_of(1.0, 2.0, 4.0), shift=3)
    # Two clips of each prompt in a row: a shift of 2 passes them.
    pairs = text_of(1.0, 1.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="2 of 4 clips get their own prompt"):
        prompt_sensitivity(tripled, clips(4), pairs)
    assert prompt_sensitivity(tripled, clips(4), pairs, shift=2).mean_change > 0
    # The same embeddings behind another mask are another prompt.
    mask = torch.tensor([[True], [True], [False]])
    masked = TextCondition(text_of(1.0, 2.0, 2.0).embeds, mask)
    assert prompt_sensitivity(tripled, clips(3), masked).mean_change > 0


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="got 1 clips and 1 prompts"):
        prompt_sensitivity(tripled, clips(1), text_of(1.0))
    with pytest.raises(ValueError, match="got 3 clips and 2 prompts"):
        prompt_sensitivity(tripled, clips(3), text_of(1.0, 2.0))

    def constant(latents, *, space=None, fps=None, num_frames=None, text=None, normalize=True):
        return torch.full((len(latents),), 0.5)

    with pytest.raises(ValueError, match=r"all 2 clips score 0\.5 with their own prompts"):
        prompt_sensitivity(constant, clips(2), text_of(1.0, 2.0))
