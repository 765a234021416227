"""Stage 2: aspect scores from ratings (paper section 4.2)."""

from gtsvj_reward.training.aspects.data import RatedClip as RatedClip
from gtsvj_reward.training.aspects.fit import fit_aspects as fit_aspects
from gtsvj_reward.training.aspects.run import train_aspects as train_aspects
from gtsvj_reward.training.aspects.settings import (
    AspectConfig as AspectConfig,
    AspectFit as AspectFit,
)
from gtsvj_reward.training.aspects.trainer import AspectTrainer as AspectTrainer
