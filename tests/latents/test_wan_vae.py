"""Wan VAEs: 8x8x4 without patches, and 16x16x4 with them (2.2-5B), and what pipelines decode."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.vaes import vae_family
from gtsvj_reward.latents.wan_vae import PUBLISHED
from tests.latents.tiny import BY_NAME, clip, latents_of, params

pytest.importorskip("diffusers", minversion="0.36", reason="Wan VAEs are refused before 0.36")
AutoencoderKLWan = diffusers.AutoencoderKLWan
FlowMatchEulerDiscreteScheduler = diffusers.FlowMatchEulerDiscreteScheduler
WanImageToVideoPipeline = diffusers.WanImageToVideoPipeline
WanPipeline = diffusers.WanPipeline
WanTransformer3DModel = diffusers.WanTransformer3DModel


@pytest.fixture(scope="module", params=params("wan"))
def family(request):
    return request.param


@pytest.fixture(scope="module")
def vae(family):
    return family.make()


@pytest.fixture(scope="module")
def space(vae):
    return LatentSpace.from_vae(vae)


def published(**changes):
    """The config of 2.2-5B's VAE, but for its statistics."""
    config = {"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True,
              "in_channels": 12, "out_channels": 12, "patch_size": 2,
              "scale_factor_spatial": 16}  # fmt: skip
    with torch.device("meta"):
        return AutoencoderKLWan(**{**config, **changes})


def test_defaults_of_diffusers_are_the_published_vae_of_2_1():
    with torch.device("meta"):
        vae = AutoencoderKLWan()
    space = LatentSpace.from_vae(vae)
    assert space.id == "wan-2.1"
    assert (space.channels, space.spatial_compression, space.temporal_compression) == (16, 8, 4)
    assert space.layout == "BCTHW"
    assert (space.scaling_factor, space.shift_factor) == (1.0, None)
    assert space.mean == tuple(vae.config.latents_mean)
    assert space.std == tuple(vae.config.latents_std)
    with torch.device("meta"):
        other = AutoencoderKLWan(latents_mean=[0.0] * 16)
    with pytest.raises(ValueError, match="meta device"):  # its name needs its weights
        LatentSpace.from_vae(other)


def test_the_published_vae_of_2_2_is_known_by_its_config():
    # Sums and ends of the 48 numbers in diffusers' `scripts/convert_wan_to_diffusers.py`.
    mean, std = (PUBLISHED["wan-2.2-5b"][key] for key in ("latents_mean", "latents_std"))
    assert (mean[0], mean[-1], std[0], std[-1]) == (-0.2289, -0.0667, 0.4765, 0.7744)
    assert round(sum(mean), 4) == -0.5589
    assert round(sum(std), 4) == 32.536
    vae = published(latents_mean=mean, latents_std=std)
    space = LatentSpace.from_vae(vae)
    assert space.id == "wan-2.2-5b"
    assert (space.channels, space.spatial_compression, space.temporal_compression) == (48, 16, 4)
    with pytest.raises(ValueError, match="meta device"):
        LatentSpace.from_vae(published(latents_mean=std, latents_std=std))


def test_scaling_is_that_of_the_image_to_video_pipeline(vae, space):
    """Its latents of a conditioning image, which are those of a clip of one frame."""
    image = clip(1)[:, 0]
    pipe = SimpleNamespace(
        vae=vae,
        vae_scale_factor_temporal=4,
        vae_scale_factor_spatial=space.spatial_compression,
        config=SimpleNamespace(expand_timesteps=True),
    )
    _, condition, _ = WanImageToVideoPipeline.prepare_latents(
        pipe, image * 2 - 1, 1, space.channels, 32, 48, 1, torch.float32, torch.device("cpu")
    )
    ours = space.encode(image[:, None], vae)
    torch.testing.assert_close(ours, space.to_btchw(condition), atol=1e-5, rtol=1e-5)


def tiny_pipeline(vae, space):
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=space.channels,
        out_channels=space.channels,
        text_dim=8,
        freq_dim=8,
        ffn_dim=16,
        num_layers=1,
        rope_max_seq_len=16,
    )
    scheduler = FlowMatchEulerDiscreteScheduler()
    many = space.spatial_compression == 16
    pipe = WanPipeline(None, None, vae, scheduler, transformer, expand_timesteps=many)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("num_frames", [1, 5, 9, 13])
def test_decode_is_the_pipelines_own_and_its_latents_are_of_this_layout(vae, space, num_frames):
    pipe = tiny_pipeline(vae, space)
    assert LatentSpace.from_pipeline(pipe) == space
    asked = {"prompt_embeds": torch.zeros(1, 4, 8), "guidance_scale": 1.0, "height": 64,
             "width": 96, "num_frames": num_frames, "num_inference_steps": 1}  # fmt: skip
    latents, pixels = (
        pipe(**asked, output_type=kind, generator=torch.Generator().manual_seed(0)).frames
        for kind in ("latent", "pt")
    )
    assert latents.shape[1] == space.channels
    decoded = space.decode(space.to_btchw(latents), vae)
    assert decoded.shape == (1, num_frames, 3, 64, 96)
    # The pipeline divides by a reciprocal, which the decoder amplifies.
    torch.testing.assert_close(decoded, pixels, atol=2e-4, rtol=0)
    assert decoded.std() > 0.01


@pytest.mark.parametrize("steps", range(1, 7))
def test_frames_do_not_depend_on_later_latents(vae, space, steps):
    latents = latents_of(space, 6)
    decoded = space.decode(latents[:, :steps], vae)
    side = space.spatial_compression
    assert decoded.shape == (1, 4 * (steps - 1) + 1, 3, 2 * side, 3 * side)
    whole = space.decode(latents, vae)
    torch.testing.assert_close(decoded, whole[:, : decoded.shape[1]], atol=1e-6, rtol=0)


def input_sizes(module, run):
    """Largest height and width that a module is given while something runs."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
    try:
        run()
    finally:
        hook.remove()
    return tuple(max(size[axis] for size in seen) for axis in (0, 1)), len(seen)


def test_tiles_are_in_pixels_both_ways(vae, space):
    side = space.spatial_compression
    patch = vae.config.patch_size or 1
    frames, tile = clip(1, 8 * side, 9 * side), (4 * side + 3, 5 * side)
    (height, width), calls = input_sizes(vae.encoder, lambda: space.encode(frames, vae, tile=tile))
    assert (height * patch, width * patch) == (4 * side, 5 * side)
    assert calls == 3 * 3  # tiles start every 3 latents: of 8 and of 9
    latents = latents_of(space, 1, 8, 9)
    size, calls = input_sizes(vae.decoder, lambda: space.decode(latents, vae, tile=tile))
    assert (size, calls) == ((4, 5), 9)
    _, calls = input_sizes(vae.encoder, lambda: space.encode(frames, vae, tile=None))
    assert calls == 1


@pytest.mark.parametrize(
    ("tile", "side", "expected"),
    [
        ((256, 256), 8, (256, 256, 192, 192)),  # diffusers' own
        ((256, 256), 16, (256, 256, 192, 192)),
        ((240, 360), 8, (240, 360, 176, 264)),  # 30 and 45 latents: 22.5 and 33.75 down
        ((240, 360), 16, (240, 352, 176, 256)),  # 15 and 22.5 latents: 15 and 22; 11.25 and 16.5
    ],
)
def test_tiles_and_strides_are_whole_latents(tile, side, expected):
    vae = BY_NAME["wan-2.1" if side == 8 else "wan-2.2-5b"].make()
    assert tuple(vae_family(vae).tiling(tile, encoding=False).values()) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_factor_temporal": 8}, r"space by 8 and time by 8, its layers by 8 and 4"),
        ({"scale_factor_spatial": 16}, r"space by 16 and time by 4, its layers by 8 and 4"),
        (
            {"temperal_downsample": [False, False, True], "scale_factor_temporal": 2},
            r"time by 2, .* 4 in time",
        ),
        ({"latents_mean": None}, "no `latents_mean`"),
    ],
)
def test_configs_that_contradict_themselves_are_refused(changes, message):
    with pytest.raises(LatentSpaceError, match=message):
        LatentSpace.from_vae(BY_NAME["wan-2.1"].make(**changes))


def test_a_diffusers_that_tiles_wrongly_is_refused():
    vae = BY_NAME["wan-2.2-5b"].make()
    vae.spatial_compression_ratio = 8  # as diffusers 0.35 sets it
    with pytest.raises(LatentSpaceError, match=r"diffusers 0\.36"):
        LatentSpace.from_vae(vae)


def test_other_statistics_are_refused(family, vae, space):
    moved = [value + 0.1 for value in vae.config.latents_mean]
    with pytest.raises(LatentSpaceError, match="'mean'"):
        space.decode(latents_of(space, 1), family.make(latents_mean=moved))
