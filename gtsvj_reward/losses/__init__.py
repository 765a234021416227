"""Training objectives as plain functions of numbers."""

from gtsvj_reward.losses.aspects import aspect_loss as aspect_loss
from gtsvj_reward.losses.contrastive import (
    bound_share as bound_share,
    contrastive_bound as contrastive_bound,
    contrastive_loss as contrastive_loss,
)
from gtsvj_reward.losses.preference import (
    bradley_terry_loss as bradley_terry_loss,
    bradley_terry_with_ties_loss as bradley_terry_with_ties_loss,
    rao_kupper_loss as rao_kupper_loss,
)
