"""What the account of the prompt score counts."""

from benchmarks.counting import operations
from benchmarks.prompt_score import gain
from gtsvj_reward.backbones import backbone_for
from tests.tiny import clips, tiny_transformer


def test_a_score_is_two_passes_a_level():
    backbone, latents = backbone_for(tiny_transformer()), clips(1)
    one = operations(lambda: backbone.predict(latents, timestep=100.0))
    assert one > 0
    assert operations(lambda: gain(backbone, latents, 3)) == 2 * 3 * one
