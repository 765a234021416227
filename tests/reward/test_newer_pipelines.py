"""Prompts, images and latents of the pipelines of HunyuanVideo 1.5 and LTX-2."""

import pytest
import torch

pytest.importorskip("diffusers", minversion="0.37", reason="LTX-2 needs a newer diffusers")

from gtsvj_reward.backbones import backbone_for
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.reward import image_of, text_of
from tests.newer_pipelines import hunyuan_video15, hunyuan_video15_image, ltx2, ltx2_image
from tests.pipelines import frozen
from tests.reward.test_image_store import picture

SIZES = {
    hunyuan_video15: {"num_frames": 9, "height": 32, "width": 32},
    hunyuan_video15_image: {"num_frames": 9, "height": 32, "width": 32},
    ltx2: {"num_frames": 17, "height": 64, "width": 64},
    ltx2_image: {"num_frames": 17, "height": 64, "width": 64},
}
WITHOUT_GUIDANCE = {
    "guidance_scale": 1.0, "stg_scale": 0.0, "modality_scale": 1.0, "audio_guidance_scale": 1.0,
    "audio_stg_scale": 0.0, "audio_modality_scale": 1.0, "max_sequence_length": 1024,
}  # fmt: skip


def call(make, pipe, output_type="latent", **more):
    """The pipeline's own call for a prompt, and what its transformer was given and said first."""
    seen = []

    def note(module, args, inputs, output):
        del module, args
        seen.append((inputs, output[0]))

    hook = pipe.transformer.register_forward_hook(note, with_kwargs=True)
    size = dict(SIZES[make])
    if make in (ltx2, ltx2_image):
        more = {**WITHOUT_GUIDANCE, **more}
    elif make is hunyuan_video15_image:
        size = {"num_frames": size["num_frames"]}
    if make in (hunyuan_video15_image, ltx2_image):
        more["image"] = picture(0, 40, 40)
    try:
        frames = pipe(
            prompt="a dog runs", num_inference_steps=2, output_type=output_type,
            generator=torch.Generator().manual_seed(0), **size, **more,
        ).frames  # fmt: skip
    finally:
        hook.remove()
    return frames, *seen[0]


@pytest.mark.parametrize("make", [hunyuan_video15, hunyuan_video15_image, ltx2_image])
def test_models_are_called_and_predict_as_in_their_pipeline(make):
    """LTX-2's streams are kept apart, which its pipeline does not do: inputs are compared."""
    pipe = frozen(make)
    _, inputs, output = call(make, pipe)
    backbone, images = backbone_for(pipe.transformer), None
    text = text_of(pipe, ["a dog runs"])
    if make is not hunyuan_video15:
        images = image_of(pipe, [picture(0, 40, 40)], **SIZES[make])
        assert images.family == backbone.family
    channels = backbone.latent_channels
    if make is ltx2_image:
        noisy = inputs["hidden_states"].unflatten(1, (3, 2, 2)).movedim(-1, 2)
    else:
        noisy = inputs["hidden_states"].transpose(1, 2)[:, :, :channels]
    timestep = inputs["timestep"].max().item()
    called = backbone.arguments(noisy, timestep=timestep, text=text, image=images)
    words = called["encoder_attention_mask"]
    if make is ltx2_image:
        called["encoder_attention_mask"] = words[:, 0] == 0  # what is added to the attention
    sounds = ("audio", "video_coords", "return_dict")
    for key, expected in inputs.items():
        if isinstance(expected, torch.Tensor) and not key.startswith(sounds):
            torch.testing.assert_close(called[key].float(), expected.float(), msg=key)
    if make is not ltx2_image:
        found = backbone.predict(noisy, timestep=timestep, text=text, image=images)
        torch.testing.assert_close(found, output.transpose(1, 2))
    if images is not None:
        other = image_of(pipe, [picture(1, 40, 40)], **SIZES[make])
        first, second = (
            backbone.predict(noisy, timestep=timestep, text=text, image=x) for x in (images, other)
        )
        assert (first - second).abs().max() > 1e-3


def test_ltx2_with_an_image_predicts_as_the_unmodified_model_with_the_streams_apart():
    pipe = frozen(ltx2_image)
    _, inputs, _ = call(ltx2_image, pipe)
    expected = pipe.transformer(**{**inputs, "isolate_modalities": True})[0]
    noisy = inputs["hidden_states"].unflatten(1, (3, 2, 2)).movedim(-1, 2)
    found = backbone_for(pipe.transformer).predict(
        noisy,
        timestep=inputs["timestep"].max().item(),
        text=text_of(pipe, ["a dog runs"]),
        image=image_of(pipe, [picture(0, 40, 40)], **SIZES[ltx2_image]),
    )
    torch.testing.assert_close(found.movedim(2, -1).flatten(1, 3), expected)


def test_prompts_differ_and_quoted_words_are_read_as_the_others():
    for make in (hunyuan_video15, ltx2):
        text = text_of(frozen(make), ["a dog runs", "a red square", ""])
        assert (text.embeds[0] - text.embeds[1]).abs().max() > 1e-3
        assert text.mask.any(dim=1).all()


def test_latents_of_hunyuan_video_15_are_scaled_and_decode_to_its_frames():
    pipe = frozen(hunyuan_video15)
    latents, *_ = call(hunyuan_video15, pipe)
    frames, *_ = call(hunyuan_video15, pipe, "pt")
    space = LatentSpace.from_pipeline(pipe)
    found = space.decode(space.to_btchw(latents), pipe.vae, tile=None)
    torch.testing.assert_close(found, frames.float(), atol=1e-5, rtol=0)


def test_latents_of_ltx2_come_before_scaling():
    pipe = frozen(ltx2)
    raw, *_ = call(ltx2, pipe)
    space = LatentSpace.from_pipeline(pipe)
    scaled = space.scale(space.to_btchw(raw))
    pixels = pipe.vae.decode(raw, return_dict=False)[0]
    expected = (pixels.transpose(1, 2) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(space.decode(scaled, pipe.vae, tile=None), expected)
    assert (scaled - space.to_btchw(raw)).abs().max() > 0.1, "the VAE scales nothing"
