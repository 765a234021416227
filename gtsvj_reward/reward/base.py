"""`Reward`: what every reward is called as, whoever computes the scores."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.space import LatentSpace, LatentSpaceError
from gtsvj_reward.reward.clips import REFUSALS, Clips
from gtsvj_reward.reward.inputs import AnyLatents, AnyNumber, AnySpace
from gtsvj_reward.reward.output import RewardOutput

AnyReward = Callable[..., Tensor]
"""A `Reward`, or a function that is called as one; see `FunctionReward`."""


class Reward(ABC):
    """Scores clips; higher is better.

    Subclasses implement `score` for `Clips`; calls and details are implemented here.
    """

    __name__: str
    reads_text: bool = False
    """Whether it takes prompt embeddings."""
    wants_text: bool = False
    """Whether callers with prompts should encode them: the reward certainly reads them."""
    needs_text: bool = False
    """Whether it rejects clips without prompts."""
    reads_prompts: bool = False
    """Whether it takes the prompts themselves, `Clips.texts`, as functions of one's own do."""
    reads_image: bool = False
    """Whether it takes reference images."""
    pessimism: float = 0.0
    """How many standard deviations its scores are lowered by, as far as this process knows."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.__name__})"

    @property
    def takes_empty(self) -> bool:
        """Whether a process without clips may call it, since others need it to."""
        return False

    @property
    def config(self) -> JudgeConfig | None:
        """What the judge is; None for a reward that is not a judge in this process."""
        return None

    @property
    def scored_space(self) -> LatentSpace | None:
        """The latent space that it scores; None if any, or if it is not known here."""
        return None if self.config is None else self.config.latent_space

    @abstractmethod
    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """Scores of clips and their parts; see `details`."""

    def __call__(
        self,
        latents: AnyLatents,
        *,
        space: AnySpace | None = None,
        fps: AnyNumber | None = None,
        num_frames: AnyNumber | None = None,
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """One score per clip, float32; see `details` for the arguments."""
        return self.details(
            latents,
            space=space,
            fps=fps,
            num_frames=num_frames,
            text=text,
            image=image,
            normalize=normalize,
        ).rewards

    def details(
        self,
        latents: AnyLatents,
        *,
        space: AnySpace | None = None,
        fps: AnyNumber | None = None,
        num_frames: AnyNumber | None = None,
        text: TextCondition | None = None,
        image: ImageCondition | None = None,
        normalize: bool = True,
    ) -> RewardOutput:
        """Scores and their parts.

        Args:
            latents: scaled latents (batch, time, channel, height, width), or a list of clips (time,
                channel, height, width) of any sizes; tensors or arrays. Moved to the judge's
                device.
            space: which latent space they are of, or the pipeline or VAE that says so, which is
                read at each call; refused if it is not the judge's. None: the caller vouches.
            fps: frames per second of the video, checked against the trained range if given.
            num_frames: frames requested from the generator; needed to drop the padding that
                CogVideoX 1.5 leaves at the start.
            text: prompt embeddings, for a reward that reads them.
            image: reference images of the clips' size, for a reward that sees them.
            normalize: subtract the checkpoint's mean and divide by its standard deviation.

        Raises:
            LatentSpaceError: foreign space, wrong layout or channels, unscaled or non-finite input;
                the message has the clip's index.
            GeometryError: a clip outside the trained range.
            NonFiniteError: a score that is NaN or infinite; the message has the clip's index.
            ValueError: `normalize` without statistics in the checkpoint; `text` or `image` that
                does not fit.
            TypeError: for what are no latents, such as decoded frames.
        """
        clips = Clips.of(
            latents=latents,
            space=space,
            fps=fps,
            num_frames=num_frames,
            text=text,
            image=image,
            may_be_empty=self.takes_empty,
        )
        return self.score(clips, normalize)

    def refuse_foreign(self, space: LatentSpace, what: str) -> None:
        """Refuse, before anything is generated, a space that the judge does not score.

        Rewards without a judge of their own refuse at the first call.

        Args:
            space: of the latents that will be given.
            what: they are, for the message.

        Raises:
            LatentSpaceError: naming both spaces.
        """
        own = self.scored_space
        if own is not None and not own.same_latents(space):
            raise LatentSpaceError(
                f"the judge scores latents of {own.title()}, {what} are of {space.title()}: use a "
                "judge of that model, or decode the clips and encode them anew with the VAE of the "
                "judge"
            )

    def to(self, device: str | torch.device) -> "Reward":
        """Move what can be moved: nothing of a client, a combination or a function."""
        del device
        return self


class FunctionReward(Reward):
    """A function of one's own as a `Reward`; it may read prompts and images.

    Args:
        function: called with the latents and the keywords of a `Reward`, with `image` only where
            there are reference images, and with `prompts`, one string per clip, only where the
            caller knows them, as alignment does; returns one score per clip.
        name: for messages.
    """

    reads_text = reads_image = reads_prompts = True

    def __init__(self, function: AnyReward, name: str) -> None:
        self.function = function
        self.__name__ = name

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """What the function returns, if that is one finite number per clip."""
        known: dict[str, Any] = {} if clips.image is None else {"image": clips.image}
        if clips.texts is not None:
            known["prompts"] = clips.texts
        with clips.named(*REFUSALS):
            scores = self.function(
                clips.latents,
                space=clips.space,
                fps=clips.fps,
                num_frames=clips.num_frames,
                text=clips.text,
                normalize=normalize,
                **known,
            )
        rewards = clips.scored(scores, self.__name__)
        return RewardOutput(rewards=rewards, raw=rewards)


def as_reward(reward: AnyReward, name: str = "reward") -> Reward:
    """A `Reward` as it is, anything else that is called as one wrapped in a `FunctionReward`.

    Args:
        reward: the reward, or the function.
        name: of the function, for messages.
    """
    match reward:
        case Reward():
            return reward
        case _:
            return FunctionReward(reward, name)
