"""Turn trained parts into the toy world's bundled models: float16, cards, hashes, figures.

    python -m tools.toy.export codec --run runs/toy/codec --out DIR
    python -m tools.toy.export pipeline --codec DIR --run DIR --out DIR

The codec is given a scaling factor with which latents of clean clips have standard deviation 1.
"""

import argparse
import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
)
from safetensors.torch import load_file

from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.toy.words import make_tokenizer
from gtsvj_reward.toy.world import draw_scene, render

SCALE_KEY = 103


def export_codec(run: Path, out: Path) -> None:
    """The codec with the values that float16 keeps, and its scaling factor."""
    from tools.toy.codec import TOY_CONFIG, psnr

    vae = AutoencoderKLCogVideoX(**TOY_CONFIG, scaling_factor=1.0)
    vae.load_state_dict(load_file(run / "vae.safetensors"))
    vae = vae.eval().requires_grad_(False).half().float()
    space = LatentSpace.from_vae(vae, id="export")
    clips = torch.stack([render(draw_scene(SCALE_KEY, index)) for index in range(32)])
    with torch.no_grad():
        latents = space.encode(clips.permute(0, 1, 4, 2, 3).float() / 255, vae)
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    print(f"PSNR {psnr(vae, 32):.2f} dB, scaling factor {vae.config.scaling_factor}")
    vae.half().save_pretrained(out)


def export_pipeline(codec: Path, run: Path, out: Path) -> None:
    """A pipeline folder of the averaged weights, in float16."""
    from tools.toy.generator import SCHEDULE, Generator

    tokenizer = make_tokenizer()
    model = Generator(tokenizer)
    model.load_state_dict(load_file(run / "average.safetensors"))
    pipe = CogVideoXPipeline(
        tokenizer,
        model.text_encoder.half(),
        AutoencoderKLCogVideoX.from_pretrained(codec, torch_dtype=torch.float16),
        model.transformer.half(),
        CogVideoXDDIMScheduler(**SCHEDULE),
    )
    pipe.save_pretrained(out)
    name_tokenizer_class(out)


def name_tokenizer_class(out: Path) -> None:
    """Write the tokenizer's class under the name that all versions of transformers have."""
    for path, keys in (
        (out / "model_index.json", ("tokenizer",)),
        (out / "tokenizer" / "tokenizer_config.json", ("tokenizer_class",)),
    ):
        values = json.loads(path.read_text())
        for key in keys:
            name = "PreTrainedTokenizerFast"
            values[key] = ["transformers", name] if isinstance(values[key], list) else name
        path.write_text(json.dumps(values, indent=2) + "\n")


def main() -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("codec", "pipeline"))
    parser.add_argument("--codec", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.part == "codec":
        export_codec(args.run, args.out)
    else:
        export_pipeline(args.codec, args.run, args.out)


if __name__ == "__main__":
    main()
