"""A batch of any clips as requests of one shape each, and their answers as one output."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.reward import Clips
from gtsvj_reward.serving.replies import ScoreReply


def checked_clips(latents: Clips, text: TextCondition | None) -> list[Tensor]:
    """The clips of a batch.

    Raises:
        ValueError: for none, for clips that record gradients, and for another number of prompts.
    """
    clips = list(latents)
    if not clips:
        raise ValueError("no clips to score: the batch is empty")
    if text is not None and len(text.embeds) != len(clips):
        raise ValueError(f"{len(text.embeds)} text embeddings for {len(clips)} clips")
    if torch.is_grad_enabled() and any(clip.requires_grad for clip in clips):
        raise ValueError(
            "a score from a server has no gradient: detach the latents, or score them with a "
            "GTSVJReward in this process"
        )
    return clips


def alike(clips: Sequence[Tensor], most: int) -> list[list[int]]:
    """Indices of clips that go in one request: of one shape and type, not too many."""
    kinds: dict[tuple[torch.Size, torch.dtype], list[int]] = {}
    for index, clip in enumerate(clips):
        kinds.setdefault((clip.shape, clip.dtype), []).append(index)
    return [
        indices[start : start + most]
        for indices in kinds.values()
        for start in range(0, len(indices), most)
    ]


def joined(rows: Sequence[tuple[ScoreReply, int]]) -> RewardOutput:
    """One output of several replies: for each clip, its reply and its place in that."""
    return RewardOutput(
        rewards=torch.tensor([reply.scores[place] for reply, place in rows]),
        raw=torch.tensor([reply.raw_scores[place] for reply, place in rows]),
        trajectory=[torch.tensor(reply.trajectory[place]) for reply, place in rows],
        aspects={
            name: torch.tensor([reply.aspects[name][place] for reply, place in rows])
            for name in rows[0][0].aspects
        },
        untrained_geometry=tuple(reply.untrained_geometry[place] for reply, place in rows),
    )
