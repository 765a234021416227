"""Several rewards as one: a weighted sum, or an ensemble that reports disagreement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.reward.base import AnyReward, Reward, as_reward
from gtsvj_reward.reward.clips import REFUSALS, Clips
from gtsvj_reward.reward.output import RewardOutput


class Combination(Reward):
    """Several rewards with a name each.

    Prompt embeddings and reference images go to those that read them: a `GTSVJReward` whose
    `text_input` is `prompt` (`image_input` is `image`), and any function of one's own. Scores come
    back on the device of the first.

    Args:
        rewards: (name, reward) of each; may be combinations themselves.

    Raises:
        ValueError: for no rewards, an empty name, or one given twice.
    """

    def __init__(self, rewards: Sequence[tuple[str, AnyReward]]) -> None:
        names = [name for name, _ in rewards]
        if not names:
            raise ValueError("expected at least one (name, reward, weight), got none")
        if not all(names):
            raise ValueError(f"a reward needs a name that is not empty, got {names}")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must be different, given more than once: {', '.join(twice)}")
        self.rewards = {name: as_reward(reward, name) for name, reward in rewards}
        members = self.rewards.values()
        self.reads_text = any(reward.reads_text for reward in members)
        self.wants_text = any(reward.wants_text for reward in members)
        self.needs_text = any(reward.needs_text for reward in members)
        self.reads_prompts = any(reward.reads_prompts for reward in members)
        self.reads_image = any(reward.reads_image for reward in members)
        self.pessimism = max(reward.pessimism for reward in members)

    def outputs(self, clips: Clips, normalize: bool) -> dict[str, RewardOutput]:
        """What each reward says, by name.

        Raises:
            LatentSpaceError, GeometryError, NonFiniteError: from a reward, with its name.
            ValueError: `text` or `image` that no reward reads, or a reward without one score per
                clip.
        """
        if clips.text is not None and not self.reads_text:
            raise ValueError(
                f"none of the rewards ({', '.join(self.rewards)}) reads prompts: `text` would "
                "change nothing, leave it out"
            )
        if clips.image is not None and not self.reads_image:
            raise ValueError(
                f"none of the rewards ({', '.join(self.rewards)}) reads reference images: `image` "
                "would change nothing, leave it out"
            )
        outputs: dict[str, RewardOutput] = {}
        for name, reward in self.rewards.items():
            own = clips if reward.reads_text else replace(clips, text=None)
            own = own if reward.reads_image else replace(own, image=None)
            try:
                outputs[name] = reward.score(own, normalize)
            except REFUSALS as error:
                said, who = str(error), f"reward {name!r}"
                if said.startswith(who):  # the error already names the function
                    raise
                raise type(error)(f"{who}: {said}") from error
        return outputs

    def parts(self, outputs: Mapping[str, RewardOutput]) -> dict[str, Float[Tensor, " clip"]]:
        """Scores of each reward by name, on the device of the first."""
        device = next(iter(outputs.values())).rewards.device
        return {name: output.rewards.to(device) for name, output in outputs.items()}


class WeightedReward(Combination):
    """A weighted sum of rewards, differentiable wherever they are.

        WeightedReward([("quality", judge, 1.0), ("dynamics", other, 0.3)])

    Weights are as given, not normalised; they compare scores on one scale only with
    `normalize=True`, the default. A negative weight is a penalty, a weight of 0 reports a part
    without counting it.

    Prompt embeddings and devices as for `Combination`.

    Args:
        parts: (name, reward, weight) of each; members may be combined rewards themselves.

    Raises:
        ValueError: no parts, a name that is empty or given twice, weights that are not finite or
            are all 0.
    """

    def __init__(self, parts: Sequence[tuple[str, AnyReward, float]]) -> None:
        super().__init__([(name, reward) for name, reward, _ in parts])
        self.weights = {name: float(weight) for name, _, weight in parts}
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {name!r} must be finite, got {weight}")
        if not any(self.weights.values()):
            names = ", ".join(self.weights)
            raise ValueError(f"all weights are 0 ({names}): every clip would score 0")
        self.__name__ = "weighted_" + "_".join(self.weights)

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """The weighted sums, and the scores of each part before its weight.

        They have no uncertainty: how the errors of the parts go together is not known.
        """
        parts = self.parts(self.outputs(clips, normalize))
        terms = [weight * parts[name] for name, weight in self.weights.items()]
        total = clips.scored(torch.stack(terms).sum(dim=0), self.__name__)
        return RewardOutput(rewards=total, raw=total, parts=parts)


class RewardEnsemble(Combination):
    """The mean of several rewards of one kind, and how uncertain it is.

        RewardEnsemble({"seed 0": first, "seed 1": second}, pessimism=1.0)

    A policy that exploits one judge seldom exploits all of them: growing disagreement while the
    mean rises indicates it. The uncertainty of a score is that of a mixture of the members: its
    variance is the variance of their scores plus the mean of their own variances, which moment
    judges fitted to labels have; a member without one adds 0. Pessimism subtracts the uncertainty
    from the score; with two members without uncertainties and pessimism 1 the score is the lower of
    the two.

    The gradient of the standard deviation does not exist where all members agree and have no
    uncertainty, and is 0 there. The uncertainty of a live judge has none at all: for gradients set
    `pessimism` of such members, not of their ensemble.
    With `normalize=False` the members' scales are averaged as they are. Prompt embeddings and
    devices as for `Combination`.

    Args:
        members: name -> reward, at least two; members may be combined rewards themselves.
        pessimism: k >= 0; the score is mean - k × uncertainty.

    Raises:
        ValueError: fewer than two members, an empty name, a pessimism out of its range, or one of
            the ensemble besides one of a member, whose uncertainty would count twice.
    """

    def __init__(self, members: Mapping[str, AnyReward], *, pessimism: float = 0.0) -> None:
        if len(members) < 2:
            raise ValueError(f"an ensemble needs at least 2 members, got {len(members)}")
        super().__init__(list(members.items()))
        if not 0 <= pessimism < math.inf:
            raise ValueError(f"`pessimism` must be >= 0 and finite, got {pessimism}")
        twice = [name for name, reward in self.rewards.items() if pessimism and reward.pessimism]
        if twice:
            raise ValueError(
                f"the scores of {', '.join(map(repr, twice))} are already lowered by their "
                "uncertainty, and `pessimism` of the ensemble would subtract it again: set "
                "`pessimism` of the members to 0"
            )
        self.pessimism = max(pessimism, self.pessimism)
        self.own_pessimism = pessimism
        self.__name__ = "ensemble_" + "_".join(members)

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """Scores and members, and the `uncertainty`; see the class.

        The variance of the scores is that over these members (divided by their number), in units of
        the normalised score.
        """
        outputs = self.outputs(clips, normalize)
        parts = self.parts(outputs)
        scores = torch.stack(list(parts.values()))
        own = [
            torch.zeros_like(row) if output.uncertainty is None else output.uncertainty.to(row)
            for row, output in zip(scores, outputs.values(), strict=True)
        ]
        mean, deviation = mean_and_deviation(scores, torch.stack(own))
        # Without pessimism no gradient may ask for that of an uncertainty, which live judges lack.
        lowered = mean - self.own_pessimism * deviation if self.own_pessimism else mean
        total = clips.scored(lowered, self.__name__)
        return RewardOutput(rewards=total, raw=total, parts=parts, uncertainty=deviation)


def mean_and_deviation(
    scores: Float[Tensor, "member clip"],
    uncertainties: Float[Tensor, "member clip"],
) -> tuple[Float[Tensor, " clip"], Float[Tensor, " clip"]]:
    """Mean and standard deviation of a mixture of the members, exact where they agree."""
    # Taken from the first member: rounding in the mean must not make up a disagreement.
    apart = scores - scores[0]
    mean = apart.mean(dim=0)
    # The gradient of a norm is 0 at 0; that of a square root would be infinite.
    norm = torch.linalg.vector_norm(torch.cat([apart - mean, uncertainties]), dim=0)
    return scores[0] + mean, norm / math.sqrt(len(scores))
