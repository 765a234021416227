"""What the account of the prompt score counts."""

import pytest

from benchmarks.counting import operations
from benchmarks.prompt_score import gain, prompt_aware
from gtsvj_reward.backbones import backbone_for
from tests.tiny import clips, tiny_transformer


def test_a_score_is_two_passes_a_level():
    backbone, latents = backbone_for(tiny_transformer()), clips(1)
    one = operations(lambda: backbone.predict(latents, timestep=100.0))
    assert one > 0
    assert operations(lambda: gain(backbone, latents, 3)) == 2 * 3 * one


def test_moments_that_read_a_prompt_are_three_passes():
    backbone, latents = backbone_for(tiny_transformer()), clips(1)
    one = operations(lambda: backbone(latents, timestep=1.0, taps=[1]))
    assert one > 0
    assert operations(lambda: prompt_aware(backbone, latents)) == pytest.approx(3 * one, rel=0.01)
