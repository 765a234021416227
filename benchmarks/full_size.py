"""Models of the full CogVideoX-2B shape on this machine: time and peak memory.

    python -m benchmarks.full_size judge
    python -m benchmarks.full_size vae --frames 9

`judge`: forward, and backward to the latents, which are small (3 x 16 x 24 by default). `vae`:
encoding 480x720 video in chunks of 8 frames (the first of 9) and tiles of 240x360 pixels, one after
the other, so that a longer clip adds its own frames and latents to the peak, and one chunk's cache,
but no activations. The weights are random: the figures are about time, memory and gradients.
"""

import argparse
import resource
import time

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel

from benchmarks.counting import frozen_model
from benchmarks.full_models import judge_of
from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.dtypes import dtype_of


def peak() -> float:
    """Largest resident size of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def judge(args: argparse.Namespace) -> None:
    """Build, score, differentiate, report."""
    torch.manual_seed(0)
    # The class defaults are the 2B's shape.
    transformer = frozen_model(CogVideoXTransformer3DModel, dtype_of(args.dtype), "cpu")
    parameters = sum(parameter.numel() for parameter in transformer.parameters())
    model = judge_of(transformer, depth=args.depth)
    model.backbone.gradient_checkpointing = args.checkpointing
    own = sum(
        p.numel() for n, p in model.named_parameters() if ".lora_" in n or n.startswith("head.")
    )
    print(f"base {parameters / 1e9:.2f} B parameters, {args.dtype}; adapter and head {own:,}")

    reward = GTSVJReward(model)
    frames, height, width = args.size
    latents = torch.randn(1, frames, 16, height, width, requires_grad=True)
    began = time.perf_counter()
    score = reward(latents, normalize=False)
    forward = time.perf_counter() - began
    score.sum().backward()
    backward = time.perf_counter() - began - forward
    gradient = latents.grad
    if gradient is None or not gradient.isfinite().all() or not gradient.abs().max() > 0:
        raise SystemExit("the gradient did not reach the latents")
    print(
        f"latents {frames}x{height}x{width}, {model.config.depth} blocks: score {score.item():.4f}"
    )
    print(f"forward {forward:.1f} s, backward {backward:.1f} s, peak {peak():.1f} GiB")
    print(f"gradient: norm {gradient.norm().item():.3e}, all finite")


def vae(args: argparse.Namespace) -> None:
    """Encode, and decode if asked for."""
    model = frozen_model(AutoencoderKLCogVideoX, dtype_of(args.dtype), "cpu")
    space = LatentSpace.from_vae(model)
    frames = torch.rand(1, args.frames, 3, args.height, args.width)
    before, began = peak(), time.perf_counter()
    latents = space.encode(frames, model)
    print(
        f"{args.frames}x{args.height}x{args.width} in {args.dtype}: latents {tuple(latents.shape)}"
    )
    print(f"encode {time.perf_counter() - began:.0f} s, peak {peak():.1f} GiB (idle {before:.1f})")
    if args.decode:
        began = time.perf_counter()
        space.decode(latents, model)
        print(f"decode {time.perf_counter() - began:.0f} s, peak {peak():.1f} GiB")


def main() -> None:
    """Measure one of the models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    models = parser.add_subparsers(required=True)
    one = models.add_parser("judge", help="forward, and backward to the latents")
    one.add_argument("--size", type=int, nargs=3, default=(3, 16, 24), help="T H W in latents")
    one.add_argument("--depth", type=int, help="blocks in use; all 30 by default")
    one.add_argument("--checkpointing", action="store_true", help="recompute blocks")
    one.set_defaults(run=judge)
    other = models.add_parser("vae", help="encode video in tiles")
    other.add_argument("--frames", type=int, default=9, help="4f + 1; 49 takes many minutes")
    other.add_argument("--height", type=int, default=480)
    other.add_argument("--width", type=int, default=720)
    other.add_argument("--decode", action="store_true", help="decode as well")
    other.set_defaults(run=vae)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
