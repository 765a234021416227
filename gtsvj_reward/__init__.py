"""Video rewards read straight from diffusion latents.

The names below are imported when they are first used, so that `import gtsvj_reward` and
`gtsvj --help` load neither torch nor diffusers.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gtsvj_reward.backbones import (
        ImageCondition as ImageCondition,
        TextCondition as TextCondition,
    )
    from gtsvj_reward.judge import JudgeConfig as JudgeConfig, VideoJudge as VideoJudge
    from gtsvj_reward.latents.space import LatentSpace as LatentSpace
    from gtsvj_reward.reward import (
        GTSVJReward as GTSVJReward,
        PromptScore as PromptScore,
        ReferenceFidelity as ReferenceFidelity,
        RewardOutput as RewardOutput,
    )

__version__ = version("gtsvj-reward")

HOMES = {
    "ImageCondition": "gtsvj_reward.backbones",
    "TextCondition": "gtsvj_reward.backbones",
    "JudgeConfig": "gtsvj_reward.judge",
    "VideoJudge": "gtsvj_reward.judge",
    "LatentSpace": "gtsvj_reward.latents.space",
    "GTSVJReward": "gtsvj_reward.reward",
    "PromptScore": "gtsvj_reward.reward",
    "ReferenceFidelity": "gtsvj_reward.reward",
    "RewardOutput": "gtsvj_reward.reward",
}
"""Public name -> the module that defines it."""


def __getattr__(name: str) -> Any:
    """A public name, imported at its first use (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module 'gtsvj_reward' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOMES})
