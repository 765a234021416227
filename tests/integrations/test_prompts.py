"""Prompts through every door: what reaches a reward that reads them, and refusals that name it."""

from types import SimpleNamespace

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace, PromptScore
from gtsvj_reward.integrations.ddpo import DDPOReward, flow_grpo_scorer
from gtsvj_reward.integrations.trl import PromptRewardFunc
from gtsvj_reward.integrations.trl.texts import noise_seed
from gtsvj_reward.reward import PromptEncoder, WeightedReward, text_of
from gtsvj_reward.sampling import best_of_n
from tests.pipelines import SIZES, cogvideox, frozen
from tests.tiny import clips, tiny_judge

PROMPTS = ["a dog runs", "a red square"]
CALL = {**SIZES["cogvideox"], "num_inference_steps": 2, "guidance_scale": 1.0}


@pytest.fixture
def pipe():
    return frozen(cogvideox)


@pytest.fixture
def score(pipe):
    return PromptScore(pipe, levels=(0.5,), check_statistics=False)


def test_best_of_n_encodes_its_prompt(pipe, score):
    found = best_of_n(pipe, score, PROMPTS[0], 2, keep_latents="all", **CALL)
    expected = score(found.latents, text=text_of(pipe, PROMPTS[:1] * 2))
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-6)
    assert found.scores.std() > 1e-6
    other = text_of(pipe, PROMPTS[1:])
    given = best_of_n(pipe, score, PROMPTS[0], 2, text=other, **CALL)
    assert (given.scores - found.scores).abs().min() > 1e-6


@pytest.mark.parametrize("how", [DDPOReward, flow_grpo_scorer])
def test_the_ddpo_form_encodes_the_prompts_of_each_call(pipe, score, how):
    function = how(score, images_are="latents", encode=PromptEncoder(pipe))
    scorer = function if how is DDPOReward else function()
    rewards, _ = scorer(clips(2), PROMPTS, None)
    expected = score(clips(2), text=text_of(pipe, PROMPTS))
    torch.testing.assert_close(torch.as_tensor(rewards), expected)
    assert expected.std() > 1e-6


def test_trl_encodes_what_the_policy_wrote(pipe, score):
    function = PromptRewardFunc(score, pipe, **CALL)
    step = SimpleNamespace(global_step=3)
    found = function(["x", "y"], PROMPTS, trainer_state=step)
    seeds = [noise_seed(0, prompt, 3) for prompt in ("x", "y")]
    made = function.generate(list(zip(PROMPTS, seeds, strict=True)))
    expected = score(made, text=text_of(pipe, PROMPTS))
    torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-6)


def test_a_sum_gives_prompts_to_its_part_that_reads_them(pipe, score):
    judge = GTSVJReward(
        tiny_judge(latent_space=LatentSpace.from_pipeline(pipe), geometry=None),
        check_statistics=False,
    )
    both = WeightedReward([("quality", judge, 1.0), ("prompt", score, 2.0)])
    found = best_of_n(pipe, both, PROMPTS[0], 2, keep_latents="all", **CALL)
    text = text_of(pipe, PROMPTS[:1] * 2)
    expected = judge(found.latents) + 2 * score(found.latents, text=text)
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-5)


def test_doors_without_an_encoder_refuse_and_name_the_setting(pipe, score):
    with pytest.raises(ValueError, match=r"text_input='prompt'.* give `encode`, a PromptEncoder"):
        DDPOReward(score, images_are="latents")
    with pytest.raises(ValueError, match="reads no prompts: leave `encode` out"):
        DDPOReward(GTSVJReward(tiny_judge()), images_are="latents", encode=PromptEncoder(pipe))
    embeds = torch.randn(1, 6, 8)
    with pytest.raises(ValueError, match="needs the prompts of the clips: pass `text`"):
        best_of_n(
            pipe, score, None, 1, **CALL,
            call_arguments={"prompt_embeds": embeds, "negative_prompt_embeds": embeds},
        )  # fmt: skip
