"""The judge inside a trainer."""

import torch
from torch import Tensor, nn

from gtsvj_reward.judge import JudgeOutput, VideoJudge, judge_clips


class ClipScores(nn.Module):
    """The judge as a trainer wants it: one forward pass for a whole batch of clips.

    Clips of one shape share a pass through the transformer. A distributed wrapper sees a single
    call, so that gradients are averaged once.
    """

    accepts_loss_kwargs = True
    """Trainer: the loss is weighted over accumulated batches already."""

    def __init__(self, judge: VideoJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, clips: list[Tensor]) -> list[JudgeOutput]:
        """Scores (step,) and aspects (step, aspect) of each clip, in the given order.

        Args:
            clips: latents (time, channel, height, width).
        """
        return judge_clips(self.judge, clips)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: dict[str, object] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Recompute transformer blocks in the backward pass; called by the trainer."""
        if activation_checkpointing_kwargs or every_n_layers != 1 or offload:
            raise ValueError("blocks are checkpointed one by one, without further settings")
        self.judge.backbone.gradient_checkpointing = True

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, object] | None = None
    ) -> None:
        """The same under its name in transformers 4."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)


def mean_scores(outputs: list[JudgeOutput]) -> Tensor:
    """Mean score over time (clip,) of clips that may differ in length."""
    return torch.stack([output.scores.mean() for output in outputs])


def mean_aspects(outputs: list[JudgeOutput]) -> Tensor:
    """Mean range-normalised aspects over time (clip, aspect).

    Raises:
        ValueError: for a judge without aspects.
    """
    aspects = [output.aspects for output in outputs]
    if any(item is None for item in aspects):
        raise ValueError("a discriminator has no aspects")
    return torch.stack([item.mean(dim=0) for item in aspects if item is not None])
