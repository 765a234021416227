"""What sets HunyuanVideo 1.5, LTX-2 and Wan's pairs of experts apart from other families."""

import json

import pytest
import torch

pytest.importorskip("diffusers", minversion="0.37", reason="LTX-2 needs a newer diffusers")

from gtsvj_reward.backbones import ImageCondition, TextCondition, backbone_for, load_transformer
from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.space import LatentSpace
from tests.backbones import family_hunyuan_video15 as hunyuan, family_ltx2 as ltx2
from tests.backbones.family_wan import tiny_wan
from tests.tiny import clips


def sounds(size=(2, 4, 8, 4, 6)):
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("newer", [False, True])
def test_sound_has_no_part_in_what_leaves_the_video_stream_of_ltx2(newer):
    model = ltx2.tiny(**(ltx2.NEWER if newer else {}))
    latents, text = sounds(), ltx2.text(2, 32 if newer else 10)
    tokens = backbone_for(model)(latents, timestep=300.0, text=text).flatten(1, 2)
    loud = ltx2.hidden(model, latents, 3, 300.0, text, sound=7, seed=5)
    torch.testing.assert_close(tokens, loud)
    joined = ltx2.hidden(model, latents, 3, 300.0, text, sound=7, seed=5, isolate=False)
    assert (joined - loud).abs().max() > 1e-3, "the model has no use for sound: nothing was tested"


def test_ltx2_predicts_as_in_its_pipeline_with_the_streams_apart():
    model, latents, text = ltx2.tiny(), sounds(), ltx2.text(2)
    said = backbone_for(model).predict(latents, timestep=300.0, text=text)
    expected = ltx2.called(model, latents, 300.0, text, sound=7, seed=5)
    torch.testing.assert_close(said.movedim(2, -1).flatten(1, 3), expected)


def test_latents_of_sound_are_refused_by_name():
    from diffusers import AutoencoderKLLTX2Audio

    with torch.device("meta"):
        vae = AutoencoderKLLTX2Audio()
    with pytest.raises(LatentSpaceError, match="`AutoencoderKLLTX2Audio` makes latents of sound"):
        LatentSpace.from_vae(vae)


def image_for(count=2, zero=None):
    generator = torch.Generator().manual_seed(2)
    embeds = torch.randn(count, 7, 5, generator=generator)
    if zero is not None:
        embeds[zero] = 0
    return ImageCondition(torch.randn(count, 1, 4, 8, 12, generator=generator), embeds)


def test_hunyuan_video_15_takes_images_as_its_pipeline_feeds_them():
    model = hunyuan.tiny(task_type="i2v")
    backbone, text, image = backbone_for(model), hunyuan.text(2), image_for()
    assert backbone.image_use == "always"
    assert backbone_for(hunyuan.tiny()).image_use == "never"
    said = backbone.predict(clips(), timestep=300.0, text=text, image=image)
    expected = hunyuan.called(
        model, clips(), 300.0, text, image=image.latents[:, 0], embeds=image.embeds
    )
    torch.testing.assert_close(said, expected.transpose(1, 2))
    without = backbone.predict(clips(), timestep=300.0, text=text)
    assert (without - said).abs().max() > 1e-3


def test_text_and_image_to_video_never_share_a_batch_of_hunyuan_video_15():
    """The model takes a batch of which one clip has an image for image to video as a whole."""
    model = hunyuan.tiny(task_type="i2v")
    mixed, text = image_for(zero=0), hunyuan.text(2)
    both = hunyuan.called(model, clips(), 3.0, text, embeds=mixed.embeds)
    alone = hunyuan.called(model, clips()[:1], 3.0, text.rows(torch.tensor([0])))
    assert (both[:1] - alone).abs().max() > 1e-3
    with pytest.raises(ValueError, match="must not share a batch with image to video"):
        backbone_for(model)(clips(), timestep=3.0, text=text, image=mixed)


def test_other_inputs_of_hunyuan_video_15_are_refused():
    backbone = backbone_for(hunyuan.tiny(task_type="i2v"))
    bare = ImageCondition(image_for().latents)
    wide = ImageCondition(bare.latents, torch.ones(2, 7, 6))
    for given, message in ((bare, "got 1 frames without embeds"), (wide, r"\(2, tokens, 5\)")):
        with pytest.raises(ValueError, match=message):
            backbone(clips(), timestep=0.0, image=given)
    with pytest.raises(ValueError, match="needs `embeds` and `mask`, and no `pooled`"):
        backbone(clips(), timestep=0.0, text=TextCondition(torch.zeros(2, 5, 8)))
    empty = TextCondition(torch.zeros(2, 5, 8), torch.zeros(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="has no valid word"):
        backbone(clips(), timestep=0.0, text=empty)
    with pytest.raises(ValueError, match="got 9 channels and use_meanflow=True"):
        backbone_for(hunyuan.tiny(use_meanflow=True))


def test_of_two_experts_the_one_for_low_noise_is_loaded(tmp_path):
    first, second = tiny_wan(layers=1, seed=0), tiny_wan(layers=1, seed=1)
    first.save_pretrained(tmp_path / "transformer")
    second.save_pretrained(tmp_path / "transformer_2")
    index = {"transformer": ["x", "y"], "transformer_2": ["x", "y"], "boundary_ratio": 0.875}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    low = backbone_for(second).fingerprint()
    assert backbone_for(load_transformer(tmp_path)).fingerprint() == low
    named = load_transformer(tmp_path / "transformer")
    assert backbone_for(named).fingerprint() == backbone_for(first).fingerprint()
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": None}))
    alone = load_transformer(tmp_path)
    assert backbone_for(alone).fingerprint() == backbone_for(first).fingerprint()
