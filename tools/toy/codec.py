"""Train the codec of the toy world, an `AutoencoderKLCogVideoX` of 1.4 M parameters.

    python -m tools.toy.codec --run runs/toy/codec --steps 2300

It starts from the weights of the demo's codec, which has seen real clips, and learns the world's
flat colours and sharp edges. A third of its clips are damaged (gain, blur, noise), so that damage
survives encoding. A number of steps ends it, not the clock, so that a slower machine gives a codec
of the same quality. Interrupt it at will: it resumes from `--run`.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.world import SIZE, bodies_mask, draw_scene, render
from tools.demo.train_codec import CONFIG, LOSS_WEIGHT_KL, load_state, save_state

TOY_CONFIG = {**CONFIG, "sample_height": SIZE, "sample_width": SIZE}
TRAIN_KEY, HELD_OUT_KEY = 101, 102
BODY_WEIGHT = 4.0
"""How much more an error on a body counts than one on the background."""


def damage(clip: Tensor, generator: torch.Generator) -> Tensor:
    """A clip (3, time, height, width) in 0..1 with one plain fault, or mostly none."""
    kind = torch.rand((), generator=generator).item()
    amount = torch.rand((), generator=generator).item()
    if kind < 0.10:
        gain = 1 + 0.4 * (torch.rand(clip.shape[1], generator=generator) - 0.5)
        return (clip * gain[None, :, None, None]).clamp(0, 1)
    if kind < 0.20:
        noise = torch.randn(clip.shape, generator=generator)
        return (clip + 0.12 * amount * noise).clamp(0, 1)
    if kind < 0.30:
        factor = 2 if amount < 0.5 else 3
        small = F.avg_pool2d(clip, factor, ceil_mode=True)
        return F.interpolate(small, size=clip.shape[2:], mode="bilinear")
    return clip


def batch_at(seed: int, step: int, size: int, edge: int, frames: int) -> tuple[Tensor, Tensor]:
    """Clips (batch, 3, time, edge, edge) in -1..1, cut around a body, and their weights."""
    clips, weights = [], []
    for index in range(size):
        generator = keyed_generator(seed, step, index)
        scene = draw_scene(TRAIN_KEY, seed, step, index, frames=frames)
        clip = damage(render(scene).permute(3, 0, 1, 2).float() / 255, generator)
        centre = scene.bodies[0].track.mean(0).round().long() - edge // 2
        left, top = centre.clamp(0, SIZE - edge).tolist()
        weight = 1 + BODY_WEIGHT * bodies_mask(scene, 2.0)
        clips.append(clip[:, :, top : top + edge, left : left + edge])
        weights.append(weight[None, :, top : top + edge, left : left + edge])
    return 2 * torch.stack(clips) - 1, torch.stack(weights)


def loss_of(
    vae: AutoencoderKLCogVideoX, batch: Tensor, weights: Tensor, generator: torch.Generator
) -> Tensor:
    """Reconstruction (absolute and squared error), more of it on bodies, plus a small KL term."""
    posterior = vae.encode(batch).latent_dist
    error = vae.decode(posterior.sample(generator)).sample.float() - batch
    loss = (weights * (error.abs() + error.square())).sum() / (3 * weights.sum())
    return loss + LOSS_WEIGHT_KL * posterior.kl().sum() / batch.numel()


def psnr(vae: AutoencoderKLCogVideoX, clips: int) -> float:
    """Mean reconstruction PSNR in decibels of unseen clean clips of full length."""
    values = []
    for index in range(clips):
        frames = render(draw_scene(HELD_OUT_KEY, index)).permute(3, 0, 1, 2)[None].float() / 255
        with torch.no_grad():
            again = vae.decode(vae.encode(2 * frames - 1).latent_dist.mode()).sample
        mse = ((again + 1) / 2 - frames).square().mean().item()
        values.append(-10 * math.log10(mse))
    return sum(values) / len(values)


def start(args: argparse.Namespace) -> AutoencoderKLCogVideoX:
    """A codec with the demo codec's weights."""
    vae = AutoencoderKLCogVideoX(**TOY_CONFIG, scaling_factor=1.0)
    start_from = Path(args.start_from)
    if start_from.suffix == ".safetensors":
        vae.load_state_dict(load_file(start_from))
    else:
        vae.load_state_dict(load_vae(args.start_from).state_dict())
    return vae


def train(args: argparse.Namespace) -> None:
    """Run for a number of steps; the learning rate and the size of the crops follow them."""
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    vae = start(args)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0)
    state = load_state(args.run, "vae", vae, optimizer)
    tensors = {"vae": vae.state_dict()}
    already, done = state["seconds"], int(state["step"])
    began = time.monotonic()
    for step in range(done, args.steps):
        decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = min(1.0, (step + 1) / 100) * args.lr * decay
        edge = args.edge if step < 0.7 * args.steps else SIZE
        batch, weights = batch_at(args.seed, step, args.batch, edge, args.frames)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = loss_of(vae, batch, weights, keyed_generator(args.seed, step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            value, spent = psnr(vae, 4), already + time.monotonic() - began
            print(
                f"step {step + 1} {spent:.0f}s loss {loss:.4f} held out {value:.2f} dB", flush=True
            )
            save_state(args.run, tensors, optimizer, {"step": step + 1, "seconds": spent})
    print(json.dumps({"steps": args.steps, "held out PSNR": psnr(vae, 32)}))


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder for progress")
    parser.add_argument("--start_from", default="gtsvj-demo-codec", help="weights to start from")
    parser.add_argument("--steps", type=int, default=2300, help="steps in all runs together")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=9, help="frames of a clip")
    parser.add_argument(
        "--edge", type=int, default=48, help="size of the crops in the first 70%% of the steps"
    )
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
