"""Clips of the toy generator, with a metric of their pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.random_keys import keyed_order
from gtsvj_reward.toy.measures import steadiness
from gtsvj_reward.toy.pipeline import decode, sample
from gtsvj_reward.toy.world import captions

GENERATION_STEPS = 5
"""Denoising steps: few, so that clips of one prompt differ in quality."""
BATCH = 20


@dataclass(frozen=True)
class Lot:
    """Generated clips, as many of each prompt."""

    prompts: list[str]
    each: int
    """Clips of each prompt; they follow one another."""
    latents: Float[Tensor, "clip step channel row column"]
    frames: UInt8[Tensor, "clip time height width 3"]
    steadiness: Float[Tensor, " clip"]
    """Measured in the pixels, without any model: higher is better."""

    def rows(self, number: int) -> slice:
        """Clips of a prompt."""
        return slice(number * self.each, (number + 1) * self.each)


def choose_prompts(first: str, ranked: int, rated: int, seed: int) -> tuple[list[str], list[str]]:
    """Prompts whose clips are ranked, `first` in front, and others whose clips are rated.

    Raises:
        ValueError: for a prompt that is not a caption of the toy world.
    """
    known = captions()
    if first not in known:
        raise ValueError(
            f"the toy pipeline has no caption {first!r}: captions are like {known[0]!r} or "
            f"{known[-1]!r}"
        )
    others = [known[index] for index in keyed_order(len(known), seed, 41) if known[index] != first]
    return [first, *others[: ranked - 1]], others[ranked - 1 : ranked - 1 + rated]


def generate(pipe: Any, prompts: Sequence[str], each: int, seed: int, what: str) -> Lot:
    """Sample, decode and measure; a clip's seed is its number after `seed`."""
    texts = [prompt for prompt in prompts for _ in range(each)]
    latents, frames = [], []
    for first in tqdm(range(0, len(texts), BATCH), f"generate {what}"):
        some = texts[first : first + BATCH]
        seeds = range(seed + first, seed + first + len(some))
        made = sample(pipe, some, seeds, steps=GENERATION_STEPS, guidance=1.0)
        latents.append(made)
        frames.append(torch.stack(decode(pipe, made)))
    pixels = torch.cat(frames)
    return Lot(list(prompts), each, torch.cat(latents), pixels, steadiness(pixels))
