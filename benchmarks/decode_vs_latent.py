"""Scoring latents against decoding them and scoring the frames: time and peak memory.

    python -m benchmarks.decode_vs_latent                   # the toy world's judge and VAE
    python -m benchmarks.decode_vs_latent --full            # shapes of CogVideoX-2B, small clip
    python -m benchmarks.decode_vs_latent --full --size 5 96 144 --threads 1

With `--full` the shapes are those of CogVideoX-2B and its VAE, with random bfloat16 weights, and
the clip is small, for a CPU. Frames reach the judge by `score_frames`, which encodes them again.
Each way runs in a process of its own, so that its peak is its own. Time is given in CPU seconds
too, which other work on the machine does not add to. Both are taken without gradients first, and
then with the gradient to the latents.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.assets.vae import load_vae

WAYS = ("latents", "decode")


def in_bfloat16(make: Any, **settings: Any) -> Any:
    """A frozen model with random weights."""
    torch.set_default_dtype(torch.bfloat16)
    model = make(**settings).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    return model


@dataclass(frozen=True)
class Models:
    """A judge and the VAE of its latent space, and what is to be scored."""

    reward: GTSVJReward
    vae: Any
    latents: Tensor


def full_models(args: argparse.Namespace) -> Models:
    """Random weights in the shapes of CogVideoX-2B, and one clip of noise."""
    transformer = in_bfloat16(CogVideoXTransformer3DModel, num_layers=args.depth)
    vae = in_bfloat16(AutoencoderKLCogVideoX)
    config = JudgeConfig(base_model="random", latent_space=LatentSpace.from_vae(vae))
    reward = GTSVJReward(VideoJudge.from_transformer(transformer, config), check_statistics=False)
    frames, height, width = args.size
    latents = torch.randn(1, (frames - 1) // 4 + 1, 16, height // 8, width // 8)
    return Models(reward, vae, latents)


def toy_models(args: argparse.Namespace) -> Models:
    """The bundled judge and VAE, and clips of 17 frames of 64x64."""
    reward = GTSVJReward.from_pretrained("gtsvj-toy-lora", check_statistics=False)
    return Models(reward, load_vae("gtsvj-toy-pipeline"), torch.randn(args.clips, 5, 16, 8, 8))


def measure(way: str, args: argparse.Namespace) -> dict[str, float]:
    """Seconds and GiB of one way, in this process.

    The models of both ways are loaded for either, so that what is loaded is not what differs.
    """
    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    models = full_models(args) if args.full else toy_models(args)
    reward, vae, space = models.reward, models.vae, models.reward.space
    latents, loaded = models.latents.requires_grad_(args.grad), peak()

    def scores(clips: torch.Tensor) -> torch.Tensor:
        if way == "decode":
            return reward.score_frames(space.decode(clips, vae), vae=vae, normalize=False)
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
    # The least of the rounds: other work on the machine only ever adds.
    return {"wall": min(walls), "busy": min(busies), "peak": peak(), "loaded": loaded}


def peak() -> float:
    """Largest resident size of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_own_process(way: str, grad: bool, arguments: list[str]) -> dict[str, float]:
    """`measure` in a new process."""
    command = [sys.executable, __file__, *arguments, "--way", way]
    done = subprocess.run(
        command + ["--grad"] * grad, check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(grad: bool, arguments: list[str]) -> None:
    """Both ways, and their ratios."""
    found = {way: in_own_process(way, grad, arguments) for way in WAYS}
    print("forward and gradient to the latents" if grad else "forward")
    for way, numbers in found.items():
        print(
            f"  {way:<8} {numbers['busy']:7.2f} CPU s {numbers['wall']:7.2f} s, peak "
            f"{numbers['peak']:5.2f} GiB, {numbers['peak'] - numbers['loaded']:5.2f} above loaded"
        )
    ratios = {key: found["decode"][key] / found["latents"][key] for key in ("busy", "wall", "peak")}
    print(
        f"  decode / latents: {ratios['busy']:.1f} in CPU time, {ratios['wall']:.1f} in wall time, "
        f"{ratios['peak']:.2f} in peak memory",
        flush=True,
    )


def main() -> None:
    """Forward and gradient; or, asked for one way, that one as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="shapes of CogVideoX-2B")
    parser.add_argument("--clips", type=int, default=4, help="of the toy world")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts")
    parser.add_argument("--size", type=int, nargs=3, default=(9, 128, 192), help="frames H W")
    parser.add_argument("--depth", type=int, default=30, help="blocks of the transformer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help="this one alone, as JSON")
    parser.add_argument("--grad", action="store_true", help="with --way: differentiate too")
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args.way, args)))
        return
    for grad in (False, True):
        compare(grad, sys.argv[1:])


if __name__ == "__main__":
    main()
