"""Train the toy world's flow-matching generator: a video transformer for `WanPipeline`.

    python -m tools.toy.flow --run runs/toy/flow --out runs/toy/flow/pipeline

A `WanTransformer3DModel` learns the velocity of latents of the world's clips (uniform noise levels,
an average of the weights over training). The codec and the text encoder are those of
`gtsvj-toy-pipeline`, which stay as they are, so that both generators share latents and prompts. One
caption in ten is empty, and one in ten is replaced by zeros, which is what a judge is given.
A number of steps ends it, not the clock. Interrupt it at will: it resumes from `--run`.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor
from torch.nn import functional as F
from transformers import T5EncoderModel, UMT5Config, UMT5EncoderModel

from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.pipeline import PIPELINE, load_pipeline
from gtsvj_reward.toy.words import TEXT_LENGTH
from tools.toy.export import name_tokenizer_class
from tools.toy.generator import (
    HELD_OUT,
    HELD_OUT_KEY,
    TEXT_CONFIG,
    TRAIN_KEY,
    encode_split,
    train_steps,
)

CONFIG = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 32,
    "freq_dim": 128,
    "ffn_dim": 512,
    "num_layers": 4,
}
SCHEDULE = {"shift_terminal": 0.1}
"""The last step begins at this noise level, as LTX's does: at 1/1000 it would do nothing."""
MUON_RATE, ADAM_RATE = 1e-2, 2e-3
"""Highest learning rates."""


class Optimizers:
    """Muon for the matrices of the blocks, AdamW for the rest; saved as one optimizer.

    After 160 steps of 8 clips the loss on held-out clips was 0.53 with it, 0.64 with AdamW alone.
    """

    def __init__(self, model: WanTransformer3DModel) -> None:
        parameters = dict(model.named_parameters())
        inner = {n: p for n, p in parameters.items() if n.startswith("blocks.") and p.ndim == 2}
        rest = [p for n, p in parameters.items() if n not in inner]
        muon = torch.optim.Muon(
            inner.values(), lr=MUON_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.99), weight_decay=0.01)
        self.both, self.first = (muon, adam), len(inner)

    def set_rate(self, share: float) -> None:
        """Learning rates, as a share of the highest."""
        for optimizer, rate in zip(self.both, (MUON_RATE, ADAM_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = share * rate

    def step(self) -> None:
        """Update the weights."""
        for optimizer in self.both:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.both:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Moments by number of the parameter: Muon's, then AdamW's."""
        muon, adam = (optimizer.state_dict()["state"] for optimizer in self.both)
        shifted = {self.first + number: entry for number, entry in adam.items()}
        return {"state": {**muon, **shifted}, "param_groups": []}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        state = values["state"]
        muon = {number: entry for number, entry in state.items() if number < self.first}
        adam = {number - self.first: e for number, e in state.items() if number >= self.first}
        for optimizer, part in zip(self.both, (muon, adam), strict=True):
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": part, "param_groups": groups})


class Example:
    """The batch of a step: clean latents, texts, noise, noise levels, keyed by (seed, step)."""

    def __init__(
        self, latents: Tensor, texts: Tensor, empty: Tensor, batch: int, *key: int
    ) -> None:
        generator = keyed_generator(*key)
        index = torch.randint(len(latents), (batch,), generator=generator)
        share = torch.rand(batch, generator=generator)
        # (batch channel time height width), as Wan has it.
        self.clean = latents[index].transpose(1, 2)
        said = torch.where((share < 0.1)[:, None, None], empty, texts[index])
        self.texts = torch.where((share > 0.9)[:, None, None], 0.0, said)
        # One level in each of `batch` equal parts of the schedule.
        place = torch.randperm(batch, generator=generator) + torch.rand(batch, generator=generator)
        self.levels = place / batch
        self.noise = torch.randn(self.clean.shape, generator=generator)

    def loss(self, model: WanTransformer3DModel) -> Tensor:
        """Mean squared error of the predicted velocity."""
        level = self.levels.view(-1, 1, 1, 1, 1)
        noisy = (1 - level) * self.clean + level * self.noise
        said = model(noisy, 1000 * self.levels, self.texts).sample
        return F.mse_loss(said, self.noise - self.clean)


def pipeline_of(transformer: WanTransformer3DModel) -> WanPipeline:
    """A pipeline with the text encoder of the toy generator; its codec is not written again."""
    toy = load_pipeline(PIPELINE)
    scheduler = FlowMatchEulerDiscreteScheduler(**SCHEDULE)
    return WanPipeline(
        tokenizer=toy.tokenizer,
        text_encoder=as_umt5(toy.text_encoder),
        vae=None,
        scheduler=scheduler,
        transformer=transformer,
    )


def as_umt5(encoder: T5EncoderModel) -> UMT5EncoderModel:
    """The encoder as the class that Wan has; with a single layer both compute the same."""
    config = UMT5Config(vocab_size=encoder.config.vocab_size, **TEXT_CONFIG)
    made = UMT5EncoderModel(config).eval().requires_grad_(False)
    made.load_state_dict(encoder.state_dict())
    return made


@torch.no_grad()
def encoded(pipe: WanPipeline, captions: list[str]) -> tuple[Tensor, Tensor]:
    """What the text encoder says of captions, and of the empty prompt."""
    known = [*dict.fromkeys(captions), ""]
    said, _ = pipe.encode_prompt(
        known, do_classifier_free_guidance=False, max_sequence_length=TEXT_LENGTH
    )
    rows = dict(zip(known, said, strict=True))
    return torch.stack([rows[caption] for caption in captions]), rows[""]


def train(args: argparse.Namespace) -> None:
    """Train for a number of steps, then write the pipeline of the averaged weights."""
    torch.set_num_threads(args.threads)
    args.run.mkdir(parents=True, exist_ok=True)
    args.codec = PIPELINE
    torch.manual_seed(args.seed)
    model = WanTransformer3DModel(**CONFIG)
    pipe = pipeline_of(model)
    splits = [
        encode_split(args, "held-out", HELD_OUT_KEY, HELD_OUT),
        encode_split(args, "train", TRAIN_KEY, args.clips),
    ]
    texts = [encoded(pipe, captions) for _, captions in splits]
    held_out = [Example(splits[0][0], *texts[0], 32, -1, index) for index in range(2)]
    optimizer = Optimizers(model)
    losses = [partial(example.loss, model) for example in held_out]
    average = train_steps(
        args,
        model,
        optimizer,
        optimizer.set_rate,
        lambda step: Example(splits[1][0], *texts[1], args.batch, args.seed, step).loss(model),
        losses,
        warmup=50,
        every=100,
    )
    model.load_state_dict(average)
    pipe.to(torch.float16).save_pretrained(args.out)
    name_tokenizer_class(args.out)
    # Settings of Wan 2.2 at their defaults, which older versions of diffusers do not know.
    path = args.out / "model_index.json"
    values = json.loads(path.read_text())
    later = ("boundary_ratio", "expand_timesteps", "transformer_2")
    kept = {name: value for name, value in values.items() if name not in later}
    path.write_text(json.dumps(kept, indent=2) + "\n")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder for progress")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--clips", type=int, default=6000)
    parser.add_argument("--steps", type=int, default=9700, help="steps in all runs together")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="encode clips in bfloat16")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
