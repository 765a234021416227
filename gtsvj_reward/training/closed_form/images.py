"""Clips with their reference images, and negatives that are clips with somebody else's."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.training.closed_form.examples import Contrast
from gtsvj_reward.training.closed_form.features import Load, Shown

SWAP = 3
"""What a draw is for; part of its key."""


def with_image(clip: Load, image: ImageCondition) -> Load:
    """A clip with a reference image; it may have a prompt already.

    Args:
        clip: gives its latents, or them with a prompt.
        image: one row.

    Raises:
        ValueError: for another number of rows.
        TypeError: when it is loaded, for a clip that has an image.
    """
    if len(image) != 1:
        raise ValueError(f"expected the image of one clip, got {len(image)}")

    def load() -> Shown:
        found = clip()
        if isinstance(found, Tensor):
            return Shown(found, image=image)
        if found.image is not None:
            raise TypeError("the clip has a reference image already: give it without")
        return replace(found, image=image)

    return load


def first_frames_swapped(
    clips: Sequence[Load],
    images: ImageCondition,
    *,
    groups: Sequence[str],
    seed: int = 0,
    draws: int = 1,
) -> list[Contrast]:
    """Each clip with its own reference image against the same clip with that of another one.

    Give clips that a generator made from their images. A real clip begins with its image to the
    last digit, which no generated one does, so that real clips alone teach a judge to ask for that.

    Args:
        clips: their latents, or them with their prompts.
        images: one row per clip.
        groups: sources of the clips; the image of a negative is of another source.
        seed: of the draws; what a clip gets depends on seed and place alone.
        draws: wrong images for each clip.

    Raises:
        ValueError: for another number of images or groups, and if all clips are of one source.
    """
    if not len(clips) == len(images) == len(groups) or not clips:
        raise ValueError(
            f"{len(images)} reference images and {len(groups)} groups for {len(clips)} clips: give "
            "one of each"
        )
    if len(set(groups)) < 2:
        raise ValueError(f"all {len(clips)} clips are of {groups[0]!r}, expected different sources")
    rows = [images.rows(torch.tensor([index])) for index in range(len(clips))]
    pairs = []
    for index, clip in enumerate(clips):
        others = [place for place, group in enumerate(groups) if group != groups[index]]
        for draw in range(draws):
            generator = keyed_generator(seed, SWAP, index, draw)
            wrong = others[int(torch.randint(len(others), (), generator=generator))]
            pairs.append(
                Contrast(
                    positive=with_image(clip, rows[index]),
                    negative=with_image(clip, rows[wrong]),
                    groups=(groups[index], groups[index]),
                )
            )
    return pairs
