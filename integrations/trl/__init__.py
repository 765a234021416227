"""TRL: reward functions for `GRPOTrainer`, `RLOOTrainer` and `OnlineDPOTrainer`.

Written against trl 1.16 (`GRPOTrainer._calculate_rewards`), which calls a reward function with
keywords only (`prompts`, `completions`, `completion_ids`, every other column of the dataset,
`trainer_state`, `log_metric`, `log_extra`) and expects one float or None per completion; a row that
has None from every function is left out of the baseline and has no effect. An `nn.Module` would
be taken for a text classifier, so these are plain objects. Nothing here imports trl.
"""

from gtsvj_reward.integrations.trl.latents import (
    LatentsRewardFunc as LatentsRewardFunc,
    latents_reward_func as latents_reward_func,
)
from gtsvj_reward.integrations.trl.prompts import (
    PromptRewardFunc as PromptRewardFunc,
    prompt_reward_func as prompt_reward_func,
)
