"""How well clips keep to their images, as an image-to-video generator sees it."""

import pytest
import torch

from gtsvj_reward import PromptScore, ReferenceFidelity
from gtsvj_reward.backbones import backbone_for, denoising_errors, noise_levels
from gtsvj_reward.backbones.denoising import level_noise
from gtsvj_reward.reward import image_of, text_of
from tests.backbones.test_images import SIZE, picture
from tests.pipelines import cogvideox_image, frozen, wan_image
from tests.tiny import clips, tiny_transformer


def test_it_is_the_error_without_the_image_minus_that_with_it():
    pipe = frozen(cogvideox_image)
    score = ReferenceFidelity(pipe, levels=(0.5, 0.7))
    image = image_of(pipe, [picture(0), picture(1)], **SIZE)
    latents, text = clips(2, 3, 4, 4), text_of(pipe, ["a dog runs", "a red square"])
    out = score.details(latents, image=image, text=text)
    backbone, errors = backbone_for(pipe.transformer), []
    for level in noise_levels(backbone, (0.5, 0.7), pipe.scheduler):
        noise = level_noise(level, latents.shape[1:], 0)
        noisy, target = level.noisy(latents, noise), level.target(latents, noise)
        without, under = (
            backbone.predict(noisy, timestep=level.timestep, text=text, image=some)
            for some in (None, image)
        )
        errors.append([((p - target) ** 2).mean(dim=(2, 3, 4)) for p in (without, under)])
    expected = torch.stack([without - under for without, under in errors]).mean(0)
    torch.testing.assert_close(torch.stack(list(out.trajectory)), expected)
    torch.testing.assert_close(out.rewards, expected.mean(1))
    assert list(out.parts) == ["level 0.5", "level 0.7"]
    other = score(latents, image=image.rows(torch.tensor([1, 0])), text=text)
    assert (other - out.rewards).abs().min() > 1e-4


def test_it_is_differentiable_and_needs_no_prompt():
    score, pipe = ReferenceFidelity(frozen(cogvideox_image), levels=(0.6,)), frozen(cogvideox_image)
    latents = clips(1, 3, 4, 4).requires_grad_()
    score(latents, image=image_of(pipe, [picture()], **SIZE)).sum().backward()
    assert latents.grad.abs().max() > 0


def test_wan_is_asked_with_the_pipelines_embeddings():
    pipe = frozen(wan_image)
    score = ReferenceFidelity(pipe.transformer, levels=(0.6,))
    image = image_of(pipe, [picture(0), picture(1)], **SIZE)
    latents = clips(2, 3, 4, 4)
    level = noise_levels(score.backbone, (0.6,))
    without, under = (
        denoising_errors(score.backbone, latents, level, image=some) for some in (None, image)
    )
    torch.testing.assert_close(score(latents, image=image), (without - under).mean(dim=(1, 2)))


def test_what_it_cannot_score_is_refused():
    pipe = frozen(cogvideox_image)
    blind = tiny_transformer().requires_grad_(False)
    with pytest.raises(ValueError, match="needs an image-to-video generator"):
        ReferenceFidelity(blind, scheduler=pipe.scheduler)
    with pytest.raises(ValueError, match="needs the images of the clips: pass `image`"):
        ReferenceFidelity(pipe)(clips())
    with pytest.raises(ValueError, match="image-to-video generator needs the images"):
        PromptScore(pipe)(clips(1), text=text_of(pipe, ["a dog runs"]))
