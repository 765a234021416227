"""Denoising errors, against the scheduler of each family's pipeline and a plain loop."""

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    UniPCMultistepScheduler,
)

from gtsvj_reward.backbones import backbone_for, denoising_errors, noise_levels
from gtsvj_reward.backbones.denoising import NoiseLevel, level_noise
from tests.backbones.families import FAMILIES
from tests.backbones.test_families import every_family, latents_of

SHARES = (0.3, 0.6)

COGVIDEOX = {"prediction_type": "v_prediction", "snr_shift_scale": 3.0,
             "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}  # fmt: skip
"""As CogVideoX-2b's own scheduler."""


def scheduler_of(family):
    if family.name.startswith("cogvideox"):
        return CogVideoXDDIMScheduler(**COGVIDEOX)
    return FlowMatchEulerDiscreteScheduler(invert_sigmas=family.name == "mochi")


def output_of(family, model, noisy, timestep, text):
    """What the unmodified model returns, called as its pipeline does, in BTCHW."""
    seen = []
    hook = model.register_forward_hook(lambda module, inputs, output: seen.append(output[0]))
    try:
        family.hidden(model, noisy, family.depths[-1], timestep, text)
    finally:
        hook.remove()
    if family.name.startswith("cogvideox"):
        return seen[0]
    if family.name in ("ltx", "ltx-2"):
        _, steps, _, height, width = noisy.shape
        return LTXPipeline._unpack_latents(seen[0], steps, height, width).transpose(1, 2)
    return seen[0].transpose(1, 2)


def expected_errors(family, model, clean, level, text, seed):
    """Squared errors, by the scheduler's own forward process and its own way back."""
    scheduler = scheduler_of(family)
    noise = level_noise(level, clean.shape[1:], seed).expand_as(clean)
    if family.name.startswith("cogvideox"):
        timesteps = torch.full((len(clean),), int(level.timestep))
        noisy = scheduler.add_noise(clean, noise, timesteps)
        target = scheduler.get_velocity(clean, noise, timesteps)
        output = output_of(family, model, noisy, level.timestep, text)
        return (output - target).square()
    scheduler.set_timesteps(sigmas=[level.sigma])
    first = scheduler.timesteps[:1].expand(len(clean))
    if scheduler.config.invert_sigmas:  # its sigmas are the share of what is clean
        noisy = scheduler.scale_noise(noise, first, clean)
    else:
        noisy = scheduler.scale_noise(clean, first, noise)
    output = output_of(family, model, noisy, level.timestep, text)
    # One step to the end of the schedule is the clip that the model believes in, and its error is
    # sigma times that of the flow.
    believed = scheduler.step(output, scheduler.timesteps[0], noisy).prev_sample
    return ((believed - clean) / level.sigma).square()


@every_family
def test_errors_are_those_of_the_pipelines_own_scheduler(family):
    model, clean, text = family.transformer(0), latents_of(family), family.text(2)
    backbone = backbone_for(model)
    scheduler = scheduler_of(family) if not backbone.flow_matching else None
    levels = noise_levels(backbone, SHARES, scheduler)
    assert noise_levels(backbone, SHARES, scheduler_of(family)) == levels
    with torch.no_grad():
        for condition in (text, None):
            errors = denoising_errors(backbone, clean, levels, text=condition, seed=5)
            assert errors.shape == (2, len(levels), family.tokens(family.sizes[0])[0])
            for index, level in enumerate(levels):
                squares = expected_errors(
                    family, model, clean, level, condition or family.null_text(2), seed=5
                )
                steps = squares.mean(dim=(2, 3, 4)).unflatten(1, (errors.shape[2], -1)).mean(2)
                torch.testing.assert_close(errors[:, index], steps, rtol=2e-3, atol=1e-4)
    assert errors.std() > 1e-3, "errors are all alike: the test proves nothing"


@every_family
def test_gradients_equal_central_differences(family):
    """Models that cast to float32 inside are exact to 1e-3 only."""
    backbone = backbone_for(family.transformer(0).double())
    scheduler = None if backbone.flow_matching else scheduler_of(family)
    levels = noise_levels(backbone, SHARES, scheduler)
    clean = latents_of(family, dtype=torch.float64).requires_grad_()
    errors = denoising_errors(backbone, clean, levels)
    (gradient,) = torch.autograd.grad(errors.sum(), clean)
    direction = latents_of(family, seed=9, dtype=torch.float64)
    with torch.no_grad():
        up, down = (
            denoising_errors(backbone, clean + s * 1e-3 * direction, levels).sum() for s in (1, -1)
        )
    slope = (gradient * direction).sum()
    torch.testing.assert_close((up - down) / 2e-3, slope, rtol=2e-3, atol=1e-5)
    assert slope.abs() > 1e-3


@pytest.fixture
def wan():
    return next(family for family in FAMILIES if family.name == "wan-2.1")


def test_a_clip_depends_neither_on_its_companions_nor_on_other_levels(wan):
    backbone, clean = backbone_for(wan.transformer(0)), latents_of(wan, batch=3)
    levels = noise_levels(backbone, SHARES)
    together = denoising_errors(backbone, clean, levels, text=wan.text(3))
    text = wan.text(3).rows(torch.tensor([2]))
    alone = denoising_errors(backbone, clean[2:], levels[1:], text=text)
    torch.testing.assert_close(together[2:, 1:], alone)
    assert torch.equal(together, denoising_errors(backbone, clean, levels, text=wan.text(3)))
    other = denoising_errors(backbone, clean, levels, text=wan.text(3), seed=1)
    assert (other - together).abs().min() > 1e-5


def test_memory_in_a_backward_pass_is_that_of_one_level(wan):
    """Bytes kept for the backward pass do not grow by a level's activations."""
    backbone, clean = backbone_for(wan.transformer(0)), latents_of(wan).requires_grad_()

    def kept(shares):
        sizes = {}

        def pack(tensor):
            sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            denoising_errors(backbone, clean, noise_levels(backbone, shares))
        return sum(sizes.values())

    assert kept((0.2, 0.4, 0.6, 0.8)) < 4 * clean.numel() * clean.element_size()


def test_steps_of_several_latents_are_means_without_the_padding():
    """1.5 joins two latents; three of them make two steps, the first of a single one."""
    family = next(family for family in FAMILIES if family.name == "cogvideox-1.5")
    backbone, clean = backbone_for(family.transformer(0)), latents_of(family, size=(3, 8, 12))
    level = noise_levels(backbone, (0.5,), scheduler_of(family))[0]
    noise = level_noise(level, clean.shape[1:], 0)
    predicted = backbone.predict(level.noisy(clean, noise), timestep=level.timestep)
    assert predicted.shape == clean.shape
    squares = (predicted - level.target(clean, noise)).square().mean(dim=(2, 3, 4))
    expected = torch.stack([squares[:, 0], squares[:, 1:].mean(1)], dim=1)
    torch.testing.assert_close(denoising_errors(backbone, clean, [level])[:, 0], expected)


def test_levels_of_the_same_share_of_noise():
    """By hand: a flow has alpha = 1 - sigma; of a table, the nearest sigma / (alpha + sigma)."""
    flow = backbone_for(FAMILIES[-1].transformer(0))
    assert noise_levels(flow, (0.25,)) == (NoiseLevel(250.0, 0.75, 0.25, "flow_prediction"),)
    unipc = UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    assert noise_levels(flow, (0.25,), unipc) == noise_levels(flow, (0.25,))
    cogvideox = backbone_for(FAMILIES[0].transformer(0))
    for kind in (CogVideoXDDIMScheduler, CogVideoXDPMScheduler):
        scheduler = kind(**COGVIDEOX)
        (level,) = noise_levels(cogvideox, (0.4,), scheduler)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        assert level.alpha**2 == pytest.approx(float(scheduler.alphas_cumprod[int(level.timestep)]))
        assert level.sigma / (level.alpha + level.sigma) == pytest.approx(0.4, abs=2e-3)
        assert level.prediction == "v_prediction"
        assert level.timestep == int(level.timestep)


def test_predictions_of_the_three_kinds():
    """By hand, clean 3 and noise 2 at alpha 0.6, sigma 0.8: x = 1.8 + 1.6."""
    clean, noise = torch.full((1, 1), 3.0), torch.full((1,), 2.0)
    targets = {"epsilon": 2.0, "v_prediction": 0.6 * 2 - 0.8 * 3, "flow_prediction": -1.0}
    for prediction, target in targets.items():
        level = NoiseLevel(1.0, 0.6, 0.8, prediction)
        assert level.noisy(clean, noise).item() == pytest.approx(3.4)
        assert level.target(clean, noise).item() == pytest.approx(target)
    with pytest.raises(ValueError, match=r"expected a prediction of epsilon, .* got 'sample'"):
        NoiseLevel(1.0, 0.6, 0.8, "sample")


def test_what_cannot_be_denoised_is_refused(wan):
    flow, cogvideox = (backbone_for(f.transformer(0)) for f in (wan, FAMILIES[0]))
    with pytest.raises(ValueError, match=r"between 0 and 1.*got \[0.5, 500\]"):
        noise_levels(flow, (0.5, 500))
    with pytest.raises(ValueError, match=r"at least one noise level .* got \[\]"):
        noise_levels(flow, ())
    with pytest.raises(ValueError, match="depends on the scheduler: give `scheduler`"):
        noise_levels(cogvideox, (0.5,))
    with pytest.raises(ValueError, match="is trained by flow matching, and CogVideoXDDIM"):
        noise_levels(flow, (0.5,), CogVideoXDDIMScheduler(**COGVIDEOX))
    with pytest.raises(ValueError, match="is not trained by flow matching"):
        noise_levels(cogvideox, (0.5,), FlowMatchEulerDiscreteScheduler())
    with pytest.raises(ValueError, match="levels of DDPMScheduler are not known"):
        noise_levels(cogvideox, (0.5,), DDPMScheduler())
    with pytest.raises(ValueError, match="got one with use_flow_sigmas=False"):
        noise_levels(flow, (0.5,), UniPCMultistepScheduler())
    short = backbone_for(wan.transformer(0), depth=3)
    with pytest.raises(ValueError, match="only the first 3 blocks of the WanTransformer3DModel"):
        denoising_errors(short, latents_of(wan), noise_levels(short, (0.5,)))
    with pytest.raises(ValueError, match="takes latents"):
        denoising_errors(flow, latents_of(FAMILIES[0])[:, :, :2], noise_levels(flow, (0.5,)))
