"""Energies of clips of any sizes, for training and held-out evaluation."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.perturbations import GENERATED, PerturbationSampler, keyed_generator

REAL = "real"
"""The kind of an unperturbed real clip."""


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


def held_out_energies(
    judge: VideoJudge,
    real: Sequence[ClipInfo],
    generated: Sequence[ClipInfo],
    sampler: PerturbationSampler,
    *,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[tuple[str, int, float]]:
    """Mean energy over time of held-out clips: each real one, every perturbation of it, generated.

    A perturbation of a clip is the same whenever it is evaluated.

    Args:
        judge: evaluated without gradients.
        real: clean clips.
        generated: generated clips.
        sampler: settings of the perturbations; those it never draws are evaluated too.
        device: where the judge is.
        shard: (process, processes): clips process::processes are evaluated.

    Yields:
        (kind, index of the clip, energy); kind is `real`, `generated` or a perturbation.
    """
    kinds = sorted({*sampler.real, *sampler.generated} - {GENERATED})
    with torch.no_grad():
        for index in range(shard[0], len(real), shard[1]):
            clean = load_clip(real[index].path).latents[None]
            variants = {REAL: clean}
            for number, kind in enumerate(kinds):
                generator = keyed_generator(-2, index, number)
                variants[kind] = sampler.apply(kind, clean, generator)
            energies = judge(torch.cat([*variants.values()]).to(device)).mean(1).tolist()
            for kind, energy in zip(variants, energies, strict=True):
                yield kind, index, energy
        for index in range(shard[0], len(generated), shard[1]):
            clip = load_clip(generated[index].path).latents[None].to(device)
            yield GENERATED, index, judge(clip).mean().item()
