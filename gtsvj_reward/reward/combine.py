"""Several rewards as one: a weighted sum, or an ensemble that says where its members disagree."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.reward.members import Reward, check_names, checked
from gtsvj_reward.reward.output import GeometryError, NonFiniteError
from gtsvj_reward.reward.reward import Clips, GTSVJReward


@dataclass(frozen=True)
class WeightedOutput:
    """Scores of a `WeightedReward`, clip by clip."""

    rewards: Float[Tensor, " clip"]
    """Sum of weight times score over the parts; float32."""
    parts: dict[str, Float[Tensor, " clip"]]
    """Name -> score of that reward, before its weight; float32."""


@dataclass(frozen=True)
class EnsembleOutput:
    """Scores of a `RewardEnsemble`, clip by clip."""

    rewards: Float[Tensor, " clip"]
    """Mean of the members minus pessimism times disagreement; float32."""
    parts: dict[str, Float[Tensor, " clip"]]
    """Name -> score of that member; float32."""
    disagreement: Float[Tensor, " clip"]
    """Standard deviation over the members (of these members: divided by their number), >= 0, in
    units of the normalised score."""


class WeightedReward:
    """A weighted sum of rewards, differentiable wherever they are.

        WeightedReward([("quality", judge, 1.0), ("dynamics", other, 0.3)])

    Weights are as given, not normalised; they compare scores on one scale only with
    `normalize=True`, the default. A negative weight is a penalty, a weight of 0 reports a part
    without counting it.

    Prompt embeddings go to the members that read them: a `GTSVJReward` whose `text_input` is
    `prompt`, and any other callable. Scores come back on the device of the first part.

    Args:
        parts: (name, reward, weight) of each; members may be combined rewards themselves.

    Raises:
        ValueError: no parts, a name that is empty or given twice, weights that are not finite or
            are all 0.
    """

    def __init__(self, parts: Sequence[tuple[str, Reward, float]]) -> None:
        names = [name for name, _, _ in parts]
        check_names(names)
        self.rewards = {name: reward for name, reward, _ in parts}
        self.weights = {name: float(weight) for name, _, weight in parts}
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {name!r} must be finite, got {weight}")
        if not any(self.weights.values()):
            raise ValueError(f"all weights are 0 ({', '.join(names)}): every clip would score 0")
        self.__name__ = "weighted_" + "_".join(names)

    def __call__(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """The weighted sums, float32; see `details`."""
        return self.details(
            latents, space=space, fps=fps, num_frames=num_frames, text=text, normalize=normalize
        ).rewards

    def details(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> WeightedOutput:
        """The weighted sums and their parts; see `GTSVJReward.details` for the arguments.

        Raises:
            LatentSpaceError, GeometryError, NonFiniteError: from a part, with its name.
            ValueError: `text` that no part reads, or a part without one score per clip.
        """
        parts = score_all(self.rewards, latents, space, fps, num_frames, text, normalize)
        terms = [weight * parts[name] for name, weight in self.weights.items()]
        total = torch.stack(terms).sum(dim=0)
        return WeightedOutput(rewards=checked(self.__name__, total, len(latents)), parts=parts)


class RewardEnsemble:
    """The mean of several rewards of one kind, and how far they are apart.

        RewardEnsemble({"seed 0": first, "seed 1": second}, pessimism=1.0)

    A policy that finds what fools one judge seldom fools all of them: disagreement that grows
    while the mean rises is a sign of it. Pessimism subtracts it from the score; with two members
    and pessimism 1 the score is the lower of the two.

    The gradient of the standard deviation does not exist where all members agree, and is 0 there.
    With `normalize=False` the members' scales are averaged as they are. Prompt embeddings and
    devices as for `WeightedReward`.

    Args:
        members: name -> reward, at least two; members may be combined rewards themselves.
        pessimism: k >= 0; the score is mean - k × standard deviation.

    Raises:
        ValueError: fewer than two members, an empty name, or a pessimism out of its range.
    """

    def __init__(self, members: Mapping[str, Reward], *, pessimism: float = 0.0) -> None:
        if len(members) < 2:
            raise ValueError(
                f"an ensemble needs at least 2 members, got {len(members)}: one reward cannot "
                "disagree with itself"
            )
        check_names(list(members))
        if not 0 <= pessimism < math.inf:
            raise ValueError(f"`pessimism` must be >= 0 and finite, got {pessimism}")
        self.rewards = dict(members)
        self.pessimism = pessimism
        self.__name__ = "ensemble_" + "_".join(members)

    def __call__(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """The ensemble's scores, float32; see `details`."""
        return self.details(
            latents, space=space, fps=fps, num_frames=num_frames, text=text, normalize=normalize
        ).rewards

    def details(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> EnsembleOutput:
        """Scores, members and disagreement; see `GTSVJReward.details` for the arguments.

        Raises:
            LatentSpaceError, GeometryError, NonFiniteError: from a member, with its name.
            ValueError: `text` that no member reads, or a member without one score per clip.
        """
        parts = score_all(self.rewards, latents, space, fps, num_frames, text, normalize)
        mean, deviation = mean_and_deviation(torch.stack(list(parts.values())))
        total = mean - self.pessimism * deviation
        return EnsembleOutput(
            rewards=checked(self.__name__, total, len(latents)),
            parts=parts,
            disagreement=deviation,
        )


def mean_and_deviation(
    scores: Float[Tensor, "member clip"],
) -> tuple[Float[Tensor, " clip"], Float[Tensor, " clip"]]:
    """Mean and standard deviation over the members, exact where they agree."""
    # Taken from the first member: rounding in the mean must not make up a disagreement.
    apart = scores - scores[0]
    mean = apart.mean(dim=0)
    # The gradient of a norm is 0 at 0; that of a square root would be infinite.
    norm = torch.linalg.vector_norm(apart - mean, dim=0)
    return scores[0] + mean, norm / math.sqrt(len(scores))


def reads_text(reward: Reward) -> bool:
    """Whether a reward takes prompt embeddings; a callable of one's own is trusted to."""
    if isinstance(reward, GTSVJReward):
        return reward.config.text_input == "prompt"
    if isinstance(reward, WeightedReward | RewardEnsemble):
        return any(reads_text(member) for member in reward.rewards.values())
    return True


def score_all(
    rewards: Mapping[str, Reward],
    latents: Clips,
    space: LatentSpace | None,
    fps: float | None,
    num_frames: int | None,
    text: TextCondition | None,
    normalize: bool,
) -> dict[str, Float[Tensor, " clip"]]:
    """Float32 scores of each reward by name, on the device of the first."""
    if text is not None and not any(reads_text(reward) for reward in rewards.values()):
        raise ValueError(
            f"none of the rewards ({', '.join(rewards)}) reads prompts: `text` would change "
            "nothing, leave it out"
        )
    parts: dict[str, Tensor] = {}
    for name, reward in rewards.items():
        own = text if reads_text(reward) else None
        try:
            scores = reward(
                latents, space=space, fps=fps, num_frames=num_frames, text=own, normalize=normalize
            )
        except (LatentSpaceError, GeometryError, NonFiniteError) as error:
            raise type(error)(f"reward {name!r}: {error}") from error
        parts[name] = checked(name, scores, len(latents))
    device = next(iter(parts.values())).device
    return {name: scores.to(device) for name, scores in parts.items()}
