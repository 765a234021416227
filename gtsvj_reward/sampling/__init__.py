"""While a diffusers pipeline samples: candidates, predicted clean latents, steering, negatives."""

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
from gtsvj_reward.sampling.negative_jobs import (
    NegativeSettings as NegativeSettings,
    Prompted as Prompted,
    read_prompts as read_prompts,
)
from gtsvj_reward.sampling.negatives import (
    NegativesReport as NegativesReport,
    make_negatives as make_negatives,
)
from gtsvj_reward.sampling.pipelines import (
    ClipSize as ClipSize,
    latent_space as latent_space,
)
from gtsvj_reward.sampling.renoising import renoised as renoised
