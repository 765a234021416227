"""Clips of any sizes through a judge."""

from collections.abc import Hashable, Sequence
from operator import itemgetter

import torch
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge.model import VideoJudge
from gtsvj_reward.judge.output import JudgeOutput


def judge_clips(
    judge: VideoJudge,
    clips: Sequence[Tensor],
    *,
    text: TextCondition | None = None,
    image: ImageCondition | None = None,
    batch_size: int | None = None,
) -> list[JudgeOutput]:
    """What the judge says of each clip (time, channel, height, width), in the given order.

    Args:
        judge: called once for each batch of clips of one shape.
        clips: clips that may differ in shape.
        text: one row per clip.
        image: likewise.
        batch_size: clips per forward pass; None: all of one shape.

    Returns:
        Per clip, scores (step,) and aspects (step, aspect) or None.
    """
    outputs: dict[int, JudgeOutput] = {}
    for chosen in buckets([clip.shape for clip in clips], batch_size):
        index = torch.tensor(chosen)
        rows = None if text is None else text.rows(index)
        shown = None if image is None else image.rows(index)
        batch: JudgeOutput = judge(torch.stack([clips[place] for place in chosen]), rows, shown)
        outputs.update(zip(chosen, by_clip(batch), strict=True))
    return [outputs[index] for index in range(len(clips))]


def by_clip(batch: JudgeOutput) -> list[JudgeOutput]:
    """What is said of each clip of a batch."""
    return [batch.each(itemgetter(place)) for place in range(len(batch.scores))]


def buckets(kinds: Sequence[Hashable], size: int | None = None) -> list[list[int]]:
    """Indices of things of one kind, in order within each kind.

    Args:
        kinds: of each thing; kinds come in the order in which they are first seen.
        size: the most of one bucket; None: all of a kind.
    """
    found: dict[Hashable, list[int]] = {}
    for index, kind in enumerate(kinds):
        found.setdefault(kind, []).append(index)
    return [
        indices[start : start + (size or len(indices))]
        for indices in found.values()
        for start in range(0, len(indices), size or len(indices))
    ]
