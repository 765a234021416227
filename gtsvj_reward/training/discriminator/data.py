"""Pairs of a positive and a negative clip, each drawn from (seed, epoch, index) alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.perturbations import GENERATED, MINIMUM_STEPS, NegativeDraw, PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.training.data import Truncation, same_duration


@dataclass(frozen=True)
class Pair:
    """A positive clip, a negative one, and what makes it negative."""

    positive: Tensor
    """Scaled latents (time, channel, height, width)."""
    negative: Tensor
    """Likewise; another size if it is a generated clip of another size."""
    kind: str
    """A perturbation, or `generated`."""
    anchor: str
    """`real`, or `generated` where a generated clip is the positive."""


@dataclass(frozen=True)
class RealAndGenerated:
    """The clips that stage 1 is trained on, or evaluated with."""

    real: Sequence[ClipInfo]
    """Real clips: positives, and perturbed ones are negatives."""
    generated: Sequence[ClipInfo] = ()
    """Generated clips, possibly none: negatives."""


class ContrastivePairs(Dataset[Pair]):
    """Pairs for the contrastive loss; `pairs[epoch * len(pairs) + index]` is always the same one.

    Args:
        clips: one pair of each real clip per epoch.
        sampler: which negatives, how often.
        truncation: how pairs are cut. A perturbation is applied after the cut. A generated
            negative is cut to the duration of its anchor.
        seed: of every draw.

    Raises:
        ValueError: without real clips, or with clips too short to perturb, which are named.
    """

    def __init__(
        self,
        clips: RealAndGenerated,
        *,
        sampler: PerturbationSampler,
        truncation: Truncation,
        seed: int,
    ) -> None:
        self.real, self.generated = list(clips.real), list(clips.generated)
        if not self.real:
            raise ValueError("no real clips to train on or to evaluate with")
        check_lengths([*self.real, *self.generated])
        self.sampler, self.truncation, self.seed = sampler, truncation, seed

    def __len__(self) -> int:
        """Pairs of one epoch."""
        return len(self.real)

    def draw(self, key: int) -> tuple[NegativeDraw, ClipInfo, ClipInfo, torch.Generator]:
        """What a pair is made of: its kind, the sources of both clips, and further draws."""
        epoch, index = divmod(key, len(self))
        generator = keyed_generator(self.seed, epoch, index)
        draw = self.sampler.draw(generator, generated_available=bool(self.generated))
        other = int(torch.randint(max(1, len(self.generated)), (), generator=generator))
        info = self.generated[other] if draw.anchor == "generated" else self.real[index]
        source = self.generated[other] if draw.kind == GENERATED else info
        return draw, info, source, generator

    def __getitem__(self, key: int) -> Pair:
        draw, info, source, generator = self.draw(key)
        keep = self.truncation.keep(info, generator)
        positive = load_clip(info.path).latents[:keep]
        if draw.kind == GENERATED:
            negative = load_clip(source.path).latents
            if keep < info.shape[0]:
                negative = negative[: same_duration(info, keep, source)]
        else:
            negative = self.sampler.apply(draw.kind, positive[None], generator)[0]
        return Pair(positive, negative, draw.kind, draw.anchor)


def collate(pairs: list[Pair]) -> dict[str, list[Tensor] | list[str]]:
    """A batch as lists, since clips may differ in size."""
    return {
        "positive": [pair.positive for pair in pairs],
        "negative": [pair.negative for pair in pairs],
        "kind": [pair.kind for pair in pairs],
        "anchor": [pair.anchor for pair in pairs],
    }


def check_lengths(infos: Sequence[ClipInfo]) -> None:
    """Refuse clips that are too short for a perturbation."""
    least = MINIMUM_STEPS
    short = [info for info in infos if info.shape[0] < least]
    if short:
        raise ValueError(
            f"{len(short)} of {len(infos)} clips have fewer than {least} latent frames, which "
            f"perturbations need; the first is {short[0].path} with {short[0].shape[0]}. "
            "Encode longer clips, or leave these out"
        )
