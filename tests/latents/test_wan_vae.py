"""Wan VAEs against unmodified diffusers: 8x8x4, and 16x16x4 with patches (2.2-5B)."""

from types import SimpleNamespace

import diffusers
import pytest
import torch

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from gtsvj_reward.latents.wan_vae import PUBLISHED, tile_and_stride
from tests.latents.tiny import make_vae, moving_frames

pytest.importorskip("diffusers", minversion="0.36", reason="Wan VAEs are refused before 0.36")
AutoencoderKLWan = diffusers.AutoencoderKLWan
FlowMatchEulerDiscreteScheduler = diffusers.FlowMatchEulerDiscreteScheduler
WanImageToVideoPipeline = diffusers.WanImageToVideoPipeline
WanPipeline = diffusers.WanPipeline
WanTransformer3DModel = diffusers.WanTransformer3DModel

KINDS = {
    "2.1": {"base_dim": 4, "z_dim": 4},
    "2.2-5b": {
        "base_dim": 4,
        "decoder_base_dim": 6,
        "z_dim": 6,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    },
}
SETTINGS = ("use_", "tile_")


def make_wan_vae(kind="2.1", seed=0, **changes):
    torch.manual_seed(seed)
    channels = KINDS[kind]["z_dim"]
    config = {
        "dim_mult": [1, 1, 2, 2],
        "num_res_blocks": 1,
        "latents_mean": [0.3 * index - 0.5 for index in range(channels)],
        "latents_std": [0.5 + 0.25 * index for index in range(channels)],
        **KINDS[kind],
        **changes,
    }
    return AutoencoderKLWan(**config).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=KINDS)
def vae(request):
    return make_wan_vae(request.param)


@pytest.fixture
def space(vae):
    return LatentSpace.from_vae(vae)


def clip(time, height=32, width=48, seed=0):
    return moving_frames(time, height, width, seed).permute(0, 3, 1, 2)[None].float() / 255


def latents_of(space, steps, rows=2, columns=3, batch=1):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, steps, space.channels, rows, columns, generator=generator)


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


def test_other_vaes_are_named_after_their_weights(vae, space):
    assert space.id.startswith("wan-vae-")
    assert len(space.id) == len("wan-vae-") + 12
    kind = "2.1" if vae.config.patch_size is None else "2.2-5b"
    assert LatentSpace.from_vae(make_wan_vae(kind)) == space
    assert not LatentSpace.from_vae(make_wan_vae(kind, seed=1)).same_latents(space)


@pytest.mark.parametrize("time", [1, 5, 9, 13])
def test_encode_equals_the_posterior_of_diffusers(vae, space, time):
    frames = torch.cat([clip(time), clip(time, seed=1)])
    latents = space.encode(frames, vae)
    side = space.spatial_compression
    assert latents.shape == (2, space.latent_frames(time), space.channels, 32 // side, 48 // side)
    posterior = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist
    raw = space.unscale(latents).transpose(1, 2)
    torch.testing.assert_close(raw, posterior.mode(), atol=1e-5, rtol=1e-5)
    assert latents.std() > 1e-3
    assert (latents[0] - latents[1]).abs().max() > 1e-3


def test_a_generator_draws_from_the_posterior(vae, space):
    draws = [
        space.encode(clip(5), vae, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])


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
def test_any_number_of_latents_gives_4f_plus_1_frames_of_their_own(vae, space, steps):
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


def test_tiles_equal_diffusers_tiles(vae, space):
    side = space.spatial_compression
    tile, strides = (4 * side, 4 * side), (3 * side, 3 * side)
    frames = clip(5, 6 * side, 9 * side)
    tiled = space.encode(frames, vae, tile=tile)
    decoded = space.decode(tiled, vae, tile=tile)
    own = make_wan_vae("2.1" if side == 8 else "2.2-5b")
    patch = own.config.patch_size or 1
    own.enable_tiling(*(size // patch for size in (*tile, *strides)))
    raw = own.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode()
    assert torch.equal(tiled, space.scale(space.to_btchw(raw)))
    own.enable_tiling(*tile, *strides)
    pixels = own.decode(space.unscale(tiled).transpose(1, 2)).sample.transpose(1, 2)
    assert torch.equal(decoded, (pixels / 2 + 0.5).clamp(0, 1))
    assert not torch.allclose(tiled, space.encode(frames, vae, tile=None), atol=1e-5)
    assert not torch.allclose(decoded, space.decode(tiled, vae, tile=None), atol=1e-5)


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
    assert tile_and_stride(tile, side) == expected


@pytest.mark.parametrize("tile", [(240, 360), None])
def test_settings_of_the_vae_are_put_back_also_after_an_error(tile, monkeypatch):
    vae = make_wan_vae()
    space = LatentSpace.from_vae(vae)
    vae.enable_tiling(64, 72, 48, 56)
    before = {key: value for key, value in vars(vae).items() if key.startswith(SETTINGS)}
    assert len(before) == 6
    seen = []

    def broken(_):
        seen.append({key: value for key, value in vars(vae).items() if key.startswith(SETTINGS)})
        raise RuntimeError("out of memory")

    space.encode(clip(1), vae, tile=tile)
    monkeypatch.setattr(vae, "encode", broken)
    monkeypatch.setattr(vae, "decode", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.encode(clip(1), vae, tile=tile)
    with pytest.raises(RuntimeError, match="out of memory"):
        space.decode(latents_of(space, 1), vae, tile=tile)
    assert before == {key: value for key, value in vars(vae).items() if key.startswith(SETTINGS)}
    for during in seen:
        assert during["use_slicing"]
        assert during["use_tiling"] == (tile is not None)


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_gradients_follow_the_callers_mode(vae, space, tile):
    side = space.spatial_compression
    frames = clip(5, 5 * side, 4 * side).requires_grad_()
    latents = space.encode(frames, vae, tile=tile)
    (gradient,) = torch.autograd.grad(latents.square().sum(), frames)
    assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
    point = latents_of(space, 2, 5, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(space.decode(point, vae, tile=tile).sum(), point)
    assert (gradient.abs().sum(dim=(0, 2, 3, 4)) > 0).all()
    with torch.no_grad():
        assert not space.encode(frames, vae, tile=tile).requires_grad


def test_runs_in_the_vaes_type_and_returns_float32():
    vae = make_wan_vae().to(torch.bfloat16)
    space = LatentSpace.from_vae(vae)
    latents = space.encode(clip(5), vae)
    frames = space.decode(latents, vae)
    assert latents.dtype == frames.dtype == torch.float32
    assert 0 <= frames.min() <= frames.max() <= 1


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (clip(4), {}, r"4f \+ 1 frames .* got 4"),
        (clip(1, 40, 36), {}, "multiples of 8, got 40x36"),
        (clip(1) * 255, {}, r"in \[0, 1\].* divide uint8 frames by 255"),
        (clip(1) * 2 - 1, {}, r"in \[0, 1\], got -"),
        (clip(1), {"tile": (24, 64)}, r"of 32 pixels or more.*got \(24, 64\)"),
    ],
)
def test_encode_refuses(frames, options, message):
    vae = make_wan_vae()
    with pytest.raises(ValueError, match=message):
        LatentSpace.from_vae(vae).encode(frames, vae, **options)


def test_sizes_of_8_but_not_of_16_are_refused_with_patches():
    vae = make_wan_vae("2.2-5b")
    with pytest.raises(ValueError, match="multiples of 16, got 40x48"):
        LatentSpace.from_vae(vae).encode(clip(1, 40, 48), vae)


def test_a_vae_of_another_space_is_refused(vae, space):
    other = make_wan_vae("2.2-5b" if vae.config.patch_size is None else "2.1")
    with pytest.raises(LatentSpaceError, match=r"expected a VAE with .* got one with"):
        space.encode(clip(1), other)
    moved = [value + 0.1 for value in vae.config.latents_mean]
    kind = "2.1" if vae.config.patch_size is None else "2.2-5b"
    with pytest.raises(LatentSpaceError, match="'mean'"):
        space.decode(latents_of(space, 1), make_wan_vae(kind, latents_mean=moved))
    with pytest.raises(LatentSpaceError, match=r"'scaling_factor': 1\.15"):
        space.encode(clip(1), make_vae(latent_channels=space.channels))


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
        LatentSpace.from_vae(make_wan_vae(**changes))


def test_a_diffusers_that_tiles_wrongly_is_refused():
    vae = make_wan_vae("2.2-5b")
    vae.spatial_compression_ratio = 8  # as diffusers 0.35 sets it
    with pytest.raises(LatentSpaceError, match=r"diffusers 0\.36"):
        LatentSpace.from_vae(vae)
