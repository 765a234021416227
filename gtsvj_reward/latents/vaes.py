"""The VAEs that latents can belong to."""

from typing import Any

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.cogvideox_vae import CogVideoXVAE
from gtsvj_reward.latents.hunyuan_video15_vae import HunyuanVideo15VAE
from gtsvj_reward.latents.hunyuan_video_vae import HunyuanVideoVAE
from gtsvj_reward.latents.ltx_vae import LTX2VAE, LTXVAE
from gtsvj_reward.latents.mochi_vae import MochiVAE
from gtsvj_reward.latents.vae_family import VAEFamily
from gtsvj_reward.latents.wan_vae import WanVAE

VAE_FAMILIES: dict[str, type[VAEFamily]] = {
    "AutoencoderKLCogVideoX": CogVideoXVAE,
    "AutoencoderKLHunyuanVideo": HunyuanVideoVAE,
    "AutoencoderKLHunyuanVideo15": HunyuanVideo15VAE,
    "AutoencoderKLLTX2Video": LTX2VAE,
    "AutoencoderKLLTXVideo": LTXVAE,
    "AutoencoderKLMochi": MochiVAE,
    "AutoencoderKLWan": WanVAE,
}
"""diffusers class name -> how such VAEs are read and run."""

AUDIO = ("AutoencoderKLLTX2Audio",)
"""VAEs of sound."""


def vae_family(vae: Any) -> VAEFamily:
    """The family of a VAE, by its class.

    Raises:
        LatentSpaceError: for a class that is not in `VAE_FAMILIES`.
    """
    name = type(vae).__name__
    if name in AUDIO:
        raise LatentSpaceError(
            f"`{name}` makes latents of sound: a judge reads the video stream alone, so give the "
            "pipeline's `vae`, and of its output `frames`"
        )
    if name not in VAE_FAMILIES:
        raise LatentSpaceError(
            f"expected a VAE of {', '.join(VAE_FAMILIES)}, got `{name}`: other families are not "
            "supported, and a channel count does not tell them apart. Build the `LatentSpace` by "
            "hand if you make latents with it yourself"
        )
    return VAE_FAMILIES[name](vae)
