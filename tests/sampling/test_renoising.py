"""Clips noised part of the way and denoised in few steps, against formulas worked by hand."""

import math

import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from gtsvj_reward.sampling import ClipSize, latent_space, renoised
from gtsvj_reward.sampling.pipelines import check_steps
from gtsvj_reward.sampling.renoising import PARTIAL, beginning_at
from gtsvj_reward.toy import captions
from gtsvj_reward.toy.pipeline import load_pipeline, sample
from gtsvj_reward.toy.world import FRAMES, SIZE as FRAME
from tests.pipelines import frozen, hunyuan_video, ltx, mochi
from tests.sampling.tiny import (
    assert_same_clip,
    cogvideox,
    cogvideox_scheduler,
    stochastic_flow,
    wan,
)

SIZE = ClipSize(9, 32, 48)


def unipc(**changes):
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return UniPCMultistepScheduler(**{**flow, **changes})


def listening(pipe):
    """The pipeline with weights so large that prompts matter."""
    for name, parameter in pipe.transformer.named_parameters():
        if "text_embedder" in name or "attn2" in name:
            parameter.data.mul_(4)
    return pipe


PIPES = {
    "2b": lambda: cogvideox("2b", text=True),
    "5b, dpm": lambda: cogvideox(
        "5b", scheduler=cogvideox_scheduler(CogVideoXDPMScheduler), text=True
    ),
    "1.5": lambda: cogvideox("1.5", text=True),
    "wan": lambda: listening(wan(text=True)),
    "wan, unipc": lambda: listening(wan(unipc(), text=True)),
}
FLOWS = ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler")
SCHEDULERS = {
    "ddim": cogvideox_scheduler,
    "ddim, other spacing": lambda: cogvideox_scheduler(timestep_spacing="linspace"),
    "dpm": lambda: cogvideox_scheduler(CogVideoXDPMScheduler),
    "flow": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": unipc,
    "inverted": lambda: FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
}


@pytest.fixture(params=PIPES)
def pipe(request):
    """Each kind of pipeline in turn, with words."""
    return PIPES[request.param]()


@pytest.fixture(params=SCHEDULERS)
def owner(request):
    """What holds each kind of scheduler in turn, as a pipeline does."""
    scheduler = SCHEDULERS[request.param]()
    if type(scheduler).__name__ in FLOWS:
        return wan(scheduler)
    return cogvideox(scheduler=scheduler)


def real(count=2):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, 4, 4, 6, generator=generator)


def seeded(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def renoise(pipe, clips, *, strength, steps=1, seeds=(0, 1), prompts=("a dog", "runs"), **changes):
    return renoised(
        pipe,
        clips,
        prompts[: len(clips)],
        strength=strength,
        steps=steps,
        generators=seeded(*seeds),
        **{"size": SIZE, "guidance_scale": 2.0, **changes},
    )


def by_hand(pipe, clips, strength, prompts, seeds):
    """x̂₀ of one step at t = 1000 strength, guided with weight 2."""
    time = -(-clips.shape[1] // 2) * 2 if pipe.transformer.config.get("patch_size_t") else 3
    clips = torch.cat([clips[:, :1]] * (time - 3) + [clips], dim=1)
    noise = torch.cat([torch.randn(1, *clips.shape[1:], generator=g) for g in seeded(*seeds)])
    flow = type(pipe).__name__ == "WanPipeline"
    if flow:
        alpha, sigma, timestep = 1 - strength, strength, 1000 * strength
    else:
        # 400 timesteps are numbered 0 to 399.
        timestep = round(1000 * strength) - 1
        product = pipe.scheduler.alphas_cumprod[timestep]
        alpha, sigma = product**0.5, (1 - product) ** 0.5
    noisy = alpha * clips + sigma * noise
    length = {} if flow else {"max_sequence_length": 6}
    own, null = pipe.encode_prompt(list(prompts), None, True, **length, device="cpu")
    if flow:
        own, null = (
            pipe.encode_prompt(list(texts), None, False, max_sequence_length=512, device="cpu")[0]
            for texts in (prompts, [""] * len(prompts))
        )

    def predicted(words):
        return pipe.transformer(
            hidden_states=noisy.transpose(1, 2) if flow else noisy,
            encoder_hidden_states=words,
            timestep=torch.full((len(clips),), timestep, dtype=torch.float32 if flow else None),
            **positions(pipe, flow, time),
            return_dict=False,
        )[0]

    output = predicted(null) + 2 * (predicted(own) - predicted(null))
    output = output.transpose(1, 2) if flow else output
    clean = noisy - sigma * output if flow else alpha * noisy - sigma * output
    return clean[:, time - 3 :]


def positions(pipe, flow, time):
    if flow or not pipe.transformer.config.use_rotary_positional_embeddings:
        return {}
    rotary = pipe._prepare_rotary_positional_embeddings(32, 48, time, torch.device("cpu"))
    return {"image_rotary_emb": rotary}


@torch.no_grad()
def test_one_step_gives_the_predicted_clean_latents(pipe):
    clips = real()
    found = renoise(pipe, clips, strength=0.4)
    expected = by_hand(pipe, clips, 0.4, ("a dog", "runs"), (0, 1))
    assert_same_clip(found, expected)
    assert (found - clips).abs().max() > 0.1
    unguided = renoise(pipe, clips, strength=0.4, guidance_scale=1.0)
    assert (unguided - found).abs().max() > 0.01
    other = renoise(pipe, clips, strength=0.4, prompts=("runs", "runs"))
    assert (other[0] - found[0]).abs().max() > 0.01, "the caption changes nothing"
    assert_same_clip(other[1], found[1])


def levels_of(name, strength, steps):
    """Shares of noise at which one step and the next begin, worked by hand, and 0 at the end."""
    if name == "mochi":  # 1, then 0.975, of the two parts of its schedule
        return [strength, 0.975 * strength, 0.0]
    if name == "ltx":  # 1 and 1/2, shifted by mu = 0.5 + (72 - 256) * 0.65 / 3840
        mu = 0.5 - 184 * 0.65 / 3840
        half = math.exp(mu) / (math.exp(mu) + 1)
        return [strength, half * strength, 0.0]
    return [strength, 0.5 * strength, 0.0]


@torch.no_grad()
@pytest.mark.parametrize("make", [hunyuan_video, ltx, mochi])
def test_other_flows_are_noised_and_denoised_by_their_own_levels(make):
    pipe, seen, name = frozen(make), [], make.__name__
    if name == "ltx":
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    space = latent_space(pipe)
    clips = torch.randn(2, 3, space.channels, 4, 6, generator=torch.Generator().manual_seed(3))
    side = space.spatial_compression
    size = ClipSize(space.video_frames(3), 4 * side, 6 * side)
    given = {"strength": 0.4, "steps": 2, "guidance_scale": 1.0, "size": size}
    hook = pipe.transformer.register_forward_hook(
        lambda module, given, kwargs, output: seen.append((kwargs["hidden_states"], output[0])),
        with_kwargs=True,
    )
    found = renoise(pipe, clips, **given)
    hook.remove()
    (noisy, first), (later, second) = (
        [x.unflatten(1, (3, 4, 6)).movedim(-1, 2) if name == "ltx" else x.transpose(1, 2)
         for x in pair]
        for pair in seen
    )  # fmt: skip
    begin, middle, _ = levels_of(name, 0.4, 2)
    noise = torch.cat([torch.randn(1, *clips.shape[1:], generator=g) for g in seeded(0, 1)])
    torch.testing.assert_close(noisy, 0.6 * clips + 0.4 * noise)
    # Mochi predicts what is clean minus noise, the others noise minus what is clean.
    sign = 1 if name == "mochi" else -1
    assert_same_clip(later, noisy + sign * (begin - middle) * first)
    assert_same_clip(found, later + sign * middle * second)
    assert (found - clips).abs().max() > 0.1
    other = renoise(pipe, clips, **given, prompts=("runs", "runs"))
    assert (other[0] - found[0]).abs().max() > 1e-4, "the caption changes nothing"


def test_strength_0_gives_the_clips_back(pipe):
    clips = real()
    assert torch.equal(renoise(pipe, clips, strength=0.0), clips)


def test_greater_strengths_lead_farther_away():
    """With a trained generator, on clips of its own and on average."""
    pipe, prompts = load_pipeline(), captions()[:4]
    size, seeds = ClipSize(FRAMES, FRAME, FRAME), range(4)
    clips = sample(pipe, prompts, seeds, steps=10)
    for steps in (1, 2):
        far = [
            renoised(
                pipe,
                clips,
                prompts,
                strength=strength,
                steps=steps,
                generators=seeded(*seeds),
                size=size,
            )
            .sub(clips)
            .square()
            .mean()
            for strength in (0.01, 0.2, 0.6, 0.9)
        ]
        assert far[0] < 0.01 * clips.var(), "hardly noised, but far away"
        assert sorted(far) == far


@pytest.mark.parametrize("steps", [2, 3])
def test_a_clip_depends_on_its_own_generator_alone(pipe, steps):
    clips = real()
    both = renoise(pipe, clips, strength=0.6, steps=steps)
    alone = renoise(pipe, clips[1:], strength=0.6, steps=steps, seeds=(1,), prompts=("runs",))
    assert_same_clip(alone[0], both[1])
    other = renoise(pipe, clips[1:], strength=0.6, steps=steps, seeds=(2,), prompts=("runs",))
    assert (other[0] - both[1]).abs().max() > 0.01


@pytest.mark.parametrize("strength", [0.2, 0.437, 0.95])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_model_that_knows_the_clip_ends_at_it(owner, strength, steps):
    """At every step the output is the true one for x₀ = clip: no scheduler may then stray."""
    clips, noise = real(1), torch.randn(1, 3, 4, 4, 6, generator=seeded(5)[0])
    with beginning_at(owner, strength, steps, positions=72) as scheduler:
        assert owner.scheduler is scheduler
        assert len(scheduler.timesteps) == steps
        flow, inverted = type(scheduler).__name__ in FLOWS, scheduler.config.get("invert_sigmas")
        share = 1 - strength if inverted else strength
        assert float(scheduler.timesteps[0]) == pytest.approx(1000 * share, abs=3)
        old, latents = None, None
        for index, timestep in enumerate(scheduler.timesteps):
            if flow:
                sigma = scheduler.sigmas[index]
                sigma = 1 - sigma if inverted else sigma
                alpha = 1 - sigma
            else:
                alpha = scheduler.alphas_cumprod[timestep] ** 0.5
                sigma = (1 - alpha**2) ** 0.5
            latents = alpha * clips + sigma * noise if latents is None else latents
            implied = (latents - alpha * clips) / sigma
            output = implied - clips if flow else alpha * implied - sigma * clips
            output = -output if inverted else output
            if isinstance(scheduler, CogVideoXDPMScheduler):
                back = scheduler.timesteps[index - 1] if index else None
                latents, old = scheduler.step(output, old, timestep, back, latents)
            else:
                latents = scheduler.step(output, timestep, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, clips, rtol=1e-3, atol=1e-3)


def test_schedules_are_parts_of_the_whole():
    # CogVideoX: 400 timesteps, 0 to 399, in equal parts; 399 of them in three parts of 133.
    expected = {1: [399], 2: [399, 199], 3: [398, 265, 132]}
    for steps, timesteps in expected.items():
        with beginning_at(cogvideox(), 0.4, steps, positions=72) as scheduler:
            assert scheduler.timesteps.tolist() == timesteps
    # Flow with shift 3, in two steps: 1 and 3/1002 (its last), times 0.4.
    with beginning_at(wan(), 0.4, 2, positions=72) as scheduler:
        torch.testing.assert_close(scheduler.sigmas[[0, 2]], torch.tensor([0.4, 0.0]))
        torch.testing.assert_close(scheduler.timesteps, 1000 * scheduler.sigmas[:-1])
    # One that ends at 0.1, times 0.4; in a single step it begins as all others do.
    terminal = wan(FlowMatchEulerDiscreteScheduler(shift_terminal=0.1))
    for sigmas in ([0.4, 0.0], [0.4, 0.04, 0.0]):
        with beginning_at(terminal, 0.4, len(sigmas) - 1, positions=72) as scheduler:
            torch.testing.assert_close(scheduler.sigmas, torch.tensor(sigmas))
    with pytest.raises(ValueError, match="a WanPipeline takes at least 2 steps, got 1"):
        check_steps(terminal, 1)


def test_every_scheduler_with_known_levels_has_a_part():
    from gtsvj_reward.sampling.clean import LEVELS

    assert PARTIAL.keys() == LEVELS.keys()
    assert CogVideoXDDIMScheduler in PARTIAL


def test_the_pipeline_is_left_as_it_was(pipe, monkeypatch):
    before, config = pipe.scheduler, dict(pipe.scheduler.config)
    renoise(pipe, real(), strength=0.5)
    assert pipe.scheduler is before
    assert dict(pipe.scheduler.config) == config

    def broken(*args, **keywords):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipe.transformer, "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        renoise(pipe, real(), strength=0.5)
    assert pipe.scheduler is before


@pytest.mark.parametrize("name", ["2b", "wan"])
def test_low_precision_pipelines(name):
    pipe = PIPES[name]()
    exact = renoise(pipe, real(), strength=0.4, steps=2)
    rounded = renoise(pipe.to(torch.bfloat16), real(), strength=0.4, steps=2)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).square().mean() < 0.01 * exact.var()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cogvideox(scheduler=DDIMScheduler()), "known schedulers: CogVideoXDDIMScheduler"),
        (lambda: wan(stochastic_flow()), "stochastic_sampling=True draws noise"),
        (lambda: wan(unipc(use_flow_sigmas=False)), "without use_flow_sigmas=True"),
        (type("AllegroPipeline", (), {}), "cannot sample with a AllegroPipeline; known pipe"),
    ],
)
def test_other_pipelines_and_schedulers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        renoise(make(), real(), strength=0.4)


@pytest.mark.parametrize(
    ("strength", "steps", "message"),
    [
        (1.1, 1, "a strength in 0..1 and at least 1 step, got 1.1 and 1"),
        (-0.1, 1, "got -0.1"),
        (0.4, 0, "got 0.4 and 0"),
        (0.002, 3, "strength 0.002 is 2 timesteps, too few for 3 steps"),
    ],
)
def test_strengths_out_of_range_are_refused(strength, steps, message):
    with (
        pytest.raises(ValueError, match=message),
        beginning_at(cogvideox(), strength, steps, positions=72),
    ):
        pass
