"""Clips of any sizes through a judge."""

from collections.abc import Callable, Sequence

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

    def call(batch: Tensor, chosen: list[int]) -> JudgeOutput:
        rows = None if text is None else text.rows(torch.tensor(chosen))
        output: JudgeOutput = judge(batch, rows)
        return output

    return in_batches(clips, call, batch_size)


def in_batches(
    clips: Sequence[Tensor],
    call: Callable[[Tensor, list[int]], JudgeOutput],
    batch_size: int | None = None,
    kinds: Sequence[bool] | None = None,
) -> list[JudgeOutput]:
    """What a function says of each clip, in the given order.

    Args:
        clips: clips that may differ in shape.
        call: called once for each batch of clips of one shape, with their places in `clips`.
        batch_size: clips per call; None: all of one shape.
        kinds: of each clip; clips of different kinds share no call. None: all are of one.
    """
    buckets: dict[tuple[torch.Size, bool], list[int]] = {}
    for index, clip in enumerate(clips):
        kind = kinds is not None and kinds[index]
        buckets.setdefault((clip.shape, kind), []).append(index)
    outputs: dict[int, JudgeOutput] = {}
    for indices in buckets.values():
        size = batch_size or len(indices)
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            scores, aspects = call(torch.stack([clips[index] for index in chosen]), chosen)
            for place, index in enumerate(chosen):
                per_aspect = None if aspects is None else aspects[place]
                outputs[index] = JudgeOutput(scores[place], per_aspect)
    return [outputs[index] for index in range(len(clips))]
