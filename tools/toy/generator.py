"""Train the toy world's generator: a text encoder and a video transformer for `CogVideoXPipeline`.

    python -m tools.toy.generator --codec DIR --run DIR --steps 9700

A `CogVideoXTransformer3DModel` and a `T5EncoderModel` learn together to denoise latents of the
world's clips (v-prediction, uniform timesteps, an average of the weights over training). One
caption in ten is empty, and one in ten is replaced by zeros, which is what a judge is given.
A number of steps ends it, not the clock, so that a slower machine gives a generator of the same
quality. Interrupt it at will: it resumes from `--run`.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import encode_frames
from gtsvj_reward.toy.words import TEXT_LENGTH, make_tokenizer
from gtsvj_reward.toy.world import FRAMES, SIZE, draw_scene, render
from tools.demo.train_codec import load_state, save_state

TRAIN_KEY, HELD_OUT_KEY = 1, 2
HELD_OUT = 128

TEXT_CONFIG = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
CONFIG = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "time_embed_dim": 64,
    "text_embed_dim": TEXT_CONFIG["d_model"],
    "num_layers": 6,
    "sample_width": SIZE // 8,
    "sample_height": SIZE // 8,
    "sample_frames": FRAMES,
    "max_text_seq_length": TEXT_LENGTH,
    "spatial_interpolation_scale": 1.0,
}
SCHEDULE = {
    "prediction_type": "v_prediction",
    "snr_shift_scale": 1.0,
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


class Generator(nn.Module):
    """Text encoder and transformer, trained together."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.text_encoder = T5EncoderModel(T5Config(vocab_size=len(tokenizer), **TEXT_CONFIG))
        self.transformer = CogVideoXTransformer3DModel(**CONFIG)

    def forward(self, noisy: Tensor, words: Tensor, blank: Tensor, timesteps: Tensor) -> Tensor:
        """Predicted velocity; `blank` marks the samples whose text is zeros."""
        text = self.text_encoder(words).last_hidden_state
        text = torch.where(blank[:, None, None], 0.0, text)
        velocity: Tensor = self.transformer(noisy, text, timesteps).sample
        return velocity


def encode_split(
    args: argparse.Namespace, name: str, key: int, count: int
) -> tuple[Tensor, list[str]]:
    """Latents (clip, time, channel, height, width) and captions, in files of 500 clips."""
    parts = []
    captions = [draw_scene(key, index).caption for index in range(count)]
    for first in range(0, count, 500):
        path = args.run / f"{name}-{first:05d}.safetensors"
        if not path.exists():
            vae = load_vae(str(args.codec))
            space = LatentSpace.from_vae(vae)
            rows = []
            for start in range(first, min(first + 500, count), 20):
                stop = min(start + 20, first + 500, count)
                clips = [render(draw_scene(key, index)) for index in range(start, stop)]
                rows.append(encode_frames(torch.stack(clips), vae, space, bfloat16=args.bf16))
            save_file({"latents": torch.cat(rows)}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            print(f"encoded {name} {stop} of {count}", flush=True)
        parts.append(load_file(path)["latents"])
    return torch.cat(parts), captions


class Example:
    """The batch of a step: clean latents, words, noise, timesteps, keyed by (seed, step)."""

    def __init__(
        self, latents: Tensor, words: Tensor, empty: Tensor, batch: int, *key: int
    ) -> None:
        generator = keyed_generator(*key)
        index = torch.randint(len(latents), (batch,), generator=generator)
        share = torch.rand(batch, generator=generator)
        self.clean = latents[index]
        self.words = torch.where((share < 0.1)[:, None], empty, words[index])
        self.blank = share > 0.9
        # One timestep in each of `batch` equal parts of the schedule.
        place = torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
        self.timesteps = (place * 1000 / batch).long().clamp(0, 999)
        self.noise = torch.randn(self.clean.shape, generator=generator)

    def loss(self, model: Generator, scheduler: CogVideoXDDIMScheduler) -> Tensor:
        """Mean squared error of the predicted velocity."""
        noisy = scheduler.add_noise(self.clean, self.noise, self.timesteps)
        target = scheduler.get_velocity(self.clean, self.noise, self.timesteps)
        return F.mse_loss(model(noisy, self.words, self.blank, self.timesteps).float(), target)


def validation(
    model: nn.Module, average: dict[str, Tensor], losses: Sequence[Callable[[], Tensor]]
) -> float:
    """Mean of losses on held-out clips, with the averaged weights."""
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(average)
    with torch.no_grad():
        value = sum(loss().item() for loss in losses) / len(losses)
    model.load_state_dict(own)
    return value


def train_steps(
    args: argparse.Namespace,
    model: nn.Module,
    optimizer: Any,
    set_rate: Callable[[float], None],
    loss_at: Callable[[int], Tensor],
    held_out: Sequence[Callable[[], Tensor]],
    *,
    warmup: int,
    every: int,
) -> dict[str, Tensor]:
    """Go on with the steps of a run, whose progress is stored; the average of the weights.

    Args:
        args: `run`, a folder, and `steps`.
        model: its initial weights are replaced by those of the run.
        optimizer: of the model.
        set_rate: sets the learning rate, as a share of the highest.
        loss_at: of a step.
        held_out: losses on held-out clips.
        warmup: steps until the highest learning rate; the rest follows a cosine.
        every: steps between two reports.
    """
    state = load_state(args.run, "model", model, optimizer)
    average = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if state["step"]:
        average = {n: t.clone() for n, t in load_file(args.run / "average.safetensors").items()}
    tensors = {"model": model.state_dict(), "average": average}
    done, already, began = int(state["step"]), state["seconds"], time.monotonic()
    for step in range(done, args.steps):
        decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        set_rate(min(1.0, (step + 1) / warmup) * decay)
        loss = loss_at(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(0.999, (step + 2) / (step + 11))
        for name, tensor in model.state_dict().items():
            average[name].lerp_(tensor, 1 - keep)
        if (step + 1) % every == 0 or step + 1 == args.steps:
            value = validation(model, average, held_out)
            spent = already + time.monotonic() - began
            print(f"step {step + 1} {spent:.0f}s loss {loss:.4f} held out {value:.4f}", flush=True)
            state = {"step": step + 1, "seconds": spent, "held_out_loss": value}
            save_state(args.run, tensors, optimizer, state)
    print(json.dumps(state))
    return average


def train(args: argparse.Namespace) -> None:
    """Train for a number of steps; the learning rate follows them."""
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    splits = [
        encode_split(args, "held-out", HELD_OUT_KEY, HELD_OUT),
        encode_split(args, "train", TRAIN_KEY, args.clips),
    ]
    words = [
        tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
        for _, captions in splits
    ]
    empty = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    held_out = [Example(splits[0][0], words[0], empty, 32, -1, index) for index in range(8)]
    torch.manual_seed(args.seed)
    model, scheduler = Generator(tokenizer), CogVideoXDDIMScheduler(**SCHEDULE)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01
    )

    def set_rate(share: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = args.lr * share

    def loss_at(step: int) -> Tensor:
        example = Example(splits[1][0], words[1], empty, args.batch, args.seed, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            return example.loss(model, scheduler)

    losses = [partial(example.loss, model, scheduler) for example in held_out]
    train_steps(args, model, optimizer, set_rate, loss_at, losses, warmup=300, every=500)


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", type=Path, required=True, help="folder of the toy codec")
    parser.add_argument("--run", type=Path, required=True, help="folder for progress")
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=9700, help="steps in all runs together")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
