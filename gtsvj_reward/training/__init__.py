"""Training of judges from clips and labels: one folder per stage, and closed-form fits."""

from gtsvj_reward.training.arguments import JudgeArguments as JudgeArguments
from gtsvj_reward.training.aspects import (
    AspectConfig as AspectConfig,
    AspectFit as AspectFit,
    AspectTrainer as AspectTrainer,
    RatedClip as RatedClip,
    fit_aspects as fit_aspects,
    train_aspects as train_aspects,
)
from gtsvj_reward.training.closed_form import (
    Compared as Compared,
    Contrast as Contrast,
    FeatureCache as FeatureCache,
    Rated as Rated,
    Shown as Shown,
    first_frames_swapped as first_frames_swapped,
    refit as refit,
    shown as shown,
    shown_or_not as shown_or_not,
    swapped as swapped,
    with_image as with_image,
)
from gtsvj_reward.training.discriminator import (
    Calibration as Calibration,
    CalibrationSettings as CalibrationSettings,
    DiscriminatorConfig as DiscriminatorConfig,
    DiscriminatorFit as DiscriminatorFit,
    DiscriminatorTrainer as DiscriminatorTrainer,
    DiscriminatorTuning as DiscriminatorTuning,
    RealAndGenerated as RealAndGenerated,
    calibrate_perturbations as calibrate_perturbations,
    fit_discriminator as fit_discriminator,
    train_discriminator as train_discriminator,
    tune_discriminator as tune_discriminator,
)
from gtsvj_reward.training.preference import (
    ClipPair as ClipPair,
    PreferenceConfig as PreferenceConfig,
    PreferenceFit as PreferenceFit,
    PreferenceTrainer as PreferenceTrainer,
    fit_preference as fit_preference,
    train_preference as train_preference,
)
from gtsvj_reward.training.run import build_judge as build_judge
