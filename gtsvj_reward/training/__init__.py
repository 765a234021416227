"""Training of a judge, on `transformers.Trainer`."""

from gtsvj_reward.training.arguments import (
    DiscriminatorConfig as DiscriminatorConfig,
    JudgeArguments as JudgeArguments,
)
from gtsvj_reward.training.calibration import (
    Calibration as Calibration,
    CalibrationSettings as CalibrationSettings,
    calibrate_perturbations as calibrate_perturbations,
)
from gtsvj_reward.training.discriminator import DiscriminatorTrainer as DiscriminatorTrainer
from gtsvj_reward.training.run import (
    build_judge as build_judge,
    train_discriminator as train_discriminator,
)
