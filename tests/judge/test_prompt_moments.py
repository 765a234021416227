"""Moment judges that read prompts: what the prompt changes at a level of noise."""

import pytest
import torch
from torch.nn.functional import layer_norm

from gtsvj_reward import GTSVJReward, JudgeConfig
from gtsvj_reward.backbones import NoiseLevel, TextCondition
from gtsvj_reward.backbones.denoising import level_noise
from gtsvj_reward.judge import load_judge, save_judge
from gtsvj_reward.judge.card import model_card
from gtsvj_reward.judge.prompt_moments import NOISE_SEED, prompt_moments
from tests.backbones.families import FAMILIES
from tests.backbones.test_families import every_family, latents_of
from tests.judge.test_moment_judge import moment_judge
from tests.tiny import ASPECTS, clips, tiny_space

LEVEL = NoiseLevel(400.0, 0.8, 0.6, "v_prediction")
READS = {"text_input": "prompt", "prompt_level": LEVEL, "prompt_dropout": 0.1}


def text_for(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return TextCondition(torch.randn(count, 6, 8, generator=generator))


def test_moments_by_hand():
    # Two tokens of two channels, normalised already: under the prompt (1, -1) and (-1, 1), without
    # (1, -1) twice. Differences (0, 0) and (-2, 2): mean (-1, 1); times (1, -1): (-2, -2), mean -1.
    under = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]])
    without = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    found = prompt_moments(under, without)
    torch.testing.assert_close(found, torch.tensor([[[-1.0, 1.0, -1.0, -1.0]]]), atol=1e-4, rtol=0)


@every_family
def test_they_are_what_the_prompt_changes_in_the_unmodified_model(family):
    model, latents, text = family.transformer(0), latents_of(family), family.text(2)
    judge = moment_judge(family, transformer=model, taps=[0, 1], **READS)
    blind = moment_judge(family, transformer=model, taps=[0, 1])
    steps = family.tokens(family.sizes[0])[0]
    if steps < 3:
        pytest.skip("the clip has fewer steps than moments need")
    noisy = LEVEL.noisy(latents, level_noise(LEVEL, latents.shape[1:], NOISE_SEED))
    under, without = (
        family.hidden(model, noisy, 1, LEVEL.timestep, some).unflatten(1, (steps, -1))
        for some in (text, family.null_text(2))
    )
    first, second = (layer_norm(tokens, tokens.shape[-1:]) for tokens in (under, without))
    difference = first - second
    added = torch.cat([difference.mean(2), (difference * second).mean(2)], dim=2)
    expected = torch.cat([blind.moments(latents), added], dim=2)
    torch.testing.assert_close(judge.moments(latents, text), expected, rtol=1e-3, atol=1e-4)
    assert added.abs().max() > 1e-3
    alone = judge.moments(latents)
    assert torch.equal(alone[..., : -added.shape[2]], blind.moments(latents))
    assert not alone[..., -added.shape[2] :].any()


def test_gradients_reach_the_latents_through_prompt_and_noise():
    judge = moment_judge(**READS).double()
    latents = clips(2).double().requires_grad_()
    text = TextCondition(text_for(2).embeds.double())
    judge(latents, text).scores.mean(1).sum().backward()
    direction = clips(2, seed=9).double()
    with torch.no_grad():
        up, down = (
            judge(latents + s * 1e-3 * direction, text).scores.mean(1).sum() for s in (1, -1)
        )
    slope = (latents.grad * direction).sum()
    torch.testing.assert_close((up - down) / 2e-3, slope, rtol=1e-3, atol=1e-6)


def test_a_checkpoint_keeps_how_prompts_are_read(tmp_path):
    judge = moment_judge(
        stage="aspects", aspects=ASPECTS, penalties=(1.0,) * 7, has_energy=True, **READS
    )
    save_judge(judge, tmp_path)
    loaded = load_judge(tmp_path, backbone=judge.backbone)
    assert loaded.config == judge.config
    assert loaded.config.prompt_level == LEVEL
    reward, text = GTSVJReward(loaded), text_for(3)
    out = reward.details(clips(3), text=text, normalize=False)
    assert torch.equal(out.rewards, GTSVJReward(judge)(clips(3), text=text, normalize=False))
    other = reward(clips(3), text=text.rows(torch.tensor([1, 2, 0])), normalize=False)
    assert (other - out.rewards).abs().min() > 1e-5
    without = reward.details(clips(3), normalize=False)
    assert (without.rewards - out.rewards).abs().min() > 1e-5
    assert out.uncertainty is not None


def test_the_card_says_how_prompts_are_read():
    card = model_card(moment_judge(**READS).config)
    assert "cost two more passes, over noised latents. It also scores clips without prompts" in card
    assert "| prompt sensitivity | not measured" in card
    assert "| prompt sensitivity | 0, it ignores prompts |" in model_card(moment_judge().config)


def test_a_judge_that_never_went_without_refuses_clips_without_prompts():
    reward = GTSVJReward(moment_judge(**{**READS, "prompt_dropout": 0.0}))
    with pytest.raises(ValueError, match=r"\(text_input='prompt'\).*\(prompt_dropout=0\): pass"):
        reward(clips(2), normalize=False)


def test_settings_that_do_not_go_together_are_refused():
    fields = {"base_model": "tiny", "latent_space": tiny_space()}
    moments = {"readout": "moments", "lora_rank": 0}
    for settings, message in (
        ({**moments, "prompt_level": LEVEL}, "`prompt_level` is for readout='moments'"),
        ({**READS}, "`prompt_level` is for readout='moments'"),
        ({**moments, **READS, "prompt_dropout": 1.0}, r"must lie in \[0, 1\)"),
        ({**moments, "prompt_dropout": 0.1}, "is for moment judges that read prompts"),
    ):
        with pytest.raises(ValueError, match=message):
            JudgeConfig(**fields, **settings)
    with pytest.raises(ValueError, match="needs a block among its `taps`"):
        moment_judge(taps=[0], **READS)
    with pytest.raises(ValueError, match="depends on the scheduler"):
        moment_judge(text_input="prompt")


def test_without_a_level_there_is_as_much_noise_as_clip():
    family = next(family for family in FAMILIES if family.name == "wan-2.1")
    judge = moment_judge(family, text_input="prompt")
    assert judge.config.prompt_level == NoiseLevel(500.0, 0.5, 0.5, "flow_prediction")
