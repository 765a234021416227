"""Peak memory of encoding (and decoding) 480x720 video with the full-size CogVideoX VAE, in tiles.

    python -m benchmarks.encode_memory --frames 9

The weights are random: memory does not depend on them. Frames are encoded in chunks of 8 (the first
of 9) and tiles of 240x360 pixels, one after the other, so that a longer clip adds its own frames
and latents to the peak, and one chunk's cache, but no activations.
"""

import argparse
import resource
import time

import torch
from diffusers import AutoencoderKLCogVideoX

from gtsvj_reward import LatentSpace
from gtsvj_reward.dtypes import dtype_of


def peak() -> float:
    """Largest resident size of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Encode, and decode if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=9, help="4f + 1; 49 takes many minutes")
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=720)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--decode", action="store_true", help="decode as well")
    args = parser.parse_args()

    torch.set_default_dtype(dtype_of(args.dtype))
    vae = AutoencoderKLCogVideoX().eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    space = LatentSpace.from_vae(vae)
    frames = torch.rand(1, args.frames, 3, args.height, args.width)
    before, began = peak(), time.perf_counter()
    latents = space.encode(frames, vae)
    print(
        f"{args.frames}x{args.height}x{args.width} in {args.dtype}: latents {tuple(latents.shape)}"
    )
    print(f"encode {time.perf_counter() - began:.0f} s, peak {peak():.1f} GiB (idle {before:.1f})")
    if args.decode:
        began = time.perf_counter()
        space.decode(latents, vae)
        print(f"decode {time.perf_counter() - began:.0f} s, peak {peak():.1f} GiB")


if __name__ == "__main__":
    main()
