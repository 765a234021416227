"""Video diffusion transformers, read as feature extractors."""

from gtsvj_reward.backbones.admission import SharingError as SharingError
from gtsvj_reward.backbones.base import Backbone as Backbone
from gtsvj_reward.backbones.cogvideox import CogVideoXBackbone as CogVideoXBackbone
from gtsvj_reward.backbones.denoising import (
    NoiseLevel as NoiseLevel,
    denoising_errors as denoising_errors,
    noise_levels as noise_levels,
)
from gtsvj_reward.backbones.image import ImageCondition as ImageCondition
from gtsvj_reward.backbones.live import (
    LiveBackbone as LiveBackbone,
    sharded_backbone as sharded_backbone,
)
from gtsvj_reward.backbones.load import (
    BACKBONES as BACKBONES,
    backbone_for as backbone_for,
    family_of as family_of,
    load_scheduler as load_scheduler,
    load_transformer as load_transformer,
    shared_backbone as shared_backbone,
)
from gtsvj_reward.backbones.ranks import RankError as RankError
from gtsvj_reward.backbones.taps import HiddenBlockError as HiddenBlockError
from gtsvj_reward.backbones.text import TextCondition as TextCondition
