"""Clips with their prompts, and negatives that are clips with somebody else's."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.reward.texts import Encode
from gtsvj_reward.training.closed_form.examples import Contrast
from gtsvj_reward.training.closed_form.features import Load, Shown

Wrong = Callable[[str, torch.Generator], str]
"""A prompt and where draws come from -> one that is not true of its clip."""

DROPOUT = 0.1
"""Share of clips shown without their prompt, so that one judge serves callers with and without."""

DROP, SWAP = 1, 2
"""What a draw is for; part of its key."""


def shown(clip: Load, prompt: str, encode: Encode) -> Load:
    """A clip with a prompt.

    Args:
        clip: gives its latents, or them with a reference image.
        prompt: what it shows, or is said to show.
        encode: the text encoder.
    """

    def load() -> Shown:
        found = clip()
        if isinstance(found, Tensor):
            return Shown(found, encode([prompt]))
        if found.text is not None:
            raise TypeError("the clip has a prompt already: give it without")
        return replace(found, text=encode([prompt]))

    return load


def shown_or_not(
    clips: Sequence[Load],
    prompts: Sequence[str],
    encode: Encode,
    *,
    seed: int = 0,
    dropout: float = DROPOUT,
) -> list[Load]:
    """Clips with their prompts, a share of them without.

    Args:
        clips: their latents.
        prompts: one per clip.
        encode: the text encoder.
        seed: of the draws; what a clip gets depends on seed and place alone.
        dropout: share without a prompt; `JudgeConfig.prompt_dropout` of the judge to be.

    Raises:
        ValueError: for another number of prompts, or an empty one.
    """
    check_pairing(clips, prompts)
    kept = [
        torch.rand((), generator=keyed_generator(seed, DROP, index)).item() >= dropout
        for index in range(len(clips))
    ]
    return [
        shown(clip, prompt, encode) if keep else clip
        for clip, prompt, keep in zip(clips, prompts, kept, strict=True)
    ]


def swapped(
    clips: Sequence[Load],
    prompts: Sequence[str],
    encode: Encode,
    *,
    groups: Sequence[str],
    seed: int = 0,
    draws: int = 1,
    wrong: Wrong | None = None,
) -> list[Contrast]:
    """Each clip under its own prompt against the same clip under a wrong one.

    Args:
        clips: their latents.
        prompts: one per clip, true of it.
        encode: the text encoder.
        groups: sources of the clips.
        seed: of the draws.
        draws: wrong prompts for each clip.
        wrong: makes a prompt wrong, where prompts have a structure (one attribute changed); None:
            the prompt of another clip, which is easier to tell.

    Raises:
        ValueError: for another number of prompts, an empty one, or prompts that are all the same.
    """
    check_pairing(clips, prompts)
    make = wrong or other_prompt(prompts)
    pairs = []
    for index, (clip, prompt) in enumerate(zip(clips, prompts, strict=True)):
        for draw in range(draws):
            said = make(prompt, keyed_generator(seed, SWAP, index, draw))
            if said == prompt:
                raise ValueError(f"the wrong prompt of clip {index} is its own, {prompt!r}")
            pairs.append(
                Contrast(
                    positive=shown(clip, prompt, encode),
                    negative=shown(clip, said, encode),
                    groups=(groups[index], groups[index]),
                )
            )
    return pairs


def other_prompt(prompts: Sequence[str]) -> Wrong:
    """Draws the prompt of another clip, of those that differ.

    Raises:
        ValueError: if all are the same.
    """
    known = sorted(set(prompts))
    if len(known) < 2:
        raise ValueError(
            f"all {len(prompts)} clips have the prompt {known[0]!r}, expected different ones"
        )

    def draw(prompt: str, generator: torch.Generator) -> str:
        others = [other for other in known if other != prompt]
        return others[int(torch.randint(len(others), (), generator=generator))]

    return draw


def check_pairing(clips: Sequence[Load], prompts: Sequence[str]) -> None:
    """Refuse prompts that do not pair up with the clips.

    Raises:
        ValueError: with both numbers, or the first clip without a prompt.
    """
    if len(clips) != len(prompts) or not clips:
        raise ValueError(f"{len(prompts)} prompts for {len(clips)} clips: give one each")
    empty = [index for index, prompt in enumerate(prompts) if not prompt.strip()]
    if empty:
        raise ValueError(
            f"clip {empty[0]} has an empty prompt ({len(empty)} of {len(clips)}): leave such clips "
            "out, or show them without one"
        )
