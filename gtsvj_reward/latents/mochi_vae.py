"""The VAE of Mochi."""

from math import prod
from typing import Any, ClassVar

from gtsvj_reward.latents.checks import LatentSpaceError
from gtsvj_reward.latents.vae_family import VAEFamily


class MochiVAE(VAEFamily):
    """`AutoencoderKLMochi`.

    The encoder attends over time, so a clip is encoded in one piece: memory grows with its length,
    and only tiles bound it. With diffusers before 0.33 it runs under `torch.no_grad` only.
    """

    kind = "mochi-vae"
    published: ClassVar[dict[str, dict[str, Any]]] = {
        "mochi-1": {
            "encoder_block_out_channels": (64, 128, 256, 384),
            "decoder_block_out_channels": (128, 256, 512, 768),
            "layers_per_block": (3, 3, 4, 6, 3),
            "add_attention_block": (False, True, True, True, True),
            "temporal_expansions": (1, 2, 3),
            "spatial_expansions": (2, 2, 2),
            "scaling_factor": 1.0,
            "latents_mean": (
                *(-0.06730895953510081, -0.038011381506090416, -0.07477820912866141),
                *(-0.05565264470995561, 0.012767231469026969, -0.04703542746246419),
                *(0.043896967884726704, -0.09346305707025976, -0.09918314763016893),
                *(-0.008729793427399178, -0.011931556316503654, -0.0321993391887285),
            ),
            "latents_std": (
                *(0.9263795028493863, 0.9248894543193766, 0.9393059390890617),
                *(0.959253732819592, 0.8244560132752793, 0.917259975397747),
                *(0.9294154431013696, 1.3720942357788521, 0.881393668867029),
                *(0.9168315692124348, 0.9185249279345552, 0.9274757570805041),
            ),
        }
    }
    tile = (256, 256)
    settings: ClassVar[dict[str, Any]] = {
        "drop_last_temporal_frames": True,
        "use_framewise_encoding": False,
        "use_framewise_decoding": False,
    }

    def read(self) -> dict[str, Any]:
        """See `VAEFamily.read`. A mean without a standard deviation, or the reverse, is rejected.

        The pipeline unscales by `z * std / scaling_factor + mean`, so the factor, which is 1 in the
        published VAE, goes into the standard deviations.
        """
        config = self.vae.config
        mean, std = config["latents_mean"], config["latents_std"]
        factor = float(config["scaling_factor"])
        if (mean is None) != (std is None):
            raise LatentSpaceError(
                f"this VAE's config has `latents_mean`={mean!r} and `latents_std`={std!r}, one of "
                "which Mochi's pipeline would ignore: set both or neither"
            )
        return {
            "channels": config["latent_channels"],
            "spatial_compression": prod(config["spatial_expansions"]),
            "temporal_compression": prod(config["temporal_expansions"]),
            "layout": "BCTHW",
            "scaling_factor": factor if mean is None else 1.0,
            "mean": None if mean is None else tuple(float(value) for value in mean),
            "std": None if std is None else tuple(float(value) / factor for value in std),
        }
