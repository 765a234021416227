"""Stage 3: one score from the aspects, by comparisons (paper section 4.2)."""

from gtsvj_reward.training.preference.data import ClipPair as ClipPair
from gtsvj_reward.training.preference.fit import fit_preference as fit_preference
from gtsvj_reward.training.preference.run import train_preference as train_preference
from gtsvj_reward.training.preference.settings import (
    PreferenceConfig as PreferenceConfig,
    PreferenceFit as PreferenceFit,
)
from gtsvj_reward.training.preference.trainer import PreferenceTrainer as PreferenceTrainer
