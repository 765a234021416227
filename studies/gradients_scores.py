"""Scores of the study of gradients: judges, and energies whose fit penalises their gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import CogVideoXDDIMScheduler
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward import GTSVJReward
from gtsvj_reward.alignment import add_noise
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.world import FPS
from gtsvj_reward.training.closed_form import stages
from gtsvj_reward.training.closed_form.ridge import expanded

Clips = Float[Tensor, "clip time channel height width"]
Score = Callable[[Clips, Sequence[str]], Float[Tensor, " clip"]]
"""Score of clips and their captions; differentiable, higher is better."""
Features = Callable[[Clips], Float[Tensor, "clip feature"]]
BETA = 0.2
READ_AT_ONCE = 20


def judged(name: str) -> Score:
    """A bundled judge."""
    reward = GTSVJReward.from_pretrained(name)
    return lambda clips, _: reward(clips, fps=FPS)


def noise_like(clips: Clips, *key: int) -> Clips:
    """Standard normal noise, that of a clip by its place."""
    rows = [
        torch.randn(clip.shape, generator=keyed_generator(*key, number))
        for number, clip in enumerate(clips)
    ]
    return torch.stack(rows)


def smoothed(score: Score, sigma: float, draws: int) -> Score:
    """The mean score of a clip with noise of this deviation, the same noise at every call."""

    def mean(clips: Clips, texts: Sequence[str]) -> Tensor:
        parts = [score(clips + sigma * noise_like(clips, 81, draw), texts) for draw in range(draws)]
        return torch.stack(parts).mean(dim=0)

    return mean


def through_generator(score: Score, pipe: Any, share: float, draws: int) -> Score:
    """The score of what the generator sees in a clip that is noised so far: its last step.

    The gradient goes through the generator, as that of reward gradients through their last step.
    """
    scheduler = CogVideoXDDIMScheduler.from_config(pipe.scheduler.config)
    timestep = round(share * scheduler.config.num_train_timesteps)

    def mean(clips: Clips, texts: Sequence[str]) -> Tensor:
        embeds = pipe.encode_prompt(list(texts), do_classifier_free_guidance=False)[0]
        alpha = scheduler.alphas_cumprod[timestep] ** 0.5
        parts = []
        for draw in range(draws):
            noisy, _ = add_noise(scheduler, clips, noise_like(clips, 82, draw), timestep)
            when = torch.full((len(clips),), timestep)
            velocity = pipe.transformer(noisy, embeds, when, return_dict=False)[0]
            parts.append(score(alpha * noisy - (1 - alpha**2) ** 0.5 * velocity, texts))
        return torch.stack(parts).mean(dim=0)

    return mean


@dataclass(frozen=True)
class Energy:
    """Data to solve an energy from: features of clips, and their change with small noise."""

    features: Features
    widths: tuple[int, ...]
    """Widths of the blocks of features, each with its own penalty."""
    positive: Clips
    negative: Clips
    groups: Tensor
    """Clips and their negatives, positives first."""

    def read(self, clips: Clips) -> Float[Tensor, "clip feature"]:
        """Features, float64, without a graph."""
        with torch.no_grad():
            return torch.cat([self.features(part).double() for part in clips.split(READ_AT_ONCE)])

    def solve(self, sigma: float, strengths: Sequence[float]) -> list[Score]:
        """Minus the energy of Eq. 4, with an approximate R1 and R2 penalty of each strength.

        The penalty is the mean square of how the energy changes under noise of deviation `sigma`,
        over positives (R1) and negatives (R2), as in adversarial post-training (Lin et al. 2025).
        The energy is linear in the features, so that it adds a matrix to the normal equations;
        a strength is its trace, as a multiple of the trace of theirs. Strength 0 is plain.
        """
        clips = torch.cat([self.positive, self.negative])
        features = self.read(clips)
        standard = stages.Standard.of(features[: len(self.positive)])
        known = torch.arange(len(clips)) < len(self.positive)
        solved = stages.solve_energy(
            standard(features), self.widths, positive=known,
            weights=torch.ones(len(clips)).double(), groups=self.groups, beta=BETA,
        )  # fmt: skip
        halves = torch.where(known, 1 / known.sum(), 1 / (~known).sum()).double()
        weights = halves / halves.mean()
        target = torch.where(known, 1.0, -1.0).double()
        mean = (weights[:, None] * standard(features)).mean(dim=0)
        rows = standard(features) - mean
        normal = rows.T @ (weights[:, None] * rows)
        ridge = expanded(solved.penalties.penalties, self.widths).double().diag()
        right = rows.T @ (weights * (target - (weights * target).mean()))
        scores = []
        moved = self.read(clips + sigma * noise_like(clips, 83)) if any(strengths) else features
        change = (moved - features) / standard.deviation
        rough = change.T @ (weights[:, None] * change)
        for strength in strengths:
            scale = strength * normal.trace() / rough.trace() if strength else 0.0
            weight = torch.linalg.solve(normal + ridge + scale * rough, right)
            scores.append(self.score(weight, standard))
        return scores

    def random(self) -> Score:
        """Random weights of standardised features, as a baseline."""
        features = self.read(self.positive)
        weight = torch.randn(features.shape[1], generator=keyed_generator(85)).double()
        return self.score(weight, stages.Standard.of(features))

    def score(self, weight: Tensor, standard: stages.Standard) -> Score:
        """Linear in standardised features."""
        return lambda clips, _: standard(self.features(clips)) @ weight
