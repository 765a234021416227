"""Compared clips as examples, each drawn from (seed, epoch, index) alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from gtsvj_reward.latents.store import ClipInfo, load_clip, unique_clips
from gtsvj_reward.losses import outcome_shares
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.training.data import Truncation, same_duration


@dataclass(frozen=True)
class ClipPair:
    """Two clips and which of them people preferred."""

    first: ClipInfo
    second: ClipInfo
    label: int
    """+1: the first is better; -1: the second; 0: the same. Of a probability the likelier side."""
    row: str
    """Row of the file, for messages."""
    group: str | None = None
    """Group that the file names."""
    probability: float | None = None
    """That the first is better; None: the label is a side, or a tie."""
    weight: float = 1.0
    """How many comparisons the pair counts as."""

    @property
    def tied(self) -> bool:
        """Whether people called both the same; votes in halves are no tie."""
        return self.label == 0 and self.probability is None


@dataclass(frozen=True)
class PairExample:
    """One pair of a batch."""

    first: Tensor
    """Latents (time, channel, height, width)."""
    second: Tensor
    """Likewise."""
    pair: ClipPair
    """What people said of both, uncut."""


class ClipPairs(Dataset[PairExample]):
    """Compared clips; `pairs[epoch * len(pairs) + index]` is always the same pair.

    Where a pair is truncated, both clips are cut to the same duration (paper section 5.1).

    Args:
        pairs: what was compared.
        truncation: how pairs are cut.
        seed: of every draw.

    Raises:
        ValueError: without pairs.
    """

    def __init__(self, pairs: Sequence[ClipPair], *, truncation: Truncation, seed: int) -> None:
        if not pairs:
            raise ValueError("no compared clips to train on")
        self.pairs, self.truncation, self.seed = list(pairs), truncation, seed

    def __len__(self) -> int:
        """Pairs of one epoch."""
        return len(self.pairs)

    def __getitem__(self, key: int) -> PairExample:
        epoch, index = divmod(key, len(self))
        pair = self.pairs[index]
        keep = self.truncation.keep(pair.first, keyed_generator(self.seed, epoch, index))
        first = load_clip(pair.first.path).latents[:keep]
        second = load_clip(pair.second.path).latents
        if keep < pair.first.shape[0]:
            second = second[: same_duration(pair.first, keep, pair.second)]
        return PairExample(first, second, pair)


def collate_pairs(examples: list[PairExample]) -> dict[str, Tensor | list[Tensor]]:
    """A batch; clips as lists, since they may differ in size."""
    return {
        "first": [example.first for example in examples],
        "second": [example.second for example in examples],
        "label": torch.tensor([example.pair.label for example in examples]),
        "shares": shares_of([example.pair for example in examples]).float(),
    }


def shares_of(pairs: Sequence[ClipPair]) -> Float[Tensor, "pair 3"]:
    """What pairs say for the outcomes first, tie and second, for `expected_loss`."""
    return outcome_shares(
        [pair.label for pair in pairs],
        [pair.probability for pair in pairs],
        [pair.weight for pair in pairs],
    )


def clips_of(pairs: Sequence[ClipPair]) -> list[ClipInfo]:
    """All clips of some pairs, each once."""
    return unique_clips([info for pair in pairs for info in (pair.first, pair.second)])
