"""What only a CUDA device can show: the same scores and gradients there, trainers, pipelines.

Skipped without one. `make test PYTEST_ARGS="-m gpu"` runs these alone.
"""

import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from gtsvj_reward import GTSVJReward
from gtsvj_reward.perturbations.operations import PERTURBATIONS
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.sampling import best_of_n
from gtsvj_reward.toy.pipeline import CALL, load_pipeline, sample
from tests.backbones.families import FAMILIES
from tests.backbones.test_families import judge_of, latents_of
from tests.examples.scripts import SMALL
from tests.training.stages import train_aspects, train_preference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FPS = 8.0
ON_GPU = {"use_cpu": False}


@pytest.fixture(autouse=True)
def full_float32():
    """Float32 products in float32, as on the CPU that is compared with."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="module")
def latents():
    """Clips of the toy world (clip, time, channel, height, width), on the CPU."""
    return sample(load_pipeline(), ["two red squares bouncing"] * 6, range(6), steps=8)


@pytest.fixture(scope="module")
def on_cpu():
    return GTSVJReward.from_pretrained("gtsvj-toy-lora")


def on_gpu(**changes):
    return GTSVJReward.from_pretrained("gtsvj-toy-lora", device="cuda", **changes)


@pytest.mark.parametrize("family", FAMILIES, ids=[f.name for f in FAMILIES])
def test_every_family_says_there_what_it_says_on_the_cpu(family):
    judge, given = judge_of(family), latents_of(family)
    results = []
    for device in ("cpu", "cuda"):
        clip = given.to(device).requires_grad_()
        scores = judge.to(device)(clip).scores
        (grad,) = torch.autograd.grad(scores.sum(), clip)
        results.append((scores.detach().cpu(), grad.cpu()))
    torch.testing.assert_close(*results, rtol=2e-3, atol=2e-4)


def test_clips_may_be_on_either_device(on_cpu, latents):
    reward = on_gpu()
    expected = on_cpu(latents, fps=FPS)
    for given in (latents, latents.cuda(), list(latents), list(latents.cuda())):
        scores = reward(given, fps=FPS)
        assert scores.device.type == "cuda"
        torch.testing.assert_close(scores.cpu(), expected, rtol=1e-4, atol=1e-4)


def test_gradients_arrive_where_the_latents_are(on_cpu, latents):
    grads = []
    for reward, device in ((on_cpu, "cpu"), (on_gpu(), "cuda"), (on_gpu(), "cpu")):
        clip = latents.clone().to(device).requires_grad_()
        reward(clip, fps=FPS).sum().backward()
        assert clip.grad.device.type == device
        grads.append(clip.grad.cpu())
    scale = grads[0].std()
    for grad in grads[1:]:
        torch.testing.assert_close(grad / scale, grads[0] / scale, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_move_scores_little(on_cpu, latents, dtype):
    scores = on_gpu(dtype=dtype)(latents.cuda().to(dtype), fps=FPS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.cpu(), on_cpu(latents, fps=FPS), rtol=0, atol=0.15)


def test_autocast_leaves_scores_in_float32(on_cpu, latents):
    with torch.autocast("cuda", torch.bfloat16):
        scores = on_gpu()(latents.cuda(), fps=FPS)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.cpu(), on_cpu(latents, fps=FPS), rtol=0, atol=0.15)


def test_an_offloaded_judge_scores_there_and_leaves(on_cpu, latents):
    reward = GTSVJReward.from_pretrained("gtsvj-toy-lora", offload_to="cuda")
    scores = reward(latents, fps=FPS)
    torch.testing.assert_close(scores.cpu(), on_cpu(latents, fps=FPS), rtol=1e-4, atol=1e-4)
    assert {p.device.type for p in reward.judge.parameters()} == {"cpu"}


def test_shared_weights_follow_the_pipeline_there(on_cpu, latents):
    pipe = load_pipeline()
    reward = GTSVJReward.from_pretrained("gtsvj-toy-lora", transformer=pipe.transformer)
    pipe.to("cuda")
    scores = reward(latents, fps=FPS)
    assert scores.device.type == "cuda"
    torch.testing.assert_close(scores.cpu(), on_cpu(latents, fps=FPS), rtol=1e-4, atol=1e-4)


def test_waiting_does_not_grow_with_the_clips(latents):
    """By the driver's own count of calls that make the host wait."""
    reward, clips = on_gpu(batch_size=16), latents.cuda()

    def waits(given):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught, torch.no_grad():
                warnings.simplefilter("always")
                reward(given, fps=FPS)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchron" in str(item.message) for item in caught)

    reward(clips, fps=FPS)
    assert waits(clips) == waits(clips[:2]) > 0


def test_compiled_judges_score_the_same(tmp_path, latents):
    """In a process of its own: type checks of the tests cannot be compiled."""
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    code = """
import sys, torch
from safetensors.torch import load_file
from gtsvj_reward import GTSVJReward
judge = GTSVJReward.from_pretrained("gtsvj-toy-lora", device="cuda").judge
latents = load_file(sys.argv[1])["latents"].cuda()
with torch.no_grad():
    expected, scores = judge(latents).scores, torch.compile(judge)(latents).scores
torch.testing.assert_close(scores, expected, rtol=1e-3, atol=1e-3)
"""
    run(sys.executable, "-c", code, tmp_path / "latents.safetensors")


def run(*command):
    """A command that must end well."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_perturbations_there_are_those_of_the_cpu(latents, name):
    perturb = PERTURBATIONS[name]
    expected = perturb(latents, generator=keyed_generator(3))
    found = perturb(latents.cuda(), generator=keyed_generator(3))
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", [{}, {"bf16": True}, {"fp16": True}], ids=str)
def test_both_labelled_stages_train_there(world, precision):
    settings = {**ON_GPU, **precision, "max_steps": 6}
    aspects = train_aspects(world, **settings)
    preference = train_preference(world, **settings)
    for trainer in (aspects, preference):
        losses = [e["loss"] for e in trainer.state.log_history if "loss" in e]
        assert len(losses) == 6
        assert all(math.isfinite(loss) for loss in losses)
        assert trainer.judge.head.norm.weight.device.type == "cuda"
        assert trainer.judge.head.norm.weight.dtype == torch.float32


def test_training_there_is_training_on_the_cpu(world):
    trained = [
        train_aspects(world, output_dir=str(world / name), max_steps=6, use_cpu=name == "cpu")
        for name in ("cpu", "cuda")
    ]
    first, second = (
        {n: p.detach().cpu() for n, p in t.judge.named_parameters() if p.requires_grad}
        for t in trained
    )
    torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-4)


def test_pipelines_there_pick_the_candidates_that_they_pick_on_the_cpu(on_cpu):
    found = []
    for device in ("cpu", "cuda"):
        pipe = load_pipeline().to(device)
        reward = on_cpu if device == "cpu" else on_gpu()
        call = {k: v for k, v in CALL.items() if k == "max_sequence_length"}
        found.append(
            best_of_n(
                pipe, reward, "two red squares bouncing", 4, batch_size=2, fps=FPS,
                num_frames=CALL["num_frames"], height=CALL["height"], width=CALL["width"],
                num_inference_steps=6, output_type="pt", call_arguments=call,
            )
        )  # fmt: skip
    torch.testing.assert_close(found[0].scores, found[1].scores, rtol=0, atol=2e-2)


@pytest.mark.parametrize("script", ["ddpo", "dpo", "reward_gradients"])
def test_alignment_scripts_run_there(script, tmp_path):
    folder = Path(__file__).resolve().parents[2] / "examples"
    sizes = [*SMALL[: SMALL.index("--device")], "--device", "cuda"]
    run(sys.executable, folder / f"{script}.py", "--output_dir", tmp_path / "run", *sizes)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert all(math.isfinite(row["reward"]) for row in rows if "reward" in row)
