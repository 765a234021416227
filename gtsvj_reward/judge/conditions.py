"""Text and image inputs of a judge, by its config."""

from torch import Tensor

from gtsvj_reward.backbones import Backbone, ImageCondition, TextCondition
from gtsvj_reward.judge.config import JudgeConfig


def text_for(
    config: JudgeConfig, text: TextCondition | None, stored: Tensor | None, batch: int
) -> TextCondition | None:
    """The text input for a batch, by the rule of `config.text_input`.

    Args:
        config: the judge's.
        text: what the caller gave.
        stored: embedding (word, text_dim) in the checkpoint, of a judge that has one.
        batch: clips.

    Raises:
        ValueError: if `text` is given to a judge that ignores prompts, or missing from one that
            was trained with them.
    """
    rule = config.text_input
    if rule == "prompt":
        if text is None and not config.prompt_dropout:
            raise ValueError(
                "this judge was trained with prompts (text_input='prompt'), and never without "
                "(prompt_dropout=0): pass `text`, for example text_of(pipe, prompts)"
            )
        return text
    if text is not None:
        raise ValueError(
            f"this judge ignores prompts (text_input={rule!r}): `text` would change nothing, "
            "leave it out"
        )
    if stored is None:
        return None
    return TextCondition(stored.expand(batch, -1, -1))


def image_for(config: JudgeConfig, image: ImageCondition | None) -> ImageCondition | None:
    """The reference images of a batch, by the rule of `config.image_input`.

    Raises:
        ValueError: if `image` is given to a judge that sees none, or missing from one that does.
    """
    if config.image_input == "image" and image is None:
        raise ValueError(
            "this judge was trained with reference images (image_input='image'): pass `image`, "
            "for example image_of(pipe, images, height=..., width=..., num_frames=...)"
        )
    if config.image_input == "none" and image is not None:
        raise ValueError(
            "this judge ignores reference images (image_input='none'): `image` would change "
            "nothing, leave it out"
        )
    return image


def check_image_use(backbone: Backbone, config: JudgeConfig) -> None:
    """Refuse a judge that sees images on a model that takes none, and the reverse."""
    if config.image_input == "image" and backbone.image_use == "never":
        raise ValueError(
            f"image_input='image' needs the transformer of an image-to-video pipeline: this "
            f"{backbone.family} generates from text alone"
        )
    if config.image_input == "none" and backbone.image_use == "always":
        raise ValueError(
            f"this {backbone.family} is that of an image-to-video pipeline, which always has an "
            "image: set `image_input` to 'image', or take the text-to-video model with the same "
            "VAE as the base, whose judge scores the same latents without one"
        )
