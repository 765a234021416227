"""A judge of the full CogVideoX-2B shape: forward, and backward to the latents, on this machine.

    python -m benchmarks.full_size

The weights are random: the figures are about shapes, memory and gradients, not about scores. The
latents are small (3 x 16 x 24 by default); `overhead.py` counts operations at full size.
"""

import argparse
import resource
import time

import torch
from diffusers import CogVideoXTransformer3DModel

from gtsvj_reward import GTSVJReward, JudgeConfig, LatentSpace, VideoJudge
from gtsvj_reward.dtypes import dtype_of

SPACE = LatentSpace(id="cogvideox-2b", channels=16, scaling_factor=1.15258426)


def main() -> None:
    """Build, score, differentiate, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(3, 16, 24), help="T H W in latents")
    parser.add_argument("--depth", type=int, help="blocks in use; all 30 by default")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--checkpointing", action="store_true", help="recompute blocks")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_default_dtype(dtype_of(args.dtype))
    transformer = CogVideoXTransformer3DModel().eval()  # the class defaults are the 2B's shape
    torch.set_default_dtype(torch.float32)
    parameters = sum(parameter.numel() for parameter in transformer.parameters())
    config = JudgeConfig(base_model="random", latent_space=SPACE, depth=args.depth)
    judge = VideoJudge.from_transformer(transformer, config)
    judge.backbone.gradient_checkpointing = args.checkpointing
    own = sum(
        p.numel() for n, p in judge.named_parameters() if ".lora_" in n or n.startswith("head.")
    )
    print(f"base {parameters / 1e9:.2f} B parameters, {args.dtype}; adapter and head {own:,}")

    reward = GTSVJReward(judge)
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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"latents {frames}x{height}x{width}, {judge.config.depth} blocks: score {score.item():.4f}"
    )
    print(f"forward {forward:.1f} s, backward to the latents {backward:.1f} s, peak {peak:.1f} GiB")
    print(f"gradient: norm {gradient.norm().item():.3e}, all finite")


if __name__ == "__main__":
    main()
