"""Unseen clips against the same clips with one fault."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gtsvj_reward import GTSVJReward
from gtsvj_reward.demo.clips import COMPRESSED, FPS
from gtsvj_reward.demo.degradations import DEGRADATIONS
from gtsvj_reward.latents import LatentFolder
from gtsvj_reward.perturbations import EXTENDED, PERTURBATIONS, PerturbationSampler
from gtsvj_reward.random_keys import keyed_generator

DRAWS = 3
"""Draws of each perturbation per unseen clip."""


@dataclass(frozen=True)
class Comparison:
    """Raw scores of unseen clean clips and of the same clips with one fault."""

    kind: str
    """Fault of the second."""
    trained: bool
    """Whether this kind of fault was among the training negatives."""
    clean: list[float]
    """Scores of the clean clips, one per pair."""
    faulty: list[float]
    """Scores of the same clips with the fault."""


def compare(reward: GTSVJReward, latents: Path) -> list[Comparison]:
    """Score unseen clips against perturbed and degraded versions of themselves."""
    clean = LatentFolder(latents / "clean")
    scores = {info.path.name: score(reward, clean[i].latents, clean)
              for i, info in enumerate(clean.infos)}  # fmt: skip
    sampler, comparisons = PerturbationSampler(), []
    for number, kind in enumerate((*PERTURBATIONS, *EXTENDED)):
        first, second = [], []
        for index, clip in enumerate(clean):
            for draw in range(DRAWS):
                generator = keyed_generator(-3, number, index, draw)
                perturbed = sampler.apply(kind, clip.latents[None], generator)[0]
                first.append(scores[clean.infos[index].path.name])
                second.append(score(reward, perturbed, clean))
        comparisons.append(Comparison(kind, True, first, second))
    for kind in (*DEGRADATIONS, COMPRESSED):
        if not (latents / kind).is_dir():
            continue
        folder = LatentFolder(latents / kind)
        first = [scores[info.path.name] for info in folder.infos]
        second = [score(reward, clip.latents, folder) for clip in folder]
        comparisons.append(Comparison(kind, False, first, second))
    return comparisons


def score(reward: GTSVJReward, latents: Tensor, folder: LatentFolder) -> float:
    """Raw score of one clip."""
    with torch.no_grad():
        return reward(latents[None], space=folder.space, fps=FPS, normalize=False).item()
