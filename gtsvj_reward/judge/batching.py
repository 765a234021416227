"""Clips of any sizes through a judge."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.judge.model import JudgeOutput, VideoJudge


def judge_clips(
    judge: VideoJudge,
    clips: Sequence[Tensor],
    *,
    text: TextCondition | None = None,
    batch_size: int | None = None,
) -> list[JudgeOutput]:
    """What the judge says of each clip (time, channel, height, width), in the given order.

    Args:
        judge: called once for each batch of clips of one shape.
        clips: clips that may differ in shape.
        text: one row per clip.
        batch_size: clips per forward pass; None: all of one shape.

    Returns:
        Per clip, scores (step,) and aspects (step, aspect) or None.
    """
    buckets: dict[torch.Size, list[int]] = {}
    for index, clip in enumerate(clips):
        buckets.setdefault(clip.shape, []).append(index)
    outputs: dict[int, JudgeOutput] = {}
    for indices in buckets.values():
        size = batch_size or len(indices)
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            rows = None if text is None else text.rows(torch.tensor(chosen))
            scores, aspects = judge(torch.stack([clips[index] for index in chosen]), rows)
            for place, index in enumerate(chosen):
                per_aspect = None if aspects is None else aspects[place]
                outputs[index] = JudgeOutput(scores[place], per_aspect)
    return [outputs[index] for index in range(len(clips))]
