"""The prompt score: laws on tiny generators, and what it finds in the toy world."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from gtsvj_reward import PromptScore
from gtsvj_reward.backbones import (
    SharingError,
    TextCondition,
    backbone_for,
    denoising_errors,
    noise_levels,
)
from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.reward import NonFiniteError, WeightedReward, prompt_sensitivity, text_of
from gtsvj_reward.toy.pipeline import load_pipeline
from gtsvj_reward.toy.world import FPS, draw_scene, render
from tests.backbones.test_denoising import scheduler_of
from tests.backbones.test_families import every_family, latents_of
from tests.pipelines import PIPELINES, cogvideox, frozen, wan

SHARES = (0.3, 0.6)


def score_of(family, **changes):
    transformer = family.transformer(0).requires_grad_(False)
    settings = {"levels": SHARES, "scheduler": scheduler_of(family), "check_statistics": False}
    return PromptScore(transformer, **{**settings, **changes})


@every_family
def test_it_is_the_error_without_the_prompt_minus_that_with_it(family):
    score, latents, text = score_of(family, seed=3), latents_of(family), family.text(2)
    out = score.details(latents, text=text)
    backbone = backbone_for(family.transformer(0))
    levels = noise_levels(backbone, SHARES, scheduler_of(family))
    with torch.no_grad():
        without = denoising_errors(backbone, latents, levels, seed=3)
        under = denoising_errors(backbone, latents, levels, text=text, seed=3)
    gains = without - under
    torch.testing.assert_close(out.rewards, gains.mean(dim=(1, 2)), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(torch.stack(out.trajectory), gains.mean(dim=1), rtol=1e-3, atol=1e-5)
    for index, name in enumerate(("level 0.3", "level 0.6")):
        torch.testing.assert_close(out.parts[name], gains[:, index].mean(1), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(
            out.aspect_trajectory[1][name], gains[1, index], rtol=1e-3, atol=1e-5
        )
    assert out.rewards.std() > 1e-4, "scores are all alike: the test proves nothing"


@every_family
def test_its_mean_is_that_of_its_trajectory_and_the_empty_prompt_scores_nothing(family):
    empty = family.text(2).rows(torch.tensor([1]))
    score = score_of(family, empty=empty)
    out = score.details(latents_of(family), text=family.text(2))
    assert torch.equal(torch.stack([steps.mean() for steps in out.trajectory]), out.raw)
    assert out.rewards[0].abs() > 1e-4
    assert out.rewards[1].abs() < 1e-5


@every_family
def test_gradients_equal_central_differences(family):
    transformer = family.transformer(0).double().requires_grad_(False)
    score = PromptScore(transformer, levels=(0.4,), scheduler=scheduler_of(family))
    latents = latents_of(family, 1, dtype=torch.float64).requires_grad_()
    text = family.text(2).rows(torch.tensor([1]))
    score(latents, text=text).sum().backward()
    direction = latents_of(family, 1, seed=9, dtype=torch.float64)
    with torch.no_grad():
        up, down = (score(latents + s * 0.02 * direction, text=text).sum() for s in (1, -1))
    slope = (latents.grad * direction).sum().float()  # scores are float32
    torch.testing.assert_close((up - down) / 0.04, slope, rtol=5e-3, atol=2e-4)
    assert slope.abs() > 1e-3


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_brings_its_scheduler_its_space_and_its_empty_prompt(name):
    pipe = frozen(PIPELINES[name])
    score, text = PromptScore(pipe, levels=SHARES, check_statistics=False), text_of(pipe, ["a dog"])
    assert score.scored_space == LatentSpace.from_pipeline(pipe)
    edge = 4 if score.backbone.patch_size == 2 else 3
    latents = torch.randn(1, 3, pipe.transformer.config.in_channels, edge, edge)
    by_hand = PromptScore(
        pipe.transformer, levels=SHARES, scheduler=pipe.scheduler, empty=text_of(pipe, [""])
    )
    assert torch.equal(score(latents, text=text), by_hand(latents, text=text))
    with pytest.raises(LatentSpaceError):
        score(latents, text=text, space=LatentSpace(id="foreign", channels=latents.shape[2]))


def test_of_two_experts_the_one_that_denoises_at_the_levels_is_asked():
    pipe = frozen(PIPELINES["wan"])
    other = frozen(PIPELINES["wan"]).transformer
    other.load_state_dict({name: 0.9 * value for name, value in other.state_dict().items()})
    pipe.register_modules(transformer_2=other)
    pipe.register_to_config(boundary_ratio=0.7)
    text = text_of(pipe, ["a dog"])
    latents = torch.randn(1, 3, pipe.transformer.config.in_channels, 4, 4)
    for levels, expert in (((0.5, 0.6), other), ((0.8,), pipe.transformer)):
        whole = PromptScore(pipe, levels=levels, check_statistics=False)
        alone = PromptScore(expert, levels=levels, empty=text_of(pipe, [""]))
        assert torch.equal(whole(latents, text=text), alone(latents, text=text))
    with pytest.raises(ValueError, match=r"both sides of the pipeline's boundary 0\.7"):
        PromptScore(pipe, levels=(0.65, 0.75))


def text_for(clips):
    generator = torch.Generator().manual_seed(3)
    return TextCondition(torch.randn(clips, 6, 8, generator=generator))


def test_clips_of_any_sizes_come_back_in_order_whatever_the_batch():
    pipe = frozen(cogvideox)
    clips = [torch.randn(3, 4, 4, 4), torch.randn(4, 4, 4, 4), torch.randn(3, 4, 4, 4)]
    text = text_for(3)
    together = PromptScore(pipe, check_statistics=False)(clips, text=text)
    small = PromptScore(pipe, check_statistics=False, batch_size=1)
    for index, clip in enumerate(clips):
        row = text.rows(torch.tensor([index]))
        alone = small(clip[None], text=row)
        torch.testing.assert_close(alone[0], together[index], rtol=1e-4, atol=1e-6)
    assert together.std() > 1e-4
    assert torch.equal(together, PromptScore(pipe, check_statistics=False)(clips, text=text))
    other = PromptScore(pipe, check_statistics=False, seed=1)(clips, text=text)
    assert (other - together).abs().min() > 1e-6


def test_a_policy_is_judged_by_its_base_and_weights_are_shared():
    from peft import LoraConfig

    pipe, latents, text = frozen(cogvideox), torch.randn(2, 3, 4, 4, 4), text_for(2)
    before = PromptScore(pipe, check_statistics=False)(latents, text=text)
    pipe.transformer.add_adapter(
        LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False), adapter_name="policy"
    )
    score = PromptScore(pipe, check_statistics=False)
    torch.testing.assert_close(score(latents, text=text), before, rtol=1e-4, atol=1e-6)
    owned = dict(score.backbone.base_tensors())
    assert owned["patch_embed.proj.weight"] is pipe.transformer.patch_embed.proj.weight
    with torch.no_grad():
        pipe.transformer.patch_embed.proj.weight.add_(1)
    with pytest.raises(SharingError, match="changed since the judge was attached"):
        score(latents, text=text)


def test_statistics_scale_the_score_and_leave_the_raw_one():
    pipe, latents, text = frozen(cogvideox), torch.randn(3, 3, 4, 4, 4), text_for(3)
    score = PromptScore(pipe, check_statistics=False)
    raw = score(latents, text=text)
    assert torch.equal(raw, score(latents, text=text, normalize=False))
    score.with_statistics(raw)
    scaled = score.details(latents, text=text)
    torch.testing.assert_close(scaled.rewards, (raw - raw.mean()) / raw.std())
    assert torch.equal(scaled.raw, raw)
    with pytest.raises(ValueError, match="two raw scores or more that differ"):
        score.with_statistics(raw[:1])


def test_it_joins_rewards_that_read_no_prompt():
    pipe, latents, text = frozen(cogvideox), torch.randn(2, 3, 4, 4, 4), text_for(2)
    score = PromptScore(pipe, check_statistics=False)

    def brightness(latents, *, space, fps, num_frames, text, normalize):
        return latents.mean(dim=(1, 2, 3, 4))

    both = WeightedReward([("prompt", score, 2.0), ("bright", brightness, 1.0)])
    expected = 2 * score(latents, text=text) + latents.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(both(latents, text=text), expected)


def test_what_it_cannot_score_is_refused():
    pipe, latents = frozen(cogvideox), torch.randn(2, 3, 4, 4, 4)
    score = PromptScore(pipe, check_statistics=False)
    with pytest.raises(ValueError, match=r"needs the prompts of the clips: pass `text`"):
        score(latents)
    with pytest.raises(ValueError, match="3 text embeddings for 2 clips"):
        score(latents, text=text_for(3))
    with pytest.raises(ValueError, match="encoded for a WanTransformer3DModel, this is a CogV"):
        score(latents, text=text_of(frozen(wan), ["a dog", "runs"]))
    with pytest.raises(ValueError, match=r"expected text embeddings \(2, 6, 8\), got \(2, 6, 5\)"):
        score(latents, text=TextCondition(torch.randn(2, 6, 5)))
    for settings, message in (
        ({"levels": (0.3, 0.3)}, r"`levels` must be different, got \[0.3, 0.3\]"),
        ({"levels": (300,)}, r"between 0 and 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"empty": text_for(2)}, "`empty` must be one prompt, got 2"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler()}, "is not trained by flow matching"),
    ):
        with pytest.raises(ValueError, match=message):
            PromptScore(pipe, **settings)
    with pytest.raises(ValueError, match="give `scheduler`, the pipeline's"):
        PromptScore(pipe.transformer)
    with pytest.raises(SharingError, match="requires grad"):
        PromptScore(PIPELINES["cogvideox"]())
    with pytest.raises(ValueError, match="only the first 1 blocks of the"):
        PromptScore(backbone_for(pipe.transformer, 1), scheduler=pipe.scheduler)
    with pytest.raises(NonFiniteError, match="the prompt score of clip 0"):
        score(latents, text=TextCondition(torch.full((2, 6, 8), 1e30)))


@pytest.fixture(scope="module")
def toy():
    """The toy world's generator, and latents of four scenes with their captions."""
    pipe = load_pipeline()
    scenes = [draw_scene(5, index) for index in range(4)]
    frames = torch.stack([render(scene) for scene in scenes]).permute(0, 1, 4, 2, 3) / 255
    latents = LatentSpace.from_pipeline(pipe).encode(frames, pipe.vae)
    return pipe, latents, [scene.caption for scene in scenes]


def test_clips_of_the_toy_world_score_highest_under_their_own_captions(toy):
    pipe, latents, captions = toy
    score, text = PromptScore(pipe, levels=(0.5,)), text_of(pipe, captions)
    found = prompt_sensitivity(score, latents, text, fps=FPS)
    assert found.share_own_higher == 1
    assert (found.own > 0).all()
    wrong = {"red": "green", "green": "blue", "blue": "yellow", "yellow": "red"}
    colours = [" ".join((w[0], wrong[w[1]], *w[2:])) for w in map(str.split, captions)]
    assert (found.own > score(latents, text=text_of(pipe, colours))).all()
