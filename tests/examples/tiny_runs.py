"""Alignment runs of a tiny pipeline in float64, and the gradients of their updates."""

import importlib
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from gtsvj_reward.alignment import AlignmentRun, Policy, PromptStatistics, Sampler
from gtsvj_reward.alignment.processes import mean_metrics
from tests.alignment.tiny import TEXTS, moved, tiny_pipeline

SETTINGS = {
    "num_frames": 9, "height": 32, "width": 48, "guidance_scale": 3.0, "num_inference_steps": 3,
    "iterations": 1, "prompts_per_iteration": 2, "clips_per_prompt": 6, "evaluation_clips": 4,
    "samples": 0, "device": "cpu", "max_grad_norm": 1e9,
}  # fmt: skip


def brightness(latents, **_given):
    """A reward: the mean of the last channel, but for padding."""
    return latents.float()[:, :, -1].flatten(1).mean(1)


def tiny_run(kind, folder, **changes):
    """Settings of a kind, and a run whose policy has moved away from its reference."""
    arguments = kind(output_dir=str(folder), **{**SETTINGS, **changes})
    pipe = tiny_pipeline(dtype=torch.float64)
    policy = Policy(pipe, arguments.size, guidance=arguments.guidance_scale, rank=2)
    for parameter in policy.parameters().values():
        parameter.data = parameter.data.double()
    sampler = Sampler(arguments, moved(policy, 0.3), TEXTS, Accelerator(cpu=True))
    return arguments, AlignmentRun(sampler, brightness, eval_metrics={})


def recorded_gradients(run):
    """A list that each update's gradient joins, as one vector, just before its step."""
    found = []
    run.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten() for p in run.parameters.values()]))
    )
    return found


def gradients_of_all_scripts(folder):
    """Gradients of some updates of every script, by name, in batches that divide nothing."""
    found = {}
    for name, kind, changes in (
        ("ddpo", "DDPOArguments", {"updates_per_epoch": 3, "kl_weight": 0.1, "clip_range": 0.5}),
        ("dpo", "DPOArguments", {"min_margin": 0.0}),
        ("reward_gradients", "RewardGradientArguments", {"drift_weight": 1.0}),
    ):
        script = importlib.import_module(name)
        args, run = tiny_run(
            getattr(script, kind), folder / name, batch_size=4, learning_rate=1e-6, **changes
        )
        recorded = recorded_gradients(run)
        if name == "ddpo":
            more = script.iterate(run, args, PromptStatistics(), 0)
        elif name == "reward_gradients":
            more = script.iterate(run, args, 0)
        else:
            more = script.learn(run, args, some_pairs(run, 5), range(1000), (0, 0))
        found[name] = torch.stack(recorded)
        for metric, value in mean_metrics(run.accelerator, more).items():
            found[f"{name}/{metric}"] = torch.tensor(value)
    return found


def some_pairs(run, count):
    """Prompts and clips of noise, better and worse."""
    generator = torch.Generator().manual_seed(3)
    shape = (count, *run.policy.latent_shape)
    chosen, rejected = (torch.randn(shape, generator=generator) for _ in range(2))
    return [TEXTS[i % 2] for i in range(count)], chosen, rejected


def save_gradients(words):
    """Those of all scripts in a folder, in each of several processes."""
    out = Path(words[0])
    made = gradients_of_all_scripts(out)
    if Accelerator().is_main_process:
        save_file(made, out / "gradients.safetensors")
