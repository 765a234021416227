"""Training of a judge, on `transformers.Trainer`; a folder for each stage."""

from gtsvj_reward.training.arguments import JudgeArguments as JudgeArguments
from gtsvj_reward.training.aspects import (
    AspectConfig as AspectConfig,
    AspectTrainer as AspectTrainer,
    RatedClip as RatedClip,
    train_aspects as train_aspects,
)
from gtsvj_reward.training.discriminator import (
    Calibration as Calibration,
    CalibrationSettings as CalibrationSettings,
    DiscriminatorConfig as DiscriminatorConfig,
    DiscriminatorTrainer as DiscriminatorTrainer,
    RealAndGenerated as RealAndGenerated,
    calibrate_perturbations as calibrate_perturbations,
    train_discriminator as train_discriminator,
)
from gtsvj_reward.training.preference import (
    ClipPair as ClipPair,
    PreferenceConfig as PreferenceConfig,
    PreferenceTrainer as PreferenceTrainer,
    train_preference as train_preference,
)
from gtsvj_reward.training.run import build_judge as build_judge
