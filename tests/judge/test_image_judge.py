"""Judges that see reference images: what they read, and clips with another clip's image."""

import pytest
import torch
from torch.nn.functional import layer_norm

from gtsvj_reward import GTSVJReward, ImageCondition, JudgeConfig, VideoJudge
from gtsvj_reward.backbones import NoiseLevel, TextCondition, backbone_for
from gtsvj_reward.backbones.denoising import level_noise
from gtsvj_reward.judge import load_judge, save_judge
from gtsvj_reward.judge.card import model_card
from gtsvj_reward.judge.image_moments import image_distances
from gtsvj_reward.judge.prompt_moments import NOISE_SEED
from gtsvj_reward.latents.store import LatentClip, LatentFolder, save_clip
from gtsvj_reward.reward import Clips, RewardEnsemble, WeightedReward
from gtsvj_reward.scoring.folder import score_folder
from gtsvj_reward.training import FeatureCache, first_frames_swapped, refit, shown, with_image
from tests.judge.test_moment_judge import moment_judge
from tests.pipelines import tiny_wan_image
from tests.tiny import clips, tiny_judge, tiny_space, tiny_transformer

LEVEL = NoiseLevel(400.0, 0.8, 0.6, "v_prediction")
SEES = {"image_input": "image", "image_level": LEVEL}


def tiny_image_model(layers=2):
    return tiny_transformer("5b", layers=layers, in_channels=8)


def image_judge(**changes):
    return moment_judge(transformer=tiny_image_model(), **{**SEES, **changes})


def images_for(count, seed=5, frames=1):
    generator = torch.Generator().manual_seed(seed)
    return ImageCondition(torch.randn(count, frames, 4, 8, 12, generator=generator))


def test_distances_by_hand():
    # One channel, frames of 1x2: |clip - image| is 1 and 3 in the first frame, 0 and 2 in the
    # second; where two frames make a step it has the mean, 1.5.
    latents = torch.tensor([2.0, 4.0, 1.0, 3.0]).reshape(1, 2, 1, 1, 2)
    image = ImageCondition(torch.ones(1, 1, 1, 1, 2))
    apart = image_distances(latents, image, [0, 1])
    torch.testing.assert_close(apart, torch.tensor([[[2.0], [1.0]]]), atol=1e-3, rtol=0)
    together = image_distances(latents, image, [0, 0])
    torch.testing.assert_close(together, torch.tensor([[[1.5]]]), atol=1e-3, rtol=0)


def test_moments_are_those_under_the_image_and_what_it_changes():
    model, latents, image = tiny_image_model(), clips(), images_for(2)
    judge = moment_judge(transformer=model, taps=[0, 1], **SEES)
    backbone = backbone_for(model)
    noisy = LEVEL.noisy(latents, level_noise(LEVEL, latents.shape[1:], NOISE_SEED))
    under, without = (
        backbone(noisy, timestep=400.0, image=some, taps=[1])[1] for some in (image, None)
    )
    first, second = (layer_norm(tokens, tokens.shape[-1:]) for tokens in (under, without))
    difference = first - second
    distance = image_distances(latents, image, range(5))
    added = torch.cat([distance, difference.mean(2), (difference * second).mean(2)], dim=2)
    found = judge.moments(latents, None, image)
    torch.testing.assert_close(found[..., -added.shape[2] :], added, rtol=1e-3, atol=1e-4)
    assert difference.abs().max() > 1e-2
    other = judge.moments(latents, None, images_for(2, seed=6))
    plain = found.shape[2] - added.shape[2]
    assert (other - found)[..., 28:plain].abs().max() > 1e-3, "the clip was read without its image"
    assert torch.equal(other[..., :28], found[..., :28])  # of the latents alone


def test_wan_reads_images_with_their_grey_frames():
    space = tiny_space(layout="BCTHW")
    config = JudgeConfig(
        base_model="x", latent_space=space, readout="moments", lora_rank=0, image_input="image"
    )
    judge = VideoJudge.from_transformer(tiny_wan_image(layers=2), config)
    assert judge.config.image_level == NoiseLevel(500.0, 0.5, 0.5, "flow_prediction")
    embeds = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    image = ImageCondition(images_for(2, frames=5).latents, embeds)
    found = judge.moments(clips(), None, image)
    other = judge.moments(clips(), None, ImageCondition(image.latents, -embeds))
    assert (other - found).abs().max() > 1e-3


def test_gradients_reach_the_latents():
    judge, image = image_judge().double(), images_for(2)
    latents = clips(2).double().requires_grad_()
    judge(latents, None, image).scores.mean(1).sum().backward()
    direction = clips(2, seed=9).double()
    with torch.no_grad():
        up, down = (
            judge(latents + s * 2e-4 * direction, None, image).scores.mean(1).sum() for s in (1, -1)
        )
    slope = (latents.grad * direction).sum()
    torch.testing.assert_close((up - down) / 4e-4, slope, rtol=1e-3, atol=1e-6)


def test_a_checkpoint_keeps_how_images_are_seen(tmp_path):
    judge, image = image_judge(), images_for(3)
    save_judge(judge, tmp_path)
    loaded = load_judge(tmp_path, backbone=judge.backbone)
    assert loaded.config == judge.config
    reward = GTSVJReward(loaded)
    scores = reward(clips(3), image=image, normalize=False)
    assert torch.equal(scores, GTSVJReward(judge)(clips(3), image=image, normalize=False))
    alone = reward(clips(3)[1:2], image=image.rows(torch.tensor([1])), normalize=False)
    torch.testing.assert_close(alone[0], scores[1], atol=1e-5, rtol=1e-5)
    assert "| reference image | required with each clip |" in model_card(loaded.config)


def test_a_trained_judge_with_lora_sees_images_too():
    judge = tiny_judge(transformer=tiny_image_model(), image_input="image")
    first, second = (judge(clips(), None, images_for(2, seed)).scores for seed in (5, 6))
    assert (first - second).abs().max() > 1e-3
    assert judge.config.image_level is None


def test_images_missing_or_for_nothing_are_refused():
    reward, blind = GTSVJReward(image_judge()), GTSVJReward(moment_judge())
    with pytest.raises(ValueError, match=r"\(image_input='image'\): pass `image`, for example"):
        reward(clips(2), normalize=False)
    with pytest.raises(ValueError, match=r"\(image_input='none'\): `image` would change nothing"):
        blind(clips(2), image=images_for(2), normalize=False)
    with pytest.raises(ValueError, match="3 reference images for 2 clips"):
        reward(clips(2), image=images_for(3), normalize=False)
    mixed = [clips(1)[0], clips(1, width=10)[0]]
    with pytest.raises(ValueError, match=r"clip 1 \(b\) is 8x10 latents, its reference image 8x12"):
        Clips(latents=mixed, image=images_for(2), names=["a", "b"])


def test_folders_of_clips_are_refused_before_any_is_read(tmp_path):
    clip = LatentClip(
        latents=clips(1)[0], space=tiny_space(), fps=8.0, num_frames=17, source="a.mp4",
        source_sha256="0" * 64, settings={},
    )  # fmt: skip
    save_clip(tmp_path / "a.safetensors", clip)
    with pytest.raises(ValueError, match=r"\(image_input='image'\), but none are stored beside"):
        score_folder(GTSVJReward(image_judge()), LatentFolder(tmp_path), progress=False)


def test_judges_and_models_must_agree_about_images():
    with pytest.raises(ValueError, match="which always has an image: set `image_input` to 'image'"):
        moment_judge(transformer=tiny_image_model())
    with pytest.raises(ValueError, match="image_input='image' needs the transformer of an image"):
        moment_judge(**SEES)
    fields = {"base_model": "x", "latent_space": tiny_space()}
    for settings, message in (
        ({"image_level": LEVEL}, "`image_level` is for image_input='image'"),
        (SEES, "`image_level` is for readout='moments', got 'mlp'"),
        ({"image_input": "image", "latent_pooling": 2}, "leave out `latent_pooling`"),
    ):
        with pytest.raises(ValueError, match=message):
            JudgeConfig(**fields, **settings)


def test_sums_give_images_to_those_that_see_them():
    sees, blind = GTSVJReward(image_judge()), GTSVJReward(moment_judge())
    image = images_for(2)
    both = WeightedReward([("sees", sees, 1.0), ("blind", blind, 2.0)])
    expected = sees(clips(), image=image) + 2 * blind(clips())
    torch.testing.assert_close(both(clips(), image=image), expected)
    with pytest.raises(ValueError, match=r"\(a, b\) reads reference images: `image` would change"):
        RewardEnsemble({"a": blind, "b": blind})(clips(), image=image)


def test_a_text_to_video_judge_scores_clips_of_the_image_to_video_sibling():
    judge = GTSVJReward(tiny_judge())
    assert judge(clips(), space=tiny_space()).isfinite().all()  # the VAE is what must match


def test_a_fit_finds_the_clips_with_another_image():
    """Clips that begin with their image; held out, their own image scores higher."""
    latents = clips(24, 3, 8, 12)
    noise = torch.randn(24, 1, 4, 8, 12, generator=torch.Generator().manual_seed(8))
    images = ImageCondition(latents[:, :1] + 0.3 * noise)
    loads = [lambda clip=clip: clip for clip in latents]
    names = [f"clip {index}" for index in range(24)]
    fresh = moment_judge(transformer=tiny_image_model(), filled=False, **SEES)
    pairs = first_frames_swapped(
        loads[:16], images.rows(torch.arange(16)), groups=names[:16], draws=2
    )
    assert len(pairs) == 32
    judge = refit(fresh, FeatureCache(fresh), contrast=pairs)
    reward, held = GTSVJReward(judge), images.rows(torch.arange(16, 24))
    own = reward(latents[16:], image=held)
    other = reward(latents[16:], image=held.rows(torch.arange(8).roll(1)))
    assert (own > other).all()


def test_clips_carry_prompt_and_image_in_either_order():
    image, text = images_for(1), TextCondition(torch.ones(1, 6, 8))
    clip = clips(1)[0]
    first = with_image(shown(lambda: clip, "x", lambda _: text), image)()
    second = shown(with_image(lambda: clip, image), "x", lambda _: text)()
    assert first.text is second.text is text
    assert first.image is second.image is image
    with pytest.raises(TypeError, match="has a reference image already"):
        with_image(lambda: first, image)()
    with pytest.raises(TypeError, match="has a prompt already"):
        shown(lambda: first, "x", lambda _: text)()


def test_swaps_need_other_sources_and_one_image_a_clip():
    loads = [lambda: clips(1)[0]] * 2
    with pytest.raises(ValueError, match="3 reference images and 2 groups for 2 clips"):
        first_frames_swapped(loads, images_for(3), groups=["a", "b"])
    with pytest.raises(ValueError, match="all 2 clips are of 'a', expected different sources"):
        first_frames_swapped(loads, images_for(2), groups=["a", "a"])


def test_features_are_cached_by_clip_and_image(tmp_path):
    judge, image = image_judge(), images_for(2)
    cache = FeatureCache(judge, tmp_path)
    loads = [with_image(lambda: clips(1)[0], image.rows(torch.tensor([row]))) for row in (0, 1, 0)]
    names = cache.read(loads, "clips")
    assert names[0] == names[2] != names[1]
    again = FeatureCache(judge, tmp_path)
    again.read(loads, "clips")
    assert (cache.computed, again.computed) == (2, 0)
