"""Stage 1: an energy per latent step, no labels (paper section 4.1)."""

from gtsvj_reward.training.discriminator.calibration import (
    Calibration as Calibration,
    CalibrationSettings as CalibrationSettings,
    calibrate_perturbations as calibrate_perturbations,
)
from gtsvj_reward.training.discriminator.data import RealAndGenerated as RealAndGenerated
from gtsvj_reward.training.discriminator.fit import fit_discriminator as fit_discriminator
from gtsvj_reward.training.discriminator.run import train_discriminator as train_discriminator
from gtsvj_reward.training.discriminator.settings import (
    DiscriminatorConfig as DiscriminatorConfig,
    DiscriminatorFit as DiscriminatorFit,
    DiscriminatorTuning as DiscriminatorTuning,
)
from gtsvj_reward.training.discriminator.trainer import DiscriminatorTrainer as DiscriminatorTrainer
from gtsvj_reward.training.discriminator.tuning import tune_discriminator as tune_discriminator
