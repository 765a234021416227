"""A judge made safe to call from a training loop."""

from gtsvj_reward.reward.output import (
    GeometryError as GeometryError,
    NonFiniteError as NonFiniteError,
    RewardOutput as RewardOutput,
)
from gtsvj_reward.reward.reward import GTSVJReward as GTSVJReward
