"""Models of the full CogVideoX-2B shape on this machine: time and peak memory.

    python -m benchmarks.full_size judge
    python -m benchmarks.full_size vae --frames 9
    python -m benchmarks.full_size decode --size 5 96 144
    python -m benchmarks.full_size decode --toy

`judge`: forward, and backward to the latents, which are small (3 x 16 x 24 by default). `vae`:
encoding 480x720 video in chunks of 8 frames (the first of 9) and tiles of 240x360 pixels, one after
the other, so that a longer clip adds its own frames and latents to the peak, and one chunk's cache,
but no activations. The weights are random: the figures are about time, memory and gradients.

`decode`: scoring latents against decoding them and scoring the frames, which `score_frames` encodes
again; without gradients first, then with the gradient to the latents. Each way runs in a process of
its own, so that its peak is its own. Time is given in CPU seconds too, which other work on the
machine does not add to. `--toy` takes the bundled judge and VAE, and clips of 17 frames of 64x64.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor

from benchmarks.counting import frozen_model
from benchmarks.full_models import judge_of
from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.dtypes import dtype_of

WAYS = ("latents", "decode")


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


def decode(args: argparse.Namespace) -> None:
    """Both ways, each in its own process, and their ratios; for one way, its numbers as JSON."""
    if args.way:
        print(json.dumps(one_way(args.way, args)))
        return
    for grad in (False, True):
        found = {}
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.full_size", *sys.argv[1:], "--way", way]
            done = subprocess.run(
                command + ["--grad"] * grad, check=True, stdout=subprocess.PIPE, text=True
            )
            found[way] = json.loads(done.stdout.splitlines()[-1])
        print("forward and gradient to the latents" if grad else "forward")
        for way, numbers in found.items():
            print(
                f"  {way:<8} {numbers['busy']:7.2f} CPU s {numbers['wall']:7.2f} s, peak "
                f"{numbers['peak']:5.2f} GiB, {numbers['peak'] - numbers['loaded']:5.2f} above "
                "loaded"
            )
        ratios = [found["decode"][key] / found["latents"][key] for key in ("busy", "wall", "peak")]
        print("  decode / latents: {:.1f} in CPU time, {:.1f} in wall time, {:.2f} in peak "
              "memory".format(*ratios), flush=True)  # fmt: skip


def one_way(way: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds and GiB of one way, in this process; the models of both are loaded for either."""
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    frames, height, width = args.size
    if args.toy:
        reward = GTSVJReward.from_pretrained("gtsvj-toy-lora", check_statistics=False)
        model, latents = load_vae("gtsvj-toy-pipeline"), torch.randn(4, 5, 16, 8, 8)
    else:
        dtype = dtype_of(args.dtype)
        transformer = frozen_model(CogVideoXTransformer3DModel, dtype, "cpu")
        reward = GTSVJReward(judge_of(transformer, depth=args.depth), check_statistics=False)
        model = frozen_model(AutoencoderKLCogVideoX, dtype, "cpu")
        latents = torch.randn(1, (frames - 1) // 4 + 1, 16, height // 8, width // 8)
    latents.requires_grad_(args.grad)
    loaded, space = peak(), reward.space

    def scores(clips: Tensor) -> Tensor:
        if way == "decode":
            return reward.score_frames(space.decode(clips, model), vae=model, normalize=False)
        return reward(clips, space=space, normalize=False)

    with torch.no_grad():
        scores(latents[:1])  # what is loaded at the first call is not what is measured
    walls, busies = [], []
    for _ in range(args.rounds):
        latents.grad = None
        wall, busy = time.perf_counter(), time.process_time()
        with torch.set_grad_enabled(args.grad):
            score = scores(latents)
            if args.grad:
                score.sum().backward()
        walls.append(time.perf_counter() - wall)
        busies.append(time.process_time() - busy)
    if args.grad and (latents.grad is None or not latents.grad.abs().max() > 0):
        raise SystemExit(f"no gradient reached the latents by way of {way}")
    # The minimum of the rounds: other work on the machine only adds time.
    return {"wall": min(walls), "busy": min(busies), "peak": peak(), "loaded": loaded}


def main() -> None:
    """Measure one of the models, or both ways to score."""
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
    both = models.add_parser("decode", help="latents against decoding and encoding again")
    both.add_argument("--toy", action="store_true", help="the toy world's judge and VAE")
    both.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    both.add_argument("--size", type=int, nargs=3, default=(9, 128, 192), help="frames H W")
    both.add_argument("--depth", type=int, help="blocks in use; all 30 by default")
    both.add_argument("--threads", type=int, default=2)
    both.add_argument("--way", choices=WAYS, help="this one alone, as JSON")
    both.add_argument("--grad", action="store_true", help="with --way: differentiate too")
    both.set_defaults(run=decode)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
