"""A policy of every family of flow matching is its pipeline, and its steps are known."""

from functools import cache, partial

import pytest
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    LTXPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
)

from gtsvj_reward.alignment import (
    ClipSize,
    Policy,
    differentiable_sample,
    pair_errors,
    prediction_drift,
    rollout,
    schedule,
    step_taken,
)
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.losses import clipped_policy_loss, denoising_error
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.reward.texts import text_of
from tests.alignment.tiny import moved
from tests.backbones.family_hunyuan_video import tiny as tiny_hunyuan_video
from tests.backbones.family_wan import tiny_wan
from tests.latents.tiny import BY_NAME
from tests.pipelines import PIPELINES, SIZES, frozen

TEXTS = ["a dog runs", "red square"]
KEYS = [(0, 1), (0, 2)]
UNIPC = partial(
    UniPCMultistepScheduler, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
)
LTX_LEVELS = {"use_dynamic_shifting": True, "shift_terminal": 0.1, "base_shift": 0.95}


def wan_unipc():
    pipe = PIPELINES["wan"]()
    pipe.scheduler = UNIPC()
    return pipe


def wan_like(**changes):
    """The tiny Wan pipeline with other parts and settings."""
    wan = PIPELINES["wan"]()
    return WanPipeline(
        tokenizer=wan.tokenizer,
        text_encoder=wan.text_encoder,
        vae=wan.vae,
        scheduler=wan.scheduler,
        transformer=wan.transformer,
        **changes,
    )


def wan_5b():
    """Told one timestep per token, as the pipeline of 2.2-5B does."""
    return wan_like(expand_timesteps=True)


def ltx_dynamic():
    pipe = PIPELINES["ltx"]()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler(**LTX_LEVELS)
    return pipe


FLOWS = {
    **{name: PIPELINES[name] for name in ("hunyuan_video", "mochi", "wan")},
    "ltx": ltx_dynamic,
    "wan_unipc": wan_unipc,
}


def size_of(name):
    return ClipSize(**SIZES[name.split("_unipc")[0].split("_5b")[0]])


def make_policy(name, make=None, **changes):
    given = {"guidance": 3.0, "rank": 2, **changes}
    return Policy(frozen(make or FLOWS[name]), size_of(name), **given)


@cache
def known(name):
    """A policy that nobody changes, off its start."""
    return moved(make_policy(name))


def pipeline_latents(pipe, noise, policy, *, steps=3, guidance=3.0):
    """What the pipeline makes of this noise, in this package's order."""
    packed = isinstance(pipe, LTXPipeline)
    space, size = LatentSpace.from_pipeline(pipe), policy.size
    own = noise.movedim(2, -1).flatten(1, 3) if packed else space.from_btchw(noise)
    made = pipe(
        prompt=TEXTS,
        latents=own,
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
    ).frames
    return (
        space.unpack(made, size.num_frames, size.height, size.width)
        if packed
        else space.to_btchw(made)
    )


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", [*FLOWS, "wan_5b"])
def test_a_fresh_policy_samples_what_the_pipeline_samples(name, guidance):
    make = {**FLOWS, "wan_5b": wan_5b}[name]
    policy = make_policy(name, make, guidance=guidance)
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=0.0)
    assert made.clean.shape[1:] == policy.latent_shape
    assert made.log_probabilities == {}
    pipe = frozen(make)
    if name == "wan_unipc":
        pipe.scheduler = policy.scheduler  # its own takes several steps together
    expected = pipeline_latents(pipe, made.path[0], policy, guidance=guidance)
    torch.testing.assert_close(made.clean, expected, rtol=1e-4, atol=1e-4)
    assert (made.clean - made.path[0]).abs().max() > 0.1


@pytest.mark.parametrize("name", FLOWS)
def test_guidance_and_prompts_matter(name):
    policy = known(name)
    prompts = policy.encode(TEXTS)
    noise = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    timestep = schedule(policy, 3)[1]
    guided = policy.predict(noise, timestep, prompts)
    plain = policy.predict(noise, timestep, prompts, guided=False)
    assert ((guided - plain).abs().max() > 1e-3) == (name != "hunyuan_video")
    other = policy.predict(noise, timestep, policy.encode(TEXTS[::-1]))
    assert (guided - other).abs().max() > 1e-4


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("sde", ["ddim", "flow-grpo"])
def test_the_ratio_is_exactly_1_before_the_first_update_and_everything_learns(name, sde):
    policy = known(name)
    policy.family.sde = sde
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=0.7)
    assert set(made.log_probabilities) == {0, 1}
    for index, old in made.log_probabilities.items():
        now, kl = step_taken(policy, made, index)
        ratio = clipped_policy_loss(now, old, torch.ones(2), 1e-4).ratio
        assert torch.equal(ratio, torch.ones(2))
        assert kl.min() > 0
        grads = torch.autograd.grad((now + kl).sum(), list(policy.parameters().values()))
        assert all(grad.abs().max() > 0 for grad in grads)
    policy.family.sde = "ddim"


@pytest.mark.parametrize("name", FLOWS)
def test_errors_of_a_pair_are_those_of_velocities(name):
    """ε - x₀ at σ = t / 1000; Mochi, which counts the other way round, says x₀ - ε."""
    policy = known(name)
    chosen, rejected = torch.randn(
        2, 2, *policy.latent_shape, generator=torch.Generator().manual_seed(0)
    )
    prompts = policy.encode(TEXTS)
    found = pair_errors(policy, prompts, chosen, rejected, keys=KEYS, timesteps=[800, 300])
    draws = keyed_generator(*KEYS[0])
    timestep = [800, 300][int(torch.randint(2, (), generator=draws))]
    noise = torch.randn(policy.latent_shape, generator=draws)
    share, sign = (1 - timestep / 1000, -1) if name == "mochi" else (timestep / 1000, 1)
    for place, clip in enumerate((chosen[0], rejected[0])):
        noisy = (1 - share) * clip + share * noise
        output = policy.predict(noisy[None], timestep, policy.encode(TEXTS[:1]), guided=False)
        error = denoising_error(output, sign * (noise - clip)[None])
        torch.testing.assert_close(found[place][0], error[0], rtol=1e-3, atol=1e-5)
        assert abs(found[2 + place][0] - error[0]) > 1e-5  # the reference is another model
    assert prediction_drift(policy, chosen, prompts, KEYS).min() > 0


@pytest.mark.parametrize("name", [name for name in FLOWS if name != "wan_unipc"])
def test_diffusers_loads_what_it_saves(name, tmp_path):
    policy = known(name)
    policy.save(tmp_path / "lora")
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=2, eta=0.0)
    pipe = frozen(FLOWS[name])
    pipe.load_lora_weights(tmp_path / "lora")
    found = pipeline_latents(pipe, made.path[0], policy, steps=2)
    torch.testing.assert_close(found, made.clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FLOWS)
def test_rewards_read_prompts_as_the_pipeline_encodes_them(name):
    policy = known(name)
    found, expected = policy.text(TEXTS), text_of(policy.pipe, TEXTS)
    assert found.family == expected.family
    for one, other in ((found.embeds, expected.embeds), (found.pooled, expected.pooled)):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    assert (found.mask is None) == (expected.mask is None)


def test_the_differentiable_sample_of_a_flow_is_the_sample():
    policy = known("wan_unipc")
    prompts = policy.encode(TEXTS)
    plain = rollout(policy, prompts, KEYS, steps=3, eta=0.0)
    latents = differentiable_sample(policy, prompts, KEYS, steps=3, last=2)
    assert torch.equal(latents.detach(), plain.clean)
    grads = torch.autograd.grad(latents.square().sum(), list(policy.parameters().values()))
    assert all(grad.abs().max() > 0 for grad in grads)


def test_the_adapter_is_in_the_blocks_alone():
    names = known("hunyuan_video").parameters()
    assert {name.split(".")[0] for name in names} == {
        "transformer_blocks",
        "single_transformer_blocks",
    }


def test_the_shift_moves_the_levels():
    policy = make_policy("wan", flow_shift=5.0)
    schedule(policy, 3)
    # u = 0.5 and a little, since the scheduler's table ends just above 0: 5u / (1 + 4u)
    assert policy.scheduler.sigmas[1].item() == pytest.approx(5 / 6, abs=2e-3)


def two_experts():
    return wan_like(transformer_2=tiny_wan(layers=1), boundary_ratio=0.875)


def undistilled():
    pipe = PIPELINES["hunyuan_video"]()
    parts = {**pipe.components, "transformer": tiny_hunyuan_video("single")}
    return HunyuanVideoPipeline(**parts)


def test_what_a_policy_cannot_train_is_refused():
    with pytest.raises(ValueError, match=r"two experts \(boundary_ratio=0.875\)"):
        make_policy("wan", two_experts)
    with pytest.raises(ValueError, match="guidance_embeds=False"):
        make_policy("hunyuan_video", undistilled)
    with pytest.raises(ValueError, match="`text_length` is CogVideoX's"):
        make_policy("wan", text_length=6)
    with pytest.raises(ValueError, match="from the clip's size"):
        make_policy("ltx", flow_shift=3.0)
    with pytest.raises(ValueError, match="not trained by flow matching"):
        Policy(frozen(PIPELINES["cogvideox"]), ClipSize(**SIZES["cogvideox"]), sde="flow-grpo")
    policy = known("wan_unipc")
    with pytest.raises(ValueError, match="900 steps have only"):
        schedule(policy, 900)
    schedule(policy, 3)
    noise = torch.zeros(1, *policy.latent_shape)
    with pytest.raises(ValueError, match="timestep 1 is 0 times in the schedule"):
        policy.family.transition(noise, 1, noise, eta=0.0)


def test_the_vae_of_wan_22_has_sixteen_pixels_to_a_latent():
    def make():
        pipe = PIPELINES["wan"]()
        pipe.transformer = tiny_wan("2.2-5b", layers=1)
        pipe.vae = BY_NAME["wan-2.2-5b"].make()
        return pipe

    with pytest.raises(ValueError, match="that 32 divides, got 48x48"):
        Policy(frozen(make), ClipSize(9, 48, 48))
