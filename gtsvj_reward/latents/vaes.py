"""The VAEs that latents can belong to."""

from typing import Any

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.cogvideox_vae import COGVIDEOX_VAE
from gtsvj_reward.latents.hunyuan_video_vae import HUNYUAN_VIDEO_VAE
from gtsvj_reward.latents.ltx_vae import LTX_VAE
from gtsvj_reward.latents.mochi_vae import MOCHI_VAE
from gtsvj_reward.latents.vae_family import VAEFamily
from gtsvj_reward.latents.wan_vae import WAN_VAE

VAE_FAMILIES: dict[str, VAEFamily] = {
    "AutoencoderKLCogVideoX": COGVIDEOX_VAE,
    "AutoencoderKLHunyuanVideo": HUNYUAN_VIDEO_VAE,
    "AutoencoderKLLTXVideo": LTX_VAE,
    "AutoencoderKLMochi": MOCHI_VAE,
    "AutoencoderKLWan": WAN_VAE,
}
"""diffusers class name -> how such VAEs are read and run."""


def vae_family(vae: Any) -> VAEFamily:
    """The family of a VAE, by its class.

    Raises:
        LatentSpaceError: for a class that is not in `VAE_FAMILIES`.
    """
    name = type(vae).__name__
    if name not in VAE_FAMILIES:
        raise LatentSpaceError(
            f"expected a VAE of {', '.join(VAE_FAMILIES)}, got `{name}`: other families are not "
            "supported, and a channel count does not tell them apart. Build the `LatentSpace` by "
            "hand if you make latents with it yourself"
        )
    return VAE_FAMILIES[name]
