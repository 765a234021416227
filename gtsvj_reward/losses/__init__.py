"""Training objectives as plain functions of numbers."""

from gtsvj_reward.losses.aspects import aspect_loss as aspect_loss
from gtsvj_reward.losses.contrastive import (
    bound_share as bound_share,
    contrastive_bound as contrastive_bound,
    contrastive_loss as contrastive_loss,
)
from gtsvj_reward.losses.diffusion_dpo import (
    DPOLoss as DPOLoss,
    denoising_error as denoising_error,
    diffusion_dpo_loss as diffusion_dpo_loss,
)
from gtsvj_reward.losses.policy_gradient import (
    PolicyLoss as PolicyLoss,
    clipped_policy_loss as clipped_policy_loss,
)
from gtsvj_reward.losses.preference import (
    bradley_terry_loss as bradley_terry_loss,
    bradley_terry_with_ties_loss as bradley_terry_with_ties_loss,
    rao_kupper_loss as rao_kupper_loss,
)
from gtsvj_reward.losses.reward_gradient import reward_loss as reward_loss
from gtsvj_reward.losses.soft_labels import (
    PairLoss as PairLoss,
    expected_loss as expected_loss,
    expected_side as expected_side,
    outcome_shares as outcome_shares,
)
