"""Rewards while a diffusers pipeline samples: candidates, predicted clean latents, steering."""

from gtsvj_reward.sampling.best_of_n import best_of_n as best_of_n
from gtsvj_reward.sampling.callbacks import RewardCallback as RewardCallback
from gtsvj_reward.sampling.candidates import BestOfN as BestOfN
from gtsvj_reward.sampling.clean import (
    CleanLatents as CleanLatents,
    Step as Step,
    predicted_clean_latents as predicted_clean_latents,
)
from gtsvj_reward.sampling.guidance import RewardGuidance as RewardGuidance
from gtsvj_reward.sampling.halving import (
    SuccessiveHalving as SuccessiveHalving,
    successive_halving as successive_halving,
)
from gtsvj_reward.sampling.pipelines import latent_space as latent_space
