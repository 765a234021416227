"""Energies of clips of any sizes in one forward pass."""

import torch
from torch import Tensor, nn

from gtsvj_reward.judge import VideoJudge


class PairEnergies(nn.Module):
    """The judge as a trainer wants it: one forward pass for a whole batch of pairs.

    Clips of one shape share a pass through the transformer. A distributed wrapper sees a single
    call, so that gradients are averaged once.
    """

    def __init__(self, judge: VideoJudge) -> None:
        super().__init__()
        self.judge = judge

    def forward(self, clips: list[Tensor]) -> list[Tensor]:
        """Energies per step of each clip (time, channel, height, width), in the given order."""
        buckets: dict[torch.Size, list[int]] = {}
        for index, clip in enumerate(clips):
            buckets.setdefault(clip.shape, []).append(index)
        energies: dict[int, Tensor] = {}
        for indices in buckets.values():
            batch = torch.stack([clips[index] for index in indices])
            energies.update(zip(indices, self.judge(batch), strict=True))
        return [energies[index] for index in range(len(clips))]

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


def means(energies: list[Tensor]) -> Tensor:
    """Mean energy over time of clips that may differ in length."""
    return torch.stack([energy.mean() for energy in energies])
