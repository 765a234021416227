"""Which pipelines make latents that a judge can score: those with its VAE, whatever they run."""

from dataclasses import dataclass

from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.vaes import VAE_FAMILIES


@dataclass(frozen=True)
class Generator:
    """A pipeline of diffusers, and the class of its VAE."""

    pipeline: str
    vae: str
    note: str = ""
    """What becomes of its latents on the way to a judge."""


def _of(vae: str, *pipelines: str, note: str = "") -> tuple[Generator, ...]:
    return tuple(Generator(pipeline, vae, note) for pipeline in pipelines)


SIGMA_DATA = "times `scheduler.config.sigma_data`, which is 1 as published"
UNSCALED = "unscaled: `space.scale(space.to_btchw(latents))`"
CHUNKS = "of several chunks, which the pipeline decodes one by one"
COGVIDEOX, HUNYUAN_VIDEO = "AutoencoderKLCogVideoX", "AutoencoderKLHunyuanVideo"
HUNYUAN_VIDEO_15, LTX2 = "AutoencoderKLHunyuanVideo15", "AutoencoderKLLTX2Video"
LTX, MOCHI, WAN = "AutoencoderKLLTXVideo", "AutoencoderKLMochi", "AutoencoderKLWan"

GENERATORS: tuple[Generator, ...] = (
    *_of(COGVIDEOX, "CogVideoXPipeline", "CogVideoXImageToVideoPipeline"),
    *_of(COGVIDEOX, "CogVideoXVideoToVideoPipeline", "CogVideoXFunControlPipeline"),
    *_of(COGVIDEOX, "ConsisIDPipeline"),
    *_of(HUNYUAN_VIDEO, "HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline"),
    *_of(HUNYUAN_VIDEO, "HunyuanSkyreelsImageToVideoPipeline"),
    *_of(HUNYUAN_VIDEO, "HunyuanVideoFramepackPipeline", note="in a list: take `frames[0]`"),
    *_of(
        HUNYUAN_VIDEO,
        "Kandinsky5T2VPipeline",
        "Kandinsky5I2VPipeline",
        note="channels last: `latents.movedim(-1, 2)` is BTCHW",
    ),
    *_of(HUNYUAN_VIDEO, "Kandinsky6TI2VAPipeline"),
    *_of(HUNYUAN_VIDEO_15, "HunyuanVideo15Pipeline", "HunyuanVideo15ImageToVideoPipeline"),
    *_of(LTX, "LTXPipeline", "LTXImageToVideoPipeline", note="packed: `LatentSpace.unpack`"),
    *_of(LTX, "LTXConditionPipeline"),
    *_of(LTX, "LTXI2VLongMultiPromptPipeline", note=UNSCALED),
    *_of(LTX2, "LTX2Pipeline", "LTX2ImageToVideoPipeline", "LTX2ConditionPipeline", note=UNSCALED),
    *_of(LTX2, "LTX2InContextPipeline", "LTX2HDRPipeline", note=UNSCALED),
    *_of(MOCHI, "MochiPipeline"),
    *_of(WAN, "WanPipeline", "WanImageToVideoPipeline", "WanVideoToVideoPipeline"),
    *_of(WAN, "WanVACEPipeline"),
    *_of(WAN, "WanAnimatePipeline", note="of the last segment only"),
    *_of(WAN, "SkyReelsV2Pipeline", "SkyReelsV2ImageToVideoPipeline"),
    *_of(WAN, "SkyReelsV2DiffusionForcingPipeline"),
    *_of(WAN, "SkyReelsV2DiffusionForcingImageToVideoPipeline"),
    *_of(WAN, "SkyReelsV2DiffusionForcingVideoToVideoPipeline"),
    *_of(WAN, "Cosmos2VideoToWorldPipeline", note=SIGMA_DATA),
    *_of(WAN, "Cosmos2_5_PredictBasePipeline", "Cosmos3OmniPipeline"),
    *_of(WAN, "Cosmos2_5_TransferPipeline", note=CHUNKS),
    *_of(WAN, "HeliosPipeline", "HeliosPyramidPipeline", note=CHUNKS),
    *_of(WAN, "MotifVideoPipeline", "MotifVideoImage2VideoPipeline"),
    *_of(WAN, "ChronoEditPipeline", "LucyEditPipeline", "AnyFlowPipeline", "AnyFlowFARPipeline"),
)
"""Pipelines by the class of their VAE. Models of one class may have different VAEs (Wan 2.1 and the
5B of 2.2): `LatentSpace.from_pipeline` reads which from the config, and a judge compares."""


def vae_class_of(space: LatentSpace) -> str | None:
    """The diffusers class of the VAE that latents belong to; None for a space built by hand."""
    name = space.vae or space.id
    for vae, family in VAE_FAMILIES.items():
        if name in family.published or name.startswith(f"{family.kind}-"):
            return vae
    return None


def generators_of(space: LatentSpace) -> list[Generator]:
    """Pipelines whose latents are of a space, if their VAE's config is the one that it names."""
    vae = vae_class_of(space)
    return [generator for generator in GENERATORS if generator.vae == vae]
