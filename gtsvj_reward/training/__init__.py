"""Training of a judge, on `transformers.Trainer`."""

from gtsvj_reward.training.arguments import (
    DiscriminatorConfig as DiscriminatorConfig,
    JudgeArguments as JudgeArguments,
)
from gtsvj_reward.training.aspects import AspectTrainer as AspectTrainer
from gtsvj_reward.training.calibration import (
    Calibration as Calibration,
    CalibrationSettings as CalibrationSettings,
    calibrate_perturbations as calibrate_perturbations,
)
from gtsvj_reward.training.discriminator import DiscriminatorTrainer as DiscriminatorTrainer
from gtsvj_reward.training.labelled import (
    ClipPair as ClipPair,
    RatedClip as RatedClip,
)
from gtsvj_reward.training.preference import PreferenceTrainer as PreferenceTrainer
from gtsvj_reward.training.reward_arguments import (
    AspectConfig as AspectConfig,
    PreferenceConfig as PreferenceConfig,
)
from gtsvj_reward.training.run import (
    build_judge as build_judge,
    train_discriminator as train_discriminator,
)
from gtsvj_reward.training.run_reward import (
    train_aspects as train_aspects,
    train_preference as train_preference,
)
