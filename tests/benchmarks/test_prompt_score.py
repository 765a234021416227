"""What the account of the prompt score counts."""

import pytest

from benchmarks.counting import operations
from benchmarks.prompt_score import gain, prompt_aware
from gtsvj_reward.backbones import ImageCondition, backbone_for
from tests.tiny import clips, tiny_transformer


def test_a_score_is_two_passes_a_level():
    backbone, latents = backbone_for(tiny_transformer()), clips(1)
    one = operations(lambda: backbone.predict(latents, timestep=100.0))
    assert one > 0
    assert operations(lambda: gain(backbone, latents, 3)) == 2 * 3 * one


def test_reference_fidelity_is_two_passes_a_level_with_and_without_the_image():
    backbone, latents = backbone_for(tiny_transformer("5b", in_channels=8)), clips(1)
    image = ImageCondition(latents[:, :1])
    one = operations(lambda: backbone.predict(latents, timestep=100.0, image=image))
    assert operations(lambda: gain(backbone, latents, 3, image)) == 2 * 3 * one
    passes = operations(lambda: prompt_aware(backbone, latents, image))
    read = operations(lambda: backbone(latents, timestep=1.0, image=image, taps=[1]))
    assert passes == pytest.approx(3 * read, rel=0.01)


def test_moments_that_read_a_prompt_are_three_passes():
    backbone, latents = backbone_for(tiny_transformer()), clips(1)
    one = operations(lambda: backbone(latents, timestep=1.0, taps=[1]))
    assert one > 0
    assert operations(lambda: prompt_aware(backbone, latents)) == pytest.approx(3 * one, rel=0.01)
