"""Blur and ghosting of latents: their formulas, what they keep, and how often they are drawn."""

import pytest
import torch

from gtsvj_reward.perturbations import (
    EXTENDED,
    GENERATED,
    PERTURBATIONS,
    PerturbationSampler,
    keyed_generator,
    latent_blur,
    latent_ghosting,
)
from tests.tiny import clips


@pytest.mark.parametrize("name", EXTENDED)
def test_shape_type_and_input_are_kept_and_draws_follow_the_generator(name):
    for dtype in (torch.float32, torch.bfloat16):
        latents = clips(3, dtype=dtype)
        before = latents.clone()
        out = EXTENDED[name](latents, generator=keyed_generator(1))
        assert out.dtype == dtype
        assert out.shape == latents.shape
        assert torch.equal(latents, before)
        assert torch.equal(out, EXTENDED[name](latents, generator=keyed_generator(1)))
        assert not torch.equal(out, EXTENDED[name](latents, generator=keyed_generator(2)))


@pytest.mark.parametrize("name", EXTENDED)
def test_each_clip_has_a_strength_of_its_own_and_gradients_pass(name):
    latents = clips(1).expand(2, -1, -1, -1, -1).clone().requires_grad_()
    out = EXTENDED[name](latents, generator=keyed_generator(1))
    assert not torch.allclose(out[0], out[1], atol=1e-3)
    out.square().sum().backward()
    assert latents.grad.abs().min() > 0


def test_blur_is_the_convolution_with_a_gaussian():
    latents = torch.zeros(1, 3, 1, 15, 15)
    latents[0, :, 0, 7, 7] = 1.0
    out = latent_blur(latents, generator=keyed_generator(1), radius_range=(1.0, 1.0))
    offsets = torch.arange(-3.0, 4.0)
    row = torch.exp(-(offsets**2) / 2)
    row = row / row.sum()
    torch.testing.assert_close(out[0, 1, 0, 4:11, 4:11], row[:, None] * row[None])
    even = torch.full((1, 3, 2, 4, 4), 1.5)
    torch.testing.assert_close(latent_blur(even, generator=keyed_generator(1)), even)


def test_ghosting_by_hand():
    """a = 1/2 on 0, 4, 8: 0; 4/2 + 0 = 2; 8/2 + 2/2 = 5."""
    latents = torch.tensor([0.0, 4.0, 8.0])[None, :, None, None, None]
    out = latent_ghosting(latents, generator=keyed_generator(1), share_range=(0.5, 0.5))
    assert out.flatten().tolist() == [0.0, 2.0, 5.0]


def test_stronger_means_less_detail_and_less_movement():
    latents = clips(4)
    detail = [
        latent_blur(latents, generator=keyed_generator(1), radius_range=(r, r)).diff(dim=4).abs()
        for r in (0.4, 0.9, 1.5)
    ]
    movement = [
        latent_ghosting(latents, generator=keyed_generator(1), share_range=(a, a)).diff(dim=1).abs()
        for a in (0.2, 0.5, 0.7)
    ]
    for levels in (detail, movement):
        means = [level.mean().item() for level in levels]
        assert means == sorted(means, reverse=True)
        assert means[0] > 1.3 * means[-1]


def test_the_extended_table_keeps_the_papers_proportions():
    table, sampler = PerturbationSampler(), PerturbationSampler.extended()
    assert sampler.real[GENERATED] == table.real[GENERATED]
    for kind in PERTURBATIONS:
        assert sampler.real[kind] == pytest.approx(table.real[kind] * 0.5 / 0.7)
        assert sampler.generated[kind] == pytest.approx(table.generated[kind] * 0.8)
    assert {kind: sampler.real[kind] for kind in EXTENDED} == dict.fromkeys(EXTENDED, 0.1)
    assert PerturbationSampler.from_dict(sampler.to_dict()) == sampler
    assert sampler.apply("latent_blur", clips(), keyed_generator(1)).shape == clips().shape


@pytest.mark.parametrize(
    ("function", "setting", "value"),
    [(latent_blur, "radius_range", (0.0, 1.0)), (latent_ghosting, "share_range", (0.5, 1.0))],
)
def test_ranges_are_checked(function, setting, value):
    with pytest.raises(ValueError, match=f"`{setting}` must satisfy"):
        function(clips(), generator=keyed_generator(1), **{setting: value})
    with pytest.raises(ValueError, match="at least 3"):
        function(clips(1, 2), generator=keyed_generator(1))
