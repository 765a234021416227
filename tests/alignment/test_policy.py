import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from peft import LoraConfig

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.alignment import ClipSize, Policy, decoded, rollout
from tests.alignment.tiny import SIZE, TEXTS, moved, tiny_pipeline

KEYS = [(0, 1), (0, 2)]


def pipeline_latents(pipe, noise, *, steps=3, guidance=3.0, size=SIZE):
    return pipe(
        prompt=TEXTS,
        latents=noise,
        num_frames=size.num_frames,
        height=size.height,
        width=size.width,
        num_inference_steps=steps,
        guidance_scale=guidance,
        max_sequence_length=6,
        output_type="latent",
    ).frames


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_fresh_policy_samples_what_the_pipeline_samples(kind, guidance):
    pipe = tiny_pipeline(kind)
    policy = Policy(tiny_pipeline(kind), SIZE, guidance=guidance, rank=2)
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=0.0)
    pipe.scheduler = policy.scheduler
    expected = pipeline_latents(pipe, made.path[0], guidance=guidance)
    assert made.clean.shape[1:] == policy.latent_shape
    torch.testing.assert_close(made.clean, expected, atol=0, rtol=0)


def test_the_text_encoder_sees_each_text_once(policy):
    seen = []
    policy.pipe.text_encoder.register_forward_hook(lambda _m, args, _out: seen.append(len(args[0])))
    first = policy.encode(TEXTS)
    again = policy.encode([*TEXTS[::-1], *TEXTS])
    assert seen == [2, 2]  # the prompts, and as many empty ones
    assert torch.equal(again.text.embeds, first.text.embeds[[1, 0, 0, 1]])
    assert torch.equal(again.null.embeds, first.null.embeds)
    assert not torch.equal(first.text.embeds[0], first.text.embeds[1])


def test_the_reference_is_the_model_before_training_and_the_adapter_comes_back(policy):
    prompts = policy.encode(TEXTS)
    noise = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    before = policy.predict(noise, 500, prompts)
    moved(policy)
    after = policy.predict(noise, 500, prompts)
    assert (after - before).abs().max() > 0.01
    with policy.reference():
        reference = policy.predict(noise, 500, prompts)
    assert torch.equal(reference, before)
    assert not reference.requires_grad
    with pytest.raises(RuntimeError, match="on purpose"), policy.reference():
        raise RuntimeError("on purpose")
    assert torch.equal(policy.predict(noise, 500, prompts), after)
    assert all(p.requires_grad for p in policy.parameters().values())


def test_only_the_adapter_gets_gradients_and_all_of_it_does(policy):
    noise = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    moved(policy).predict(noise, 500, policy.encode(TEXTS)).square().mean().backward()
    with_gradient = {n for n, p in policy.transformer.named_parameters() if p.grad is not None}
    assert with_gradient == set(policy.parameters())
    # q, k, v and out of two blocks, each with A and B
    assert len(with_gradient) == 2 * 4 * 2
    assert all(p.grad.abs().max() > 0 for p in policy.parameters().values())


def test_checkpointing_changes_no_gradient():
    grads = []
    for checkpointing in (False, True):
        policy = Policy(tiny_pipeline(), SIZE, rank=2, gradient_checkpointing=checkpointing)
        noise = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
        moved(policy).predict(noise, 500, policy.encode(TEXTS)).square().mean().backward()
        grads.append([p.grad for p in policy.parameters().values()])
    for plain, recomputed in zip(*grads, strict=True):
        assert torch.equal(plain, recomputed)


def test_each_clip_may_have_its_own_timestep(policy):
    moved(policy)
    noise = torch.randn(2, *policy.latent_shape, generator=torch.Generator().manual_seed(0))
    prompts = policy.encode(TEXTS)
    both = policy.predict(noise, torch.tensor([100, 900]), prompts)
    for index, timestep in enumerate((100, 900)):
        alone = policy.predict(noise, timestep, prompts)[index]
        torch.testing.assert_close(both[index], alone)
    assert not torch.allclose(both[0], policy.predict(noise, 900, prompts)[0], atol=1e-3)


def test_diffusers_loads_what_it_saves(policy, tmp_path):
    moved(policy).save(tmp_path / "lora")
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    made = rollout(policy, policy.encode(TEXTS), KEYS, steps=3, eta=0.0)
    pipe = tiny_pipeline()
    pipe.scheduler = policy.scheduler
    plain = pipeline_latents(pipe, made.path[0])
    pipe.load_lora_weights(tmp_path / "lora")
    torch.testing.assert_close(pipeline_latents(pipe, made.path[0]), made.clean)
    assert (plain - made.clean).abs().max() > 0.01


def test_an_adapter_is_put_back_bitwise_or_refused(policy):
    kept = {name: value.clone() for name, value in moved(policy).adapter().items()}
    other = Policy(tiny_pipeline(), SIZE, rank=2, seed=9)
    other.load_adapter(kept)
    for name, value in other.adapter().items():
        assert torch.equal(value, kept[name])
    del kept[next(iter(kept))]
    with pytest.raises(ValueError, match="missing"):
        other.load_adapter(kept)


def test_the_seed_decides_the_adapter_and_no_random_state_moves():
    state = torch.get_rng_state()
    first, same, other = (
        Policy(tiny_pipeline(), SIZE, rank=2, seed=s).adapter() for s in (1, 1, 2)
    )
    name = next(name for name in first if "lora_A" in name)
    assert torch.equal(first[name], same[name])
    assert not torch.equal(first[name], other[name])
    del state  # `tiny_pipeline` seeds; only `Policy` is looked at
    pipe, before = tiny_pipeline(), torch.get_rng_state()
    Policy(pipe, SIZE, rank=2)
    assert torch.equal(before, torch.get_rng_state())


def test_a_judge_on_the_same_weights_is_blind_to_the_adapter(policy, tmp_path):
    space = LatentSpace.from_pipeline(policy.pipe)
    config = JudgeConfig(base_model="tiny", latent_space=space)
    alone = GTSVJReward(VideoJudge.from_transformer(tiny_pipeline().transformer, config))
    alone.save_pretrained(tmp_path)
    shared = GTSVJReward.from_pretrained(tmp_path, transformer=policy.transformer)
    clips = torch.randn(2, 3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = alone(clips, normalize=False)
    moved(policy, 1.0)
    found = shared(clips, normalize=False)
    assert torch.equal(found, expected)


def test_clips_are_decoded_as_the_pipeline_does(policy):
    clip = torch.randn(3, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    frames = decoded(policy, clip)
    assert frames.shape == (9, 32, 48, 3)
    pixels = policy.pipe.decode_latents(clip[None])[0].permute(1, 2, 3, 0)
    expected = (255 * (pixels / 2 + 0.5)).round().clamp(0, 255).byte()
    assert (frames.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (ClipSize(9, 30, 48), "16 divides, got 30x48"),
        (ClipSize(8, 32, 48), "4f \\+ 1, got 8"),
    ],
)
def test_sizes_that_would_be_rounded_are_refused(size, words):
    with pytest.raises(ValueError, match=words):
        Policy(tiny_pipeline(), size)


def test_other_pipelines_and_settings_are_refused(policy):
    pipe = tiny_pipeline()
    parts = {name: getattr(pipe, name) for name in ("tokenizer", "text_encoder", "vae")}
    with pytest.raises(ValueError, match="CogVideoXImageToVideoPipeline"):
        Policy(
            CogVideoXImageToVideoPipeline(
                **parts, transformer=pipe.transformer, scheduler=pipe.scheduler
            ),
            SIZE,
        )
    with pytest.raises(ValueError, match="has adapters already"):
        Policy(policy.pipe, SIZE)
    with pytest.raises(ValueError, match="guidance"):
        Policy(tiny_pipeline(), SIZE, guidance=0.5)
    with pytest.raises(ValueError, match="rank"):
        Policy(tiny_pipeline(), SIZE, rank=0)
    pipe.transformer.add_adapter(LoraConfig(target_modules=["to_q"]))
    with pytest.raises(ValueError, match="has adapters already"):
        Policy(pipe, SIZE)
