"""Transformer inputs that a pipeline makes of reference images, and the family they are for."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones.condition import Condition

ImageUse = Literal["never", "also", "always"]
"""Whether a model generates from a reference image: never, from one also, or from one always."""


@dataclass(frozen=True)
class ImageCondition(Condition):
    """The reference images of a batch of clips, as a pipeline feeds them to its transformer."""

    what: ClassVar[str] = "images"
    latents: Float[Tensor, "batch frame channel height width"]
    """The VAE's latents of each image, scaled as latents of clips are: one latent frame, or as many
    as the clips have where the VAE sees grey frames behind the image (Wan's models of 36
    channels)."""
    embeds: Float[Tensor, "batch tokens image_dim"] | None = None
    """The image encoder's embeddings, for families that take that too (Wan 2.1)."""
    factor: float = 1.0
    """What the pipeline multiplies the scaled latents by; not 1 for CogVideoX 1.5 alone, whose VAE
    has `invert_scale_latents`."""
    family: str | None = None
    """Class name of the transformer whose pipeline encoded it; None: not checked."""

    def __len__(self) -> int:
        return len(self.latents)

    def first(self, frames: int) -> "ImageCondition":
        """The condition of clips cut to their first latent frames.

        Where the VAE saw grey frames behind the image it is causal: the first latents of a longer
        clip are those of a shorter one.
        """
        return replace(self, latents=self.latents[:, :frames])

    def fed(self, like: Tensor, frames: int) -> Tensor:
        """The latents as they are fed, zeros behind them, in the dtype of others.

        Args:
            like: latents as the transformer takes them.
            frames: how many there are to be.
        """
        given = self.latents.to(like) * self.factor
        batch, count, *rest = given.shape
        return torch.cat([given, given.new_zeros(batch, frames - count, *rest)], dim=1)


def check_image(image: ImageCondition | None, latents: Tensor, use: ImageUse, family: str) -> None:
    """Reject an image that is not of the latents' size, or that a model has no use for.

    Args:
        image: of each clip; None is never rejected.
        latents: (batch, time, channel, height, width).
        use: that the model has for images.
        family: class name of the model.

    Raises:
        ValueError: saying what was given and expected.
    """
    if image is None:
        return
    if use == "never":
        raise ValueError(
            f"this {family} generates from text alone and takes no image: leave `image` out, or "
            "build the judge on the transformer of an image-to-video pipeline"
        )
    if image.family not in (None, family):
        raise ValueError(
            f"the images were encoded for a {image.family}, this is a {family}: encode them by "
            "the pipeline of this model, `image_of(pipe, images, ...)`"
        )
    batch, _, *size = latents.shape
    if image.latents.ndim != 5 or (len(image), *image.latents.shape[2:]) != (batch, *size):
        raise ValueError(
            f"expected {batch} images of {tuple(size)} (channels, height, width in latents), as "
            f"the clips are, got {tuple(image.latents.shape)}: encode them at the size of the clips"
        )


def check_single(image: ImageCondition, family: str) -> None:
    """Reject images of several latent frames, and embeddings, of models that take neither."""
    frames = image.latents.shape[1]
    if frames != 1 or image.embeds is not None:
        also = "" if image.embeds is None else " and embeddings"
        raise ValueError(
            f"a {family} is fed the latents of the image alone, one frame of them; got {frames}"
            f"{also}: encode images by the pipeline of this model, `image_of(pipe, images, ...)`"
        )
