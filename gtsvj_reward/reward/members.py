"""What a reward must be to be one of several, and what it must return."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.output import NonFiniteError
from gtsvj_reward.reward.reward import Clips


@runtime_checkable
class Reward(Protocol):
    """Anything that is called as `GTSVJReward` is, and returns one score per clip."""

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
        """Scores of clips, higher is better; see `GTSVJReward.details` for the arguments."""


def checked(name: str, scores: Tensor, clips: int) -> Float[Tensor, " clip"]:
    """Scores in float32, if they are one finite number per clip."""
    if scores.shape != (clips,):
        raise ValueError(
            f"reward {name!r} returned scores of shape {tuple(scores.shape)}, expected ({clips},): "
            "one per clip"
        )
    bad = (~scores.isfinite()).nonzero().flatten().tolist()
    if bad:
        raise NonFiniteError(
            f"reward {name!r} gave clip {bad[0]} the score {scores[bad[0]].item()} "
            f"({len(bad)} of {clips} clips)"
        )
    return scores.float()


def check_names(names: Sequence[str]) -> None:
    """Refuse no names, an empty name, and a name given twice."""
    if not names:
        raise ValueError("expected at least one (name, reward, weight), got none")
    if not all(names):
        raise ValueError(f"a reward needs a name that is not empty, got {list(names)}")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"names must be different, given more than once: {', '.join(twice)}")
