"""A judge made safe to call from a training loop."""

from gtsvj_reward.reward.base import (
    AnyReward as AnyReward,
    Reward as Reward,
    as_reward as as_reward,
)
from gtsvj_reward.reward.clips import Clips as Clips
from gtsvj_reward.reward.combine import (
    RewardEnsemble as RewardEnsemble,
    WeightedReward as WeightedReward,
)
from gtsvj_reward.reward.images import image_of as image_of
from gtsvj_reward.reward.output import (
    GeometryError as GeometryError,
    NonFiniteError as NonFiniteError,
    RewardOutput as RewardOutput,
)
from gtsvj_reward.reward.prompt_score import PromptScore as PromptScore
from gtsvj_reward.reward.prompts import (
    PromptSensitivity as PromptSensitivity,
    prompt_sensitivity as prompt_sensitivity,
)
from gtsvj_reward.reward.reference_fidelity import ReferenceFidelity as ReferenceFidelity
from gtsvj_reward.reward.reward import GTSVJReward as GTSVJReward
from gtsvj_reward.reward.texts import PromptEncoder as PromptEncoder, text_of as text_of
from gtsvj_reward.reward.z_scores import group_z_scores as group_z_scores
