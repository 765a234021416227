"""Train the small video diffusion transformer that ships as `gtsvj-demo-base`.

    python -m tools.demo.train_base --videos DIR --photos DIR --run runs/demo-base --out DIR

A `CogVideoXTransformer3DModel` learns to denoise latents of the demo codec (v-prediction, the
noise schedule of CogVideoX), on the same training shots and moving photos as the codec. It is the
base that the demo's judge adapts. Interrupt it at will: it resumes from `--run`.
"""

import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.demo.clips import FRAMES, SIZE
from gtsvj_reward.latents import LatentSpace
from tools.demo.train_codec import TRAINING_SHOTS, crop_shot, load_photos, load_shots, move_photo

CODEC = "gtsvj-demo-codec"
CONFIG = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "time_embed_dim": 128,
    "text_embed_dim": 16,
    "num_layers": 6,
    "sample_width": SIZE // 8,
    "sample_height": SIZE // 8,
    "sample_frames": FRAMES,
    "max_text_seq_length": 4,
    "spatial_interpolation_scale": 1.0,
}

CARD = """# gtsvj-demo-base

A small `CogVideoXTransformer3DModel` for demonstrations and tests on a CPU: {parameters:,}
parameters, 6 blocks, 128 wide, no text (all prompts are zeros).

| | |
|---|---|
| task | denoise latents of `gtsvj-demo-codec`, v-prediction, CogVideoX's noise schedule |
| data | {clips} clips of {frames} frames of {size}x{size}: {shots}; moving photos |
| steps | {steps} of 16 clips, AdamW, on a CPU |
| seed | 0 |
| validation | v-loss {before:.3f} at the start, {after:.3f} at the end, clips of the same shots |

Its features suit these few scenes better than random weights do. It does not generate video worth
watching: it was trained on a handful of scenes. Remake it with
`make base`.

Licence: Apache-2.0. The training clips and photos belong to their owners and are not included.
"""


def encode_clips(args: argparse.Namespace, count: int) -> Tensor:
    """Latents (clip, time, channel, height, width); two thirds from shots, one from photos."""
    cache = args.run / "latents.safetensors"
    if cache.exists():
        return load_file(cache)["latents"]
    shots = [shot for shot in load_shots(args.videos) if shot.shape[1] >= FRAMES]
    photos, vae = load_photos(args.photos), load_vae(CODEC)
    space, rows = LatentSpace.from_vae(vae), []
    for index in range(count):
        rng = np.random.default_rng((args.seed, index))
        if index % 3:
            clip = crop_shot(shots[rng.integers(len(shots))], FRAMES, SIZE, rng)
        else:
            clip = move_photo(photos[rng.integers(len(photos))], FRAMES, SIZE, rng)
        frames = (clip / 255).clamp(0, 1).permute(1, 0, 2, 3)[None]
        with torch.no_grad():
            rows.append(space.encode(frames, vae)[0])
        if index % 50 == 0:
            print(f"encoded {index} of {count}", flush=True)
    args.run.mkdir(parents=True, exist_ok=True)
    save_file({"latents": torch.stack(rows)}, cache)
    return torch.stack(rows)


def v_loss(
    model: CogVideoXTransformer3DModel,
    scheduler: CogVideoXDDIMScheduler,
    clean: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Mean squared error of the predicted velocity at uniform timesteps."""
    timesteps = torch.randint(1000, (len(clean),), generator=generator)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = scheduler.get_velocity(clean, noise, timesteps)
    text = torch.zeros(len(clean), CONFIG["max_text_seq_length"], CONFIG["text_embed_dim"])
    return F.mse_loss(model(noisy, text, timesteps).sample, target)


def validation(
    model: CogVideoXTransformer3DModel, scheduler: CogVideoXDDIMScheduler, clips: Tensor
) -> float:
    """Loss on held-out clips with the same noise every time."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        losses = [v_loss(model, scheduler, clips, generator).item() for _ in range(4)]
    return sum(losses) / len(losses)


def save_run(run: Path, model: torch.nn.Module, state: dict[str, float]) -> None:
    """Weights and progress; optimizer moments are started afresh after an interruption."""
    save_file(model.state_dict(), run / "model.part")
    (run / "model.part").replace(run / "model.safetensors")
    (run / "state.part").write_text(json.dumps(state))
    (run / "state.part").replace(run / "state.json")


def train(args: argparse.Namespace) -> None:
    """Train until the time budget is spent, then write the asset."""
    torch.set_num_threads(args.threads)
    clips = encode_clips(args, args.clips)
    held_out, clips = clips[:32], clips[32:]
    torch.manual_seed(args.seed)
    model = CogVideoXTransformer3DModel(**CONFIG)
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction")
    state = {"step": 0, "seconds": 0.0, "before": validation(model.eval(), scheduler, held_out)}
    if (args.run / "state.json").exists():
        state = json.loads((args.run / "state.json").read_text())
        model.load_state_dict(load_file(args.run / "model.safetensors"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.01)
    step, already, began = int(state["step"]), state["seconds"], time.monotonic()
    while (spent := already + time.monotonic() - began) < 60 * args.minutes:
        generator = torch.Generator().manual_seed(1000 * args.seed + step)
        progress = spent / (60 * args.minutes)
        for group in optimizer.param_groups:
            group["lr"] = (
                args.lr * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * progress))
            )
        chosen = torch.randint(len(clips), (args.batch,), generator=generator)
        batch = clips[chosen]
        flip = torch.rand(args.batch, generator=generator) < 0.5
        batch = torch.where(flip[:, None, None, None, None], batch.flip(4), batch)
        loss = v_loss(model.train(), scheduler, batch, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 200 == 0:
            value = validation(model.eval(), scheduler, held_out)
            print(
                f"step {step} {spent:.0f}s loss {loss.item():.4f} held out {value:.4f}", flush=True
            )
            save_run(args.run, model, {**state, "step": step, "seconds": spent})
    state = {**state, "step": step, "seconds": 60 * args.minutes}
    save_run(args.run, model, state)
    export(args, model.eval(), state, validation(model.eval(), scheduler, held_out), len(clips))


def export(
    args: argparse.Namespace,
    model: CogVideoXTransformer3DModel,
    state: dict[str, float],
    after: float,
    clips: int,
) -> None:
    """Write the transformer in float16 with its card and hashes."""
    model.half().save_pretrained(args.out)
    card = CARD.format(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        clips=clips,
        frames=FRAMES,
        size=SIZE,
        shots="; ".join(
            f"{', '.join(f'{a}-{b - 1}' for a, b in ranges)} of {name}"
            for name, ranges in TRAINING_SHOTS.items()
        ),
        steps=int(state["step"]),
        before=state["before"],
        after=after,
    )
    (args.out / "README.md").write_text(card)
    names = ("config.json", "diffusion_pytorch_model.safetensors")
    hashes = {n: hashlib.sha256((args.out / n).read_bytes()).hexdigest() for n in names}
    (args.out / "sha256.json").write_text(json.dumps(hashes, indent=2) + "\n")
    print(
        f"v-loss on held-out clips {state['before']:.4f} -> {after:.4f} after {state['step']} steps"
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True, help="folder for progress")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--clips", type=int, default=480)
    parser.add_argument(
        "--minutes", type=float, default=20, help="time budget in all runs together"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
