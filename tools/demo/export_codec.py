"""Turn a trained demo codec into the bundled asset: scale, float16, figures, card, hashes.

    python -m tools.demo.export_codec --run runs/demo-codec --videos DIR --out DIR

The scaling factor makes the latents of the training shots have standard deviation 1. Figures are
measured with the exported file, on frames that training did not read.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file
from torch import Tensor

from gtsvj_reward.demo.clips import FPS, FRAMES, SIZE, TRAINING, UNSEEN, Shot, crop, windows
from gtsvj_reward.latents import LatentSpace

CARD = """# gtsvj-demo-codec

A small `AutoencoderKLCogVideoX` for demonstrations and tests on a CPU. It has the geometry of
CogVideoX's VAE (8x in space, 4x in time, 16 channels) and nothing else in common with it: other
weights, {parameters:,} parameters, another latent space.

| | |
|---|---|
| trained on | frames {shots}; ten photos of scikit-image's wheel under a moving virtual camera |
| steps | {steps} of 4 crops of 9 frames, 32 to 64 pixels wide, on two CPU cores |
| seed | 0 |
| stored | float16, {megabytes:.1f} MB |
| scaling factor | {scaling:.6g}: latents of the training shots have standard deviation 1 |

Reconstruction of clips of {frames} frames of {size}x{size}, posterior mode, mean PSNR:

| footage | seen in training | clips | PSNR |
|---|---|---|---|
{rows}

It reconstructs motion and coarse shapes, but not fine texture, faces or text; its reconstructions
are visibly soft. Do not train a generator on it, and do not compare its scores
with those of another latent space.

Remake it with `make codec`. Training on several threads is not bitwise repeatable and stops by the
clock, so a remade codec has other weights and another latent space, of about the same quality.

Licence: Apache-2.0. The training clips and photos belong to their owners and are not included.
"""


def reconstruct(vae: AutoencoderKLCogVideoX, clips: list[Tensor]) -> list[float]:
    """PSNR of each clip in decibels."""
    space = LatentSpace.from_vae(vae, id="export")
    values = []
    for clip in clips:
        frames = clip.permute(0, 3, 1, 2)[None].float() / 255
        with torch.no_grad():
            again = space.decode(space.encode(frames, vae), vae)
        values.append(-10 * math.log10((again - frames).square().mean().item()))
    return values


def cut(videos: Path, shots: list[Shot], stride: int) -> dict[str, list[Tensor]]:
    """Clips of each video, from the middle of its width."""
    clips: dict[str, list[Tensor]] = {}
    for shot in shots:
        for start in windows(shot, stride):
            frames = crop(videos / shot.file, start, SIZE, 0.5)
            clips.setdefault(shot.file, []).append(frames)
    return clips


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="what train_codec.py wrote")
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()

    from tools.demo.train_codec import CONFIG, TRAINING_SHOTS

    vae = AutoencoderKLCogVideoX(**CONFIG, scaling_factor=1.0)
    vae.load_state_dict(load_file(args.run / "vae.safetensors"))
    vae = vae.eval().requires_grad_(False).half().float()  # the values that float16 keeps
    seen, unseen = cut(args.videos, TRAINING, 12), cut(args.videos, UNSEEN, FRAMES)
    space = LatentSpace.from_vae(vae, id="export")
    batch = torch.stack([clip for clips in seen.values() for clip in clips])
    std = torch.stack([
        space.encode(clip.permute(0, 3, 1, 2)[None].float() / 255, vae) for clip in batch
    ]).std()  # fmt: skip
    vae.register_to_config(scaling_factor=round(1 / std.item(), 4))
    vae.half().save_pretrained(args.out)
    exported = AutoencoderKLCogVideoX.from_pretrained(args.out, torch_dtype=torch.float32).eval()
    rows = [
        f"| {name} | {word} | {len(clips)} | {sum(values) / len(values):.1f} dB |"
        for word, group in (("yes", seen), ("no", unseen))
        for name, clips in group.items()
        for values in [reconstruct(exported, clips)]
    ]
    weights = args.out / "diffusion_pytorch_model.safetensors"
    card = CARD.format(
        parameters=sum(p.numel() for p in exported.parameters()),
        shots="; ".join(
            f"{', '.join(f'{a}-{b - 1}' for a, b in ranges)} of {name}"
            for name, ranges in TRAINING_SHOTS.items()
        ),
        steps=json.loads((args.run / "state.json").read_text())["step"],
        megabytes=weights.stat().st_size / 1e6,
        scaling=exported.config.scaling_factor,
        frames=FRAMES,
        size=SIZE,
        rows="\n".join(rows),
    )
    (args.out / "README.md").write_text(card)
    names = ("config.json", weights.name)
    hashes = {n: hashlib.sha256((args.out / n).read_bytes()).hexdigest() for n in names}
    (args.out / "sha256.json").write_text(json.dumps(hashes, indent=2) + "\n")
    print("\n".join(rows), f"at {FPS:g} fps, scaling factor {exported.config.scaling_factor}")


if __name__ == "__main__":
    main()
