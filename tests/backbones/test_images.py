"""Models that generate from a reference image: fed as their pipelines feed them."""

import pytest
import torch
from PIL import Image

from gtsvj_reward.backbones import (
    ImageCondition,
    TextCondition,
    backbone_for,
    denoising_errors,
    noise_levels,
)
from gtsvj_reward.backbones.denoising import level_noise
from gtsvj_reward.reward import image_of
from tests.backbones.family_hunyuan_video import text as hunyuan_text
from tests.backbones.family_wan import tiny_wan
from tests.pipelines import IMAGE_PIPELINES, frozen
from tests.tiny import clips, tiny_transformer

every_pipeline = pytest.mark.parametrize("name", IMAGE_PIPELINES)
SIZE = {"num_frames": 9, "height": 32, "width": 32}


def picture(seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def first_call(pipe, name):
    """What the pipeline's own call gives its transformer at the first step, and what comes out."""
    seen = []

    def note(module, args, inputs, output):
        del module, args
        seen.append((inputs, output[0]))

    hook = pipe.transformer.register_forward_hook(note, with_kwargs=True)
    more = {"max_sequence_length": 6} if name.startswith("cogvideox") else {}
    if name.startswith("hunyuan_video"):
        text = text_for(name)
        more = {"prompt_attention_mask": text.mask, "pooled_prompt_embeds": text.pooled}
    try:
        pipe(
            image=picture(), prompt_embeds=text_for(name).embeds,
            guidance_scale=6.0 if name.startswith("hunyuan_video") else 1.0,
            num_inference_steps=2, output_type="latent",
            generator=torch.Generator().manual_seed(0), **SIZE, **more,
        )  # fmt: skip
    finally:
        hook.remove()
    return seen[0]


def text_for(name):
    if name.startswith("hunyuan_video"):
        return hunyuan_text(1)
    words = 6 if name.startswith("cogvideox") else 512
    return TextCondition(torch.randn(1, words, 8, generator=torch.Generator().manual_seed(3)))


@every_pipeline
def test_models_are_called_and_predict_as_in_their_pipeline(name):
    pipe = frozen(IMAGE_PIPELINES[name])
    inputs, output = first_call(pipe, name)
    text, image = text_for(name), image_of(pipe, [picture()], **SIZE)
    backbone = backbone_for(pipe.transformer)
    replaced = name in ("hunyuan_video", "wan-2.2-5b")
    assert backbone.image_use == ("also" if name == "wan-2.2-5b" else "always")
    assert backbone.given_frames == replaced
    channels = backbone.latent_channels
    noisy = inputs["hidden_states"]
    if not name.startswith("cogvideox"):
        noisy = noisy.transpose(1, 2)
    latents = noisy[:, :, :channels]
    timestep = inputs["timestep"].max().item()
    called = backbone.arguments(latents, timestep=timestep, text=text, image=image)
    for key, expected in inputs.items():
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(called[key].float(), expected.float(), msg=key)
    found = backbone.predict(latents, timestep=timestep, text=text, image=image)
    torch.testing.assert_close(found, backbone.as_latents(output, latents.shape))
    other = image_of(pipe, [picture(1)], **SIZE)
    changed = backbone.predict(latents, timestep=timestep, text=text, image=other)
    assert (changed - found).abs().max() > 1e-3


@every_pipeline
def test_hidden_states_are_those_of_the_unmodified_model_in_its_pipeline(name):
    pipe, seen = frozen(IMAGE_PIPELINES[name]), []
    block = backbone_for(pipe.transformer).blocks_of(pipe.transformer)[0]
    hook = block.register_forward_hook(lambda module, args, output: seen.append(output))
    inputs, _ = first_call(pipe, name)
    hook.remove()
    expected = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    noisy = inputs["hidden_states"]
    noisy = noisy if name.startswith("cogvideox") else noisy.transpose(1, 2)
    backbone = backbone_for(pipe.transformer, 1)
    text, image = text_for(name), image_of(pipe, [picture()], **SIZE)
    tokens = backbone(
        noisy[:, :, : backbone.latent_channels],
        timestep=inputs["timestep"].max().item(),
        text=text,
        image=image,
    )
    torch.testing.assert_close(tokens.flatten(1, 2), expected)


@every_pipeline
def test_an_image_reaches_its_own_clip_alone_and_gradients_reach_the_clip(name):
    pipe = frozen(IMAGE_PIPELINES[name])
    backbone = backbone_for(pipe.transformer)
    images = image_of(pipe, [picture(0), picture(1)], **SIZE)
    latents = torch.randn(2, 3, backbone.latent_channels, *images.latents.shape[-2:])
    latents.requires_grad_()
    first = backbone(latents, timestep=3.0, image=images)
    swapped = backbone(latents, timestep=3.0, image=images.rows(torch.tensor([0, 0])))
    torch.testing.assert_close(swapped[0], first[0])
    assert (swapped[1] - first[1]).abs().max() > 1e-3
    without = backbone(latents, timestep=3.0)
    assert without.isfinite().all()
    assert (without - first).abs().max() > 1e-3
    first.square().sum().backward()
    assert latents.grad[:, backbone.given_frames :].abs().max(dim=2).values.min() > 0


def image(batch=2, frames=1, height=8, width=12, **fields):
    return ImageCondition(torch.zeros(batch, frames, 4, height, width), **fields)


def test_images_that_do_not_fit_are_refused():
    model = tiny_transformer("5b", in_channels=8)
    wan = tiny_wan(in_channels=12, image_dim=8, added_kv_proj_dim=32, out_channels=4)
    for transformer, given, message in (
        (tiny_transformer(), image(), "from text alone and takes no image: leave `image` out"),
        (model, image(1), r"expected 2 images of \(4, 8, 12\).*got \(1, 1, 4, 8, 12\)"),
        (model, image(height=6), r"expected 2 images of \(4, 8, 12\).*got \(2, 1, 4, 6, 12\)"),
        (model, image(family="WanTransformer3DModel"), "encoded for a WanTransformer3DModel"),
        (model, image(frames=3), "one frame of them; got 3"),
        (model, image(embeds=torch.zeros(2, 5, 8)), "one frame of them; got 1 and embeddings"),
        (wan, image(), "it has 5 latent frames, the image 1. Encode it with `image_of"),
        (wan, image(frames=5), "attends to the image's embeddings: give `embeds`"),
        (wan, image(frames=5, embeds=torch.zeros(2, 5, 9)), r"\(2, tokens, 8\), got \(2, 5, 9\)"),
    ):
        with pytest.raises(ValueError, match=message):
            backbone_for(transformer)(clips(), timestep=0.0, image=given)


def test_pipelines_without_image_and_single_images_are_refused():
    pipe = frozen(IMAGE_PIPELINES["cogvideox-5b"])
    with pytest.raises(ValueError, match="expected a list of at least one image, got Image"):
        image_of(pipe, picture(), **SIZE)
    with pytest.raises(ValueError, match="cannot encode images with a str"):
        image_of("pipe", [picture()], **SIZE)
    with pytest.raises(
        ValueError, match=r"of 36x32 pixels, the pipeline made \(1, 3, 32, 32\) of it"
    ):
        image_of(pipe, [picture()], num_frames=9, height=36, width=32)


def test_images_of_one_batch_must_be_alike():
    with pytest.raises(ValueError, match=r"number 0 is .*, number 1 is "):
        ImageCondition.cat([image(), image(factor=2.0)])
    both = ImageCondition.cat([image(1, family="x"), image(2, family="x")])
    assert (len(both), both.family) == (3, "x")


@pytest.mark.parametrize("name", ["hunyuan_video", "wan-2.2-5b"])
def test_what_a_model_says_of_the_frame_that_it_is_given_does_not_count(name):
    pipe = frozen(IMAGE_PIPELINES[name])
    backbone, image = backbone_for(pipe.transformer), image_of(pipe, [picture()], **SIZE)
    latents = torch.randn(1, 3, *image.latents.shape[2:])
    levels = noise_levels(backbone, (0.5,))
    errors = denoising_errors(backbone, latents, levels, image=image)
    torch.testing.assert_close(errors[..., 0], errors[..., 1:].mean(dim=2))
    level = levels[0]
    noise = level_noise(level, latents.shape[1:], 0)
    said = backbone.predict(level.noisy(latents, noise), timestep=level.timestep, image=image)
    wanted = (said - level.target(latents, noise)).square().mean(dim=(2, 3, 4))
    torch.testing.assert_close(errors[:, 0, 1:], wanted[:, 1:])
    with pytest.raises(ValueError, match="all 1 latent frames of the clip are the image"):
        denoising_errors(backbone, latents[:, :1], levels, image=image)


def test_the_5b_model_generates_without_an_image_too():
    pipe = frozen(IMAGE_PIPELINES["wan-2.2-5b"])
    backbone = backbone_for(pipe.transformer)
    called = backbone.arguments(torch.randn(1, 3, 48, 2, 2), timestep=5.0, text=None, image=None)
    assert called["timestep"].tolist() == [5.0]
