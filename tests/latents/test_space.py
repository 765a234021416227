"""Laws of `LatentSpace`: identity, layouts, padding, refusals."""

import json

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from hypothesis import given, strategies as st

from gtsvj_reward.latents import LatentSpace, LatentSpaceError
from tests.latents.tiny import make_vae

# The parts of the published vae/config.json files that tell the models apart.
PUBLISHED = {
    "block_out_channels": (128, 256, 256, 512),
    "latent_channels": 16,
    "layers_per_block": 3,
    "norm_num_groups": 32,
    "temporal_compression_ratio": 4,
    "sample_height": 480,
    "sample_width": 720,
}


def published_vae(**changes):
    with torch.device("meta"):
        return AutoencoderKLCogVideoX(**{**PUBLISHED, **changes})


def a_space(**changes):
    return LatentSpace(**{"id": "a", "channels": 4, "scaling_factor": 0.7, **changes})


@pytest.mark.parametrize(
    ("scaling_factor", "patch_size_t", "expected"),
    [(1.15258426, None, "cogvideox-2b"), (0.7, None, "cogvideox-5b"), (0.7, 2, "cogvideox-1.5")],
)
def test_published_vaes_are_known_by_their_config(scaling_factor, patch_size_t, expected):
    for invert in (False, True):
        vae = published_vae(scaling_factor=scaling_factor, invert_scale_latents=invert)
        space = LatentSpace.from_vae(vae, patch_size_t)
        assert space.id == expected
        assert space.scaling_factor == scaling_factor
        assert space.patch_size_t == patch_size_t
        assert (space.channels, space.spatial_compression, space.temporal_compression) == (16, 8, 4)
        assert space.layout == "BTCHW"


@pytest.mark.parametrize(
    "changes", [{"layers_per_block": 2}, {"scaling_factor": 1.0}, {"latent_channels": 8}]
)
def test_other_vaes_of_the_class_are_not_taken_for_published_ones(changes):
    vae = published_vae(**changes)
    with pytest.raises(ValueError, match="meta device"):  # their name needs their weights
        LatentSpace.from_vae(vae)
    assert LatentSpace.from_vae(vae, id="mine").id == "mine"


def test_sixteen_channels_and_a_known_factor_do_not_make_a_published_vae():
    one, two = (make_vae(seed, latent_channels=16, scaling_factor=0.7) for seed in (0, 1))
    first, second = LatentSpace.from_vae(one), LatentSpace.from_vae(two)
    assert first.id.startswith("cogvideox-vae-")
    assert len(first.id) == len("cogvideox-vae-") + 12
    assert first.id != second.id
    assert not first.same_latents(second)
    assert first == LatentSpace.from_vae(make_vae(0, latent_channels=16, scaling_factor=0.7))


def test_5b_and_1_5_hold_the_same_latents_and_2b_does_not():
    vae = published_vae(scaling_factor=0.7)
    five, one_five = LatentSpace.from_vae(vae), LatentSpace.from_vae(vae, patch_size_t=2)
    two = LatentSpace.from_vae(published_vae())
    assert five != one_five
    assert five.same_latents(one_five)
    assert one_five.same_latents(five)
    assert not two.same_latents(five)


def test_other_families_are_refused():
    with pytest.raises(LatentSpaceError, match="got `AutoencoderKL`"):
        LatentSpace.from_vae(AutoencoderKL())
    with pytest.raises(LatentSpaceError, match=r"`shift_factor`=0.1"):
        LatentSpace.from_vae(make_vae(shift_factor=0.1))


def tiny_pipeline(vae, patch_size_t):
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=4,
        text_embed_dim=8,
        num_layers=1,
        max_text_seq_length=4,
        sample_width=4,
        sample_height=4,
        use_rotary_positional_embeddings=True,
        patch_size_t=patch_size_t,
        patch_bias=patch_size_t is None,
    )
    pipe = CogVideoXPipeline(None, None, vae, transformer, CogVideoXDDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("num_frames", [9, 13])
@pytest.mark.parametrize("patch_size_t", [None, 2])
def test_unpad_and_decode_are_what_the_pipeline_does(vae, num_frames, patch_size_t):
    pipe = tiny_pipeline(vae, patch_size_t)
    space = LatentSpace.from_pipeline(pipe)
    assert space.patch_size_t == patch_size_t
    shared = {
        "prompt_embeds": torch.ones(1, 4, 8),
        "num_frames": num_frames,
        "height": 32,
        "width": 32,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
    }
    seed = torch.Generator()
    latents = pipe(**shared, output_type="latent", generator=seed.manual_seed(0)).frames
    video = pipe(**shared, output_type="pt", generator=seed.manual_seed(0)).frames
    steps = space.latent_frames(num_frames)
    assert latents.shape[1] == (4 if patch_size_t and num_frames == 9 else steps)
    unpadded = space.unpad(latents, num_frames)
    assert unpadded.shape[1] == steps
    decoded = space.decode(unpadded, vae)
    assert decoded.shape[1] == num_frames
    if steps % 2:  # by itself the pipeline decodes an even number of latents to too many frames
        torch.testing.assert_close(decoded, video, atol=1e-5, rtol=0)
        assert video.std() > 0.01


def test_unpad_drops_the_front():
    space = a_space(patch_size_t=2)
    latents = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(1, 4, 4, 2, 2)
    assert space.unpad(latents, 9)[0, :, 0, 0, 0].tolist() == [1, 2, 3]
    assert space.unpad(latents[:, 1:], 9)[0, :, 0, 0, 0].tolist() == [1, 2, 3]
    with pytest.raises(LatentSpaceError, match=r"9 frames are 3, or 4 with padding, .* got 2"):
        space.unpad(latents[:, :2], 9)
    with pytest.raises(LatentSpaceError, match=r"9 frames are 3 latent frames .* got 4"):
        a_space().unpad(latents, 9)


@given(st.integers(1, 200))
def test_frames_and_latents_count_back_and_forth(steps):
    space = a_space()
    assert space.latent_frames(space.video_frames(steps)) == steps
    for more in (1, 2, 3):
        with pytest.raises(ValueError, match=r"4f \+ 1"):
            space.latent_frames(space.video_frames(steps) + more)


def test_frame_counts_by_hand():
    # 49 frames: the first alone, then 48 / 4 = 12 groups
    assert a_space().latent_frames(49) == 13
    assert a_space().video_frames(21) == 81
    with pytest.raises(ValueError, match="got 0"):
        a_space().latent_frames(0)
    with pytest.raises(ValueError, match="at least one"):
        a_space().video_frames(0)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.sampled_from(["BTCHW", "BCTHW"]))
def test_layouts_come_back(batch, time, side, layout):
    space = a_space(layout=layout)
    latents = torch.randn(batch, time, 4, side, side + 1)
    generators = space.from_btchw(latents)
    assert generators.shape[layout.index("C")] == 4
    assert generators.shape[layout.index("T")] == time
    assert torch.equal(space.to_btchw(generators), latents)
    assert torch.equal(space.to_btchw(space.from_btchw(latents, "BCTHW"), "BCTHW"), latents)


def test_swapped_axes_are_named_and_only_guessed_when_checkable():
    space = a_space()
    with pytest.raises(LatentSpaceError, match="axis 1 does, so it looks like 'BCTHW'"):
        space.to_btchw(torch.randn(1, 4, 3, 2, 2))
    with pytest.raises(LatentSpaceError, match="axis 2 does, so it looks like 'BTCHW'"):
        space.to_btchw(torch.randn(1, 3, 4, 2, 2), layout="BCTHW")
    with pytest.raises(LatentSpaceError) as caught:
        space.from_btchw(torch.randn(1, 5, 3, 2, 2))
    assert "looks like" not in str(caught.value)


def test_space_goes_through_json_strictly():
    wan = a_space(scaling_factor=1.0, mean=(0.0, 1.0, 2.0, 3.0), std=(1.0, 2.0, 3.0, 4.0))
    for space in (a_space(patch_size_t=2, vae="b"), a_space(expected_std=None), wan):
        stored = json.loads(json.dumps(space.to_dict()))
        assert LatentSpace.from_dict(stored) == space
        with pytest.raises(ValueError, match=r"unknown keys \['colour'\]"):
            LatentSpace.from_dict({**stored, "colour": 1})
        del stored["channels"]
        with pytest.raises(ValueError, match=r"missing keys \['channels'\]"):
            LatentSpace.from_dict(stored)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, ">= 1"),
        ({"patch_size_t": -1}, ">= 1"),
        ({"id": ""}, "must not be empty"),
        ({"mean": (0.0,) * 4}, "belong together"),
        ({"mean": (0.0,), "std": (1.0,), "scaling_factor": 1.0}, "must have 4 numbers"),
        ({"mean": (0.0,) * 4, "std": (1.0,) * 4}, "leave `scaling_factor`"),
    ],
)
def test_contradictory_fields_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        a_space(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"shift_factor": 0.3},
        {"scaling_factor": 1.0, "mean": (0.0, 1.0, 2.0, 3.0), "std": (1.0, 2.0, 3.0, 4.0)},
    ],
)
def test_scale_and_unscale_are_inverse(changes):
    space, raw = a_space(**changes), torch.randn(2, 3, 4, 2, 2)
    torch.testing.assert_close(space.unscale(space.scale(raw)), raw)
    assert not torch.allclose(space.scale(raw), raw, atol=0.05)


def test_scale_by_hand():
    raw = torch.full((1, 1, 4, 1, 1), 5.0)
    space = a_space(scaling_factor=1.0, mean=(1.0, 2.0, 3.0, 4.0), std=(2.0, 2.0, 4.0, 4.0))
    assert space.scale(raw).flatten().tolist() == [2.0, 1.5, 0.5, 0.25]
    assert a_space(scaling_factor=0.5, shift_factor=1.0).scale(raw).unique().tolist() == [2.0]


def test_check_passes_good_latents_of_any_float_type():
    good = torch.randn(2, 3, 4, 5, 6)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        a_space().check(good.to(dtype), a_space(id="b", vae="a", patch_size_t=2))
    a_space().check(good.to("meta"))


BAD = torch.randn(3, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (BAD[0], r"rank 5 .*latents\[None\]"),
        (BAD[0, 0], "rank 5"),
        (BAD.transpose(1, 2), "looks like 'BCTHW'"),
        (BAD[:, :, :3], "expected 4 latent channels on axis 2"),
        (BAD[:0], "at least one"),
        (BAD.int(), "floating point latents, got torch.int32"),
        (BAD * torch.tensor([1.0, 20.0, 1.0]).view(3, 1, 1, 1, 1), r"latents\[1\].*scaled latents"),
        ((50 * BAD + 128).clamp(0, 255), r"latents\[0\] has standard deviation [45]\d"),
        (torch.zeros_like(BAD), r"latents\[0\] has standard deviation 0"),
    ],
)
def test_check_refuses(latents, message):
    with pytest.raises(LatentSpaceError, match=message):
        a_space().check(latents)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("options", [{}, {"check_statistics": False}])
def test_check_names_the_non_finite_clip(value, options):
    latents = torch.randn(3, 3, 4, 5, 6)
    latents[2, 1, 0, 0, 0] = value
    with pytest.raises(LatentSpaceError, match=r"latents\[2\] has non-finite"):
        a_space().check(latents, **options)


def test_statistics_can_be_switched_off():
    wild = 1e30 * torch.randn(1, 3, 4, 5, 6)  # its variance overflows, its values are finite
    with pytest.raises(LatentSpaceError, match="standard deviation"):
        a_space().check(wild)
    a_space().check(wild, check_statistics=False)
    a_space(expected_std=None).check(wild)


def test_foreign_latents_are_refused_naming_both():
    with pytest.raises(LatentSpaceError, match=r"expected latents of `a`.* got latents of `wan`"):
        a_space().check(torch.randn(1, 3, 4, 5, 6), a_space(id="wan"))
    with pytest.raises(LatentSpaceError, match=r"factor 0\.7.*factor 1\.2"):
        a_space().check(torch.randn(1, 3, 4, 5, 6), a_space(scaling_factor=1.2))


def ltx_space(**changes):
    fields = {
        "id": "ltx",
        "channels": 3,
        "spatial_compression": 32,
        "temporal_compression": 8,
        "mean": (0.5, -1.25, 2.0),
        "std": (1.5, 0.75, 1.0),
    }
    return LatentSpace(**{**fields, **changes})


def test_packed_tokens_are_laid_out_by_time_row_and_column():
    latents = torch.arange(2 * 3 * 2 * 4 * 3).reshape(2, 3, 2, 4, 3).float()  # B T H W C
    unpacked = ltx_space().unpack(latents.flatten(1, 3), num_frames=17, height=64, width=128)
    assert torch.equal(unpacked, latents.movedim(-1, 2))
    with pytest.raises(LatentSpaceError, match="24"):
        ltx_space().unpack(latents.flatten(1, 3), num_frames=25, height=64, width=128)
    with pytest.raises(ValueError, match="multiples of 32"):
        ltx_space().unpack(latents.flatten(1, 3), num_frames=17, height=60, width=128)


def test_statistics_agree_as_far_as_bfloat16_holds_them():
    space = ltx_space()
    rounded = torch.tensor(space.mean).bfloat16().float().tolist()
    rounded_std = tuple(torch.tensor((1.503, 0.7501, 1.0)).bfloat16().float().tolist())
    assert space.same_latents(ltx_space(mean=tuple(rounded), std=rounded_std))
    assert not space.same_latents(ltx_space(mean=(0.52, -1.25, 2.0)))
    assert not space.same_latents(ltx_space(std=(1.5, 0.75, 1.02)))
    assert not space.same_latents(ltx_space(mean=None, std=None))
