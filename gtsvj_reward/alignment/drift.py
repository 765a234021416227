"""How far a policy is from its reference, for every algorithm."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.alignment.policy import Policy, Prompts
from gtsvj_reward.alignment.rollout import Key
from gtsvj_reward.alignment.transition import Latents, standard_normal
from gtsvj_reward.losses import denoising_error
from gtsvj_reward.random_keys import keyed_generator

NOISE = 2
"""Last number of the key of noise that is added to a finished clip."""


def prediction_drift(
    policy: Policy, latents: Latents, prompts: Prompts, keys: Sequence[Key]
) -> Float[Tensor, " clip"]:
    """How far the policy's predictions are from the reference's; differentiable if recorded.

    Mean squared difference at one noise level, the middle timestep, on noised clips of the policy.
    As a loss it keeps the policy close to the reference.

    Args:
        policy: in its current state.
        latents: clean, with padding; no gradient flows into them.
        prompts: one per clip.
        keys: one per clip, for the noise.
    """
    timestep = policy.scheduler.config.num_train_timesteps // 2
    generators = [keyed_generator(*key, NOISE) for key in keys]
    noise = standard_normal(policy.latent_shape, generators, latents.device)
    noisy, _ = policy.family.add_noise(latents.detach(), noise, timestep)
    with policy.reference():
        wanted = policy.predict(noisy, timestep, prompts, guided=False)
    return denoising_error(policy.predict(noisy, timestep, prompts, guided=False), wanted)
