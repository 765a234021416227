"""Video rewards read straight from diffusion latents."""

from importlib.metadata import version

from gtsvj_reward.backbones import TextCondition as TextCondition
from gtsvj_reward.judge import JudgeConfig as JudgeConfig, VideoJudge as VideoJudge
from gtsvj_reward.latents.space import LatentSpace as LatentSpace
from gtsvj_reward.reward import GTSVJReward as GTSVJReward, RewardOutput as RewardOutput

__version__ = version("gtsvj-reward")
