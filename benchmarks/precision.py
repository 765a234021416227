"""Difference of scores in bfloat16 and float32, on the bundled toy judges.

    python -m benchmarks.precision --clips 48
    python -m benchmarks.precision --clips 48 --device cuda

The clips are scenes of the toy world, most of them with faults, encoded by its VAE in float32.
Base weights and activations are cast; adapter, head and score are float32 in both. Errors are in
units of the standard deviation of the float32 scores over the clips.
"""

import argparse
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward import GTSVJReward, LatentSpace
from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.toy.corpus import SEEN, UNSEEN, encode_frames, random_specs

SCENES = 9077
"""Key of scenes that no bundled model was trained or measured on."""
DTYPES: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""Dtypes compared with float32 on the CPU; on another device float32 is one of them."""


def toy_latents(count: int) -> Float[Tensor, "clip time channel height width"]:
    """Latents of so many scenes, none to three faults in each."""
    vae = load_vae("gtsvj-toy-pipeline")
    specs = random_specs("precision", SCENES, count, (*SEEN, *UNSEEN))
    frames = torch.stack([spec.draw() for spec in specs])
    return encode_frames(frames, vae, LatentSpace.from_vae(vae))


def errors(latents: Tensor, name: str, dtype: torch.dtype, device: str = "cpu") -> dict[str, float]:
    """Difference of scores from float32 on the CPU, in units of the latter's standard deviation.

    Args:
        latents: clips.
        name: of the judge.
        dtype: of the base weights.
        device: where the rough scores are computed.
    """
    with torch.no_grad():
        exact = GTSVJReward.from_pretrained(name, dtype=torch.float32)(latents, fps=8.0).double()
        reward = GTSVJReward.from_pretrained(name, dtype=dtype, device=device)
        rough = reward(latents, fps=8.0).double().cpu()
    wrong = (rough - exact).abs() / exact.std()
    order = torch.combinations(torch.arange(len(exact)))
    swapped = (exact[order].diff(dim=1) * rough[order].diff(dim=1) < 0).double().mean()
    return {
        "mean": wrong.mean().item(),
        "largest": wrong.max().item(),
        "pairs in another order": swapped.item(),
    }


def main() -> None:
    """Every bundled judge in every dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    latents = toy_latents(args.clips)
    dtypes = {**({} if args.device == "cpu" else {"float32": torch.float32}), **DTYPES}
    print(f"{args.clips} clips; |error| / standard deviation of the float32 scores")
    for name in ("gtsvj-toy-lora", "gtsvj-toy-discriminator"):
        for label, dtype in dtypes.items():
            found = errors(latents, name, dtype, args.device)
            numbers = ", ".join(f"{key} {value:.4f}" for key, value in found.items())
            print(f"  {name:<24} {label:<9} {numbers}", flush=True)


if __name__ == "__main__":
    main()
