"""The VAEs of LTX-Video and LTX-2, and the tokens that LTX-Video's pipeline packs latents into."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.vae_family import VAEFamily


class LTXVAE(VAEFamily):
    """`AutoencoderKLLTXVideo`, named after its weights, which its mean and std are part of."""

    kind = "ltx-vae"
    tile = (512, 512)
    tile_unit = (8, 8)
    overlap = 8
    settings: ClassVar[dict[str, Any]] = {
        "use_framewise_encoding": False,
        "use_framewise_decoding": False,
    }

    def read(self) -> dict[str, Any]:
        """See `VAEFamily.read`. Mean and std are buffers beside the weights, not in the config."""
        vae = self.vae
        if vae.latents_mean.is_meta:
            raise LatentSpaceError(
                "this VAE is on the meta device, and the mean and std of LTX latents are in its "
                "weights (`latents_mean`, `latents_std`), not in its config: load the weights"
            )
        # Pipelines compute (z - mean) * scaling_factor / std, with a factor of 1 as published.
        std = vae.latents_std.detach().float() / vae.config.scaling_factor
        return {
            "channels": vae.config.latent_channels,
            "spatial_compression": int(vae.spatial_compression_ratio),
            "temporal_compression": int(vae.temporal_compression_ratio),
            "layout": "BCTHW",
            "mean": tuple(vae.latents_mean.detach().float().tolist()),
            "std": tuple(std.tolist()),
        }

    def pixels(
        self, raw: Float[Tensor, "batch channels steps rows columns"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Pixels by a decoder with timestep 0, if it takes one, and without noise.

        That is the default of the pipelines (`decode_timestep=0.0`); decoders take a timestep from
        0.9.1 on. The pages of diffusers advise 0.05 and noise.

        Raises:
            LatentSpaceError: for a decoder that draws noise inside.
        """
        if any(self.vae.config.decoder_inject_noise):
            raise LatentSpaceError(
                "this VAE's decoder adds noise of its own (`decoder_inject_noise`, as in LTX "
                "0.9.1), so that the same latents would give other frames in each call: decode "
                "with the pipeline instead. Encoding and scoring need no decoder"
            )
        clean = raw.new_zeros(1) if self.vae.config.timestep_conditioning else None
        # Clip by clip: diffusers pairs the wrong things when it slices a batch with timesteps.
        return torch.cat([self.vae.decode(clip[None], clean).sample for clip in raw])


class LTX2VAE(LTXVAE):
    """`AutoencoderKLLTX2Video`, which is read and run as LTX-Video's.

    Its layers reflect what they see at the edge, which takes two latents: tiles grow until the last
    one has as many. In 480 rows of pixels the second tile of 512 would have one.
    """

    kind = "ltx2-vae"

    def fit_tiles(self, rows: int, columns: int) -> None:
        """See `VAEFamily.fit_tiles`."""
        for name, count in (("height", rows), ("width", columns)):
            edge, step = f"tile_sample_min_{name}", f"tile_sample_stride_{name}"
            settings = vars(self.vae)
            while (
                settings[step] < count * self.side and (count - 1) * self.side % settings[step] == 0
            ):
                settings[edge] += self.side
                settings[step] += self.side


def unpack_tokens(
    tokens: Float[Tensor, "batch token channels"], size: tuple[int, int, int], channels: int
) -> Float[Tensor, "batch time channels height width"]:
    """Latents of the tokens that `LTXPipeline(output_type="latent")` returns; both are scaled.

    Args:
        tokens: time, height and width in one axis, in this order.
        size: latent frames, height and width of the clip. The tokens do not say them: 6 x 4 and
            4 x 6 have as many.
        channels: latent channels.

    Raises:
        LatentSpaceError: for another rank, number of channels or number of tokens.
    """
    if tokens.ndim != 3 or tokens.shape[2] != channels:
        raise LatentSpaceError(
            f"expected packed latents (batch, token, {channels}), got shape {tuple(tokens.shape)}: "
            "`LTXConditionPipeline` returns latents that are unpacked already"
        )
    time, height, width = size
    if min(size) < 1 or tokens.shape[1] != time * height * width:
        raise LatentSpaceError(
            f"expected {time} x {height} x {width} = {time * height * width} tokens, got "
            f"{tokens.shape[1]}: frames, height and width must be what the pipeline was called with"
        )
    latents: Tensor = tokens.unflatten(1, size).movedim(-1, 2)
    return latents
