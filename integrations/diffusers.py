"""diffusers pipelines: best of n from latents, rewards per step, guidance, successive halving.

Written against `CogVideoXPipeline` and `WanPipeline` of diffusers 0.42: `output_type="latent"`,
`callback_on_step_end(pipe, step, timestep, tensors)`, and `pipe.scheduler.step`.

    import torch
    from diffusers import CogVideoXPipeline
    from diffusers.utils import export_to_video

    from gtsvj_reward import GTSVJReward
    from gtsvj_reward.integrations.diffusers import RewardGuidance, best_of_n

    pipe = CogVideoXPipeline.from_pretrained("zai-org/CogVideoX-2b", torch_dtype=torch.bfloat16)
    pipe.to("cuda").transformer.requires_grad_(False)
    reward = GTSVJReward.from_pretrained("path/to/judge", transformer=pipe.transformer)
    best = best_of_n(
        pipe, reward, "a dog runs on a beach", 8,
        num_frames=49, height=480, width=720, fps=8.0,
    )
    export_to_video(best.frames[0], "best.mp4", fps=8)

    with RewardGuidance(pipe, reward, num_frames=49, fps=8.0, scale=0.05) as guidance:
        pipe("a dog runs on a beach", num_frames=49, callback_on_step_end=guidance)

The work is done in `gtsvj_reward.sampling`; `docs/diffusers.md` explains it.
"""

from gtsvj_reward.sampling import (
    BestOfN as BestOfN,
    CleanLatents as CleanLatents,
    RewardCallback as RewardCallback,
    RewardGuidance as RewardGuidance,
    Step as Step,
    SuccessiveHalving as SuccessiveHalving,
    best_of_n as best_of_n,
    latent_space as latent_space,
    predicted_clean_latents as predicted_clean_latents,
    successive_halving as successive_halving,
)
