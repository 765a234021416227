"""What a judge says of clips that it was not trained on, per kind of negative."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.metrics import pairwise_accuracy
from gtsvj_reward.perturbations import GENERATED, PerturbationSampler
from gtsvj_reward.progress import Progress
from gtsvj_reward.random_keys import keyed_generator

REAL = "real"
"""The kind of an unperturbed real clip."""

Conditions = tuple[TextCondition | None, ImageCondition | None]
Condition = TypeVar("Condition", TextCondition, ImageCondition)


def held_out_energies(
    judge: VideoJudge,
    real: Sequence[ClipInfo],
    generated: Sequence[ClipInfo],
    sampler: PerturbationSampler,
    *,
    device: torch.device,
    shard: tuple[int, int] = (0, 1),
    conditions: Callable[[ClipInfo], Conditions] = lambda _: (None, None),
    shown: bool = False,
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
        conditions: prompt and reference image of a clip, one row each, as far as the judge reads
            them.
        shown: draw a progress bar.

    Yields:
        (kind, index of the clip, energy); kind is `real`, `generated` or a perturbation.
    """
    kinds = sorted({*sampler.real, *sampler.generated} - {GENERATED})
    own, made = (range(shard[0], len(clips), shard[1]) for clips in (real, generated))
    work = len(own) * (1 + len(kinds)) + len(made)
    with (
        torch.no_grad(),
        Progress(work, "energies of held-out clips", shown=shown, leave=False) as bar,
    ):
        for index in own:
            clean = load_clip(real[index].path).latents[None]
            variants = {REAL: clean}
            for number, kind in enumerate(kinds):
                generator = keyed_generator(-2, index, number)
                variants[kind] = sampler.apply(kind, clean, generator)
            clips = torch.cat([*variants.values()]).to(device)
            text, image = conditions(real[index])
            said, seen = rows_on(text, len(clips), device), rows_on(image, len(clips), device)
            energies = judge.energies(clips, said, seen).mean(1).tolist()
            bar.update(len(clips))
            for kind, energy in zip(variants, energies, strict=True):
                yield kind, index, energy
        for index in made:
            clip = load_clip(generated[index].path).latents[None].to(device)
            text, image = conditions(generated[index])
            said, seen = rows_on(text, 1, device), rows_on(image, 1, device)
            energy = judge.energies(clip, said, seen).mean().item()
            bar.update()
            yield GENERATED, index, energy


def rows_on(condition: Condition | None, count: int, device: torch.device) -> Condition | None:
    """One prompt or image for each of some clips, on a device."""
    if condition is None:
        return None
    return condition.rows(torch.zeros(count, dtype=torch.long)).to(device)


def metrics_by_kind(by_kind: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Mean energy per kind, accuracy of real clips against each, pairs and ties.

    Args:
        by_kind: kind -> clip -> energy, `real` among the kinds.
    """
    real = by_kind[REAL]
    metrics: dict[str, float] = {}
    pairs, ties = 0, 0
    for kind, energies in by_kind.items():
        metrics[f"energy/{kind}"] = sum(energies.values()) / len(energies)
        if kind == REAL:
            continue
        matches = pair_up(real, energies, same_clip=kind != GENERATED)
        first, second = (torch.tensor(side) for side in zip(*matches, strict=True))
        result = pairwise_accuracy(-first, -second)
        metrics[f"accuracy/{kind}"] = result.accuracy
        pairs, ties = pairs + result.pairs, ties + result.ties
    return {**metrics, "pairs": pairs, "ties": ties}


def pair_up(
    real: Mapping[int, float], others: Mapping[int, float], *, same_clip: bool
) -> list[tuple[float, float]]:
    """Energies to compare: each clip with its own perturbation, or all with all."""
    if same_clip:
        return [(real[index], energy) for index, energy in others.items()]
    return [(clean, energy) for clean in real.values() for energy in others.values()]
