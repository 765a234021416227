"""The bundled models of the toy world do what their cards say."""

import pytest
import torch

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets import ASSETS, asset_path
from gtsvj_reward.judge import CheckpointError, read_config
from gtsvj_reward.latents.space import LatentSpaceError
from gtsvj_reward.metrics import pairwise_accuracy
from gtsvj_reward.reward import Clips
from gtsvj_reward.toy.corpus import SEEN, UNSEEN, ClipSpec, encode_frames, random_specs
from gtsvj_reward.toy.detector import detect, load_detector
from gtsvj_reward.toy.measures import colour_unrest
from gtsvj_reward.toy.pipeline import BASES, decode, load_pipeline, sample
from gtsvj_reward.toy.raters import ASPECTS
from gtsvj_reward.toy.world import FPS, captions, draw_scene, render
from tools.toy.measure import agreement

TOY = [name for name in ASSETS if name.startswith("gtsvj-toy")]


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline()


@pytest.fixture(scope="module")
def reward():
    return GTSVJReward.from_pretrained("gtsvj-toy")


@pytest.fixture(scope="module")
def space(pipe):
    return LatentSpace.from_pipeline(pipe)


def encoded(pipe, space, specs):
    return encode_frames(torch.stack([spec.draw() for spec in specs]), pipe.vae, space)


def test_all_of_it_stays_under_twelve_megabytes():
    sizes = [
        sum(path.stat().st_size for path in asset_path(name).rglob("*") if path.is_file())
        for name in {ASSETS[name]: name for name in TOY}.values()
    ]
    assert len(sizes) == 9
    assert sum(sizes) < 12e6


def test_calls_of_the_generator_need_not_name_the_length_of_its_texts(pipe):
    size = {"num_frames": 17, "height": 64, "width": 64, "num_inference_steps": 1}
    given = {"generator": torch.Generator().manual_seed(0), "output_type": "latent", **size}
    short = pipe("one blue circle falling", **given).frames
    given["generator"].manual_seed(0)
    said = pipe("one blue circle falling", max_sequence_length=8, **given).frames
    torch.testing.assert_close(short, said)


def test_latents_that_are_scaled_otherwise_are_refused(pipe, space, reward):
    specs = random_specs("statistics", 77, 8, SEEN)
    latents = encoded(pipe, space, specs)
    assert reward(latents, space=space).isfinite().all()
    assert torch.stack([reward(latent[None]) for latent in latents]).isfinite().all()
    # As Wan's first four channels are scaled, again and again.
    wan = LatentSpace(
        id="wan", channels=16, mean=(-0.76, -0.71, -0.91, 0.11) * 4, std=(2.8, 1.5, 2.3, 2.7) * 4
    )
    rescaled = (wan.scale(latents), wan.unscale(latents))
    for others in (space.unscale(latents), latents / 2, 2 * latents, *rescaled):
        with pytest.raises(LatentSpaceError, match="clips that the judge was trained on"):
            reward(others, space=space)
    unchecked = GTSVJReward.from_pretrained("gtsvj-toy", check_statistics=False)
    assert unchecked(latents / 2).isfinite().all()
    predicted = Clips(latents=latents / 2, unfinished=True)
    assert reward.score(predicted).rewards.isfinite().all()


@pytest.mark.parametrize("name", ["gtsvj-toy-unsteady", "gtsvj-toy-flow-unsteady"])
def test_the_unsteady_generators_are_what_their_cards_say(name):
    prompts = captions()[::8]
    means = []
    for generator in (load_pipeline(BASES[name]), unsteady := load_pipeline(name)):
        latents = sample(generator, prompts, range(len(prompts)), steps=5, guidance=1.0)
        means.append(colour_unrest(torch.stack(decode(generator, latents))).mean().item())
    assert means[1] > 1.5 * means[0]
    # Merged: it is a plain transformer, whose weights are no longer those a judge was trained on.
    assert not getattr(unsteady.transformer, "peft_config", None)
    wrong = r"other base weights|got a WanTransformer3DModel"
    with pytest.raises(CheckpointError, match=wrong):
        GTSVJReward.from_pretrained("gtsvj-toy", transformer=unsteady.transformer)


def test_the_flow_generator_shares_the_latents_and_the_calls_of_the_other(pipe, space):
    flow = load_pipeline("gtsvj-toy-flow-pipeline")
    assert type(flow).__name__ == "WanPipeline"
    assert LatentSpace.from_pipeline(flow) == space
    for name, value in pipe.vae.state_dict().items():
        assert torch.equal(flow.vae.state_dict()[name], value), name
    texts = ["one red circle falling", "two blue squares drifting"]
    both = sample(flow, texts, [1, 2], steps=2)
    assert both.shape == (2, 5, 16, 8, 8)
    alone = sample(flow, texts[1:], [2], steps=2)
    torch.testing.assert_close(alone[0], both[1], atol=1e-4, rtol=1e-3)
    assert (sample(flow, texts[:1], [2], steps=2)[0] - both[1]).abs().mean() > 0.05


def test_a_clip_is_a_function_of_its_prompt_and_seed(pipe):
    texts = ["one red circle falling", "two blue squares drifting"]
    both = sample(pipe, texts, [1, 2], steps=3)
    assert both.shape == (2, 5, 16, 8, 8)
    assert torch.equal(both, sample(pipe, texts, [1, 2], steps=3))
    alone = sample(pipe, texts[1:], [2], steps=3)
    torch.testing.assert_close(alone[0], both[1], atol=1e-4, rtol=1e-3)
    other_text = sample(pipe, texts[:1], [2], steps=3)
    assert (other_text[0] - both[1]).abs().mean() > 0.05
    with pytest.raises(ValueError, match="2 prompts need as many seeds, got 1"):
        sample(pipe, texts, [1])


@pytest.mark.slow
def test_generated_clips_show_what_was_asked_for(pipe):
    """Chance is 50, 25, 33 and 25 percent; 32 clips."""
    texts = captions()[::3]
    latents = torch.cat(
        [sample(pipe, texts[i : i + 16], range(100 + i, 116 + i), steps=15) for i in (0, 16)]
    )
    found = detect(load_detector(), torch.stack(decode(pipe, latents)))
    shares = agreement(found, texts)
    assert shares["colour"] > 0.8, shares
    assert shares["count"] > 0.65, shares
    assert shares["shape"] > 0.5, shares
    assert shares["motion"] > 0.4, shares


def test_the_detector_reads_unseen_rendered_clips():
    scenes = [draw_scene(501, index) for index in range(64)]
    found = detect(load_detector(), torch.stack([render(scene) for scene in scenes]))
    shares = agreement(found, [scene.caption for scene in scenes])
    assert min(shares["count"], shares["colour"]) > 0.9, shares
    assert shares["shape"] > 0.7, shares
    assert shares["motion"] > 0.8, shares


def test_the_trained_judges_are_the_three_stages():
    stages = [
        read_config(asset_path(name)).stage
        for name in ("gtsvj-toy-discriminator", "gtsvj-toy-aspects", "gtsvj-toy-lora")
    ]
    assert stages == ["discriminator", "aspects", "preference"]


def test_the_judge_has_the_aspects_and_lengths_of_the_trained_one(reward):
    fitted, trained = reward.judge.config, read_config(asset_path("gtsvj-toy-lora"))
    assert (fitted.readout, trained.readout) == ("moments", "mlp")
    assert (fitted.stage, fitted.has_energy) == ("preference", True)
    assert [aspect.name for aspect in fitted.aspects] == [*ASPECTS]
    assert fitted.aspects == trained.aspects
    assert fitted.geometry == trained.geometry
    assert fitted.latent_space == trained.latent_space


@pytest.mark.parametrize("name", ["gtsvj-toy", "gtsvj-toy-discriminator", "gtsvj-toy-lora"])
def test_a_judge_scores_the_generators_latents_on_its_own_weights(name, pipe, space):
    latents = sample(pipe, ["one green square orbiting"] * 2, [1, 2], steps=2)
    own = GTSVJReward.from_pretrained(name)
    shared = GTSVJReward.from_pretrained(name, transformer=pipe.transformer)
    with torch.no_grad():
        first = own(latents, space=space, fps=FPS)
        second = shared(latents, space=space, fps=FPS)
    assert torch.equal(first, second)
    assert first.std() > 0


def test_latents_of_another_codec_are_refused(reward):
    from gtsvj_reward.assets.vae import load_vae

    other = LatentSpace.from_vae(load_vae("gtsvj-demo-codec"))
    with pytest.raises(LatentSpaceError, match="cogvideox-vae"):
        reward(torch.randn(1, 5, 16, 8, 8), space=other, fps=FPS)


@pytest.mark.slow
@pytest.mark.parametrize("kinds", [SEEN, UNSEEN], ids=["seen", "unseen"])
def test_the_judge_prefers_clean_clips(kinds, reward, pipe, space):
    """Fresh scenes, a strong fault of each kind: the whole 95% interval lies above one half."""
    scenes = range(16)
    clean = [ClipSpec(f"test-{i}", (502, i), {}) for i in scenes]
    with torch.no_grad():
        scores = reward(encoded(pipe, space, clean), space=space, fps=FPS)
        first, second = [], []
        for kind in kinds:
            faulty = [ClipSpec(f"test-{kind}-{i}", (502, i), {kind: 0.8}) for i in scenes]
            first.append(scores)
            second.append(reward(encoded(pipe, space, faulty), space=space, fps=FPS))
    result = pairwise_accuracy(torch.cat(first), torch.cat(second))
    assert result.interval()[0] > 0.5, result
