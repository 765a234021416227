"""How a fit shows clips to its judge: alone, or with stored prompts and reference images."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.reward.image_store import ImageStore, ImageStoreError
from gtsvj_reward.reward.text_store import PromptStoreError, TextStore
from gtsvj_reward.training.closed_form.examples import Contrast
from gtsvj_reward.training.closed_form.features import Load, Shown
from gtsvj_reward.training.closed_form.images import SWAP as IMAGE_SWAP, with_image
from gtsvj_reward.training.closed_form.prompts import (
    DROP,
    SWAP,
    other_prompt,
    shown,
    shown_or_not,
    swapped,
)

WrongPrompts = Literal["others", "stored"]
"""Where wrong prompts come from: other clips, or `gtsvj encode --wrong_prompts`."""


class Showing:
    """Clips as a judge is shown them in a fit.

    Args:
        config: of the judge.
        clips: all clips of the fit, those held out included.
        seed: of what is shown without its prompt, and of wrong prompts and images.

    Raises:
        StoreError: for a judge that reads prompts or sees images, and clips that have none stored,
            an empty one, or one that another family's pipeline encoded.
    """

    def __init__(self, config: JudgeConfig, clips: Sequence[ClipInfo], *, seed: int) -> None:
        self.reads = config.text_input == "prompt"
        self.sees = config.image_input == "image"
        self.dropout, self.seed = config.prompt_dropout, seed
        self.stores: dict[str, TextStore] = {}
        """Prompt -> where its text is."""
        self.wrong: dict[str, list[str]] = {}
        """Path of a clip -> stored prompts that are not true of it."""
        self.said: dict[str, str] = {}
        """Path of a clip -> its prompt."""
        self.images: dict[str, ImageStore] = {}
        """Path of a clip -> where its reference image is."""
        self.pictures: dict[str, str] = {}
        """Path of a clip -> file name of its reference image."""
        if self.reads:
            self.find_prompts(clips, TextStore.of_clips(clips, config.family))
        if self.sees:
            stores = ImageStore.of_clips(clips, config.family)
            self.images = {str(i.path): s for i, s in zip(clips, stores, strict=True)}
            self.pictures = {
                str(i.path): s.file_of(i).name for i, s in zip(clips, stores, strict=True)
            }

    def find_prompts(self, clips: Sequence[ClipInfo], stores: Sequence[TextStore]) -> None:
        """Look up the prompts of all clips."""
        for info, store in zip(clips, stores, strict=True):
            prompt = self.said[str(info.path)] = store.prompt(info)
            wrong = self.wrong[str(info.path)] = store.wrong.get(str(info.source), [])
            self.stores.update(dict.fromkeys([prompt, *wrong], store))
        empty = [info for info in clips if not self.said[str(info.path)].strip()]
        if empty:
            raise PromptStoreError(
                f"{len(empty)} of {len(clips)} clips have an empty prompt, the first is "
                f"{empty[0].path}: leave them out, or make negatives with --captions"
            )

    def encode(self, prompts: Sequence[str]) -> TextCondition:
        """What the text encoder said of prompts of the clips."""
        return TextCondition.cat([self.stores[prompt].read(prompt) for prompt in prompts])

    def prompts(self, clips: Sequence[ClipInfo]) -> list[str]:
        """Prompts of some clips."""
        return [self.said[str(info.path)] for info in clips]

    def conditions(self, info: ClipInfo) -> tuple[TextCondition | None, ImageCondition | None]:
        """Prompt and reference image of a clip, one row each; None for what the judge ignores."""
        text = self.encode(self.prompts([info])) if self.reads else None
        return text, self.images[str(info.path)].read(info) if self.sees else None

    def one(self, info: ClipInfo, load: Load, *, prompted: bool = True) -> Load:
        """A clip, or what was made of it, with the clip's image and, if asked, its prompt."""
        seen = self.with_image_of(info, load) if self.sees else load
        if not (self.reads and prompted):
            return seen
        return shown(seen, self.said[str(info.path)], self.encode)

    def with_image_of(self, other: ClipInfo, load: Load) -> Load:
        """A clip, whole or its first frames, with the reference image of a clip of its size."""

        def loaded() -> Tensor | Shown:
            found = load()
            latents = found if isinstance(found, Tensor) else found.latents
            image = self.images[str(other.path)].read(other).first(len(latents))
            return with_image(lambda: found, image)()

        return loaded

    def kept(self, *key: int) -> bool:
        """Whether a draw shows prompts; by the share that the judge goes without."""
        draw = torch.rand((), generator=keyed_generator(self.seed, DROP, *key))
        return draw.item() >= self.dropout

    def pair(self, number: int, first: ClipInfo, second: ClipInfo) -> tuple[Load, Load]:
        """Two clips that are compared: both with their prompts, or both without."""
        prompted = self.kept(number)
        return (
            self.one(first, latents_of(first), prompted=prompted),
            self.one(second, latents_of(second), prompted=prompted),
        )

    def all(self, clips: Sequence[ClipInfo]) -> list[Load]:
        """Clips with their prompts and images."""
        return [self.one(info, latents_of(info)) for info in clips]

    def unprompted(self, clips: Sequence[ClipInfo]) -> list[Load]:
        """Clips with their images, without their prompts."""
        return [self.one(info, latents_of(info), prompted=False) for info in clips]

    def some(self, clips: Sequence[ClipInfo]) -> list[Load]:
        """Clips of which a share goes without their prompts."""
        loads = self.unprompted(clips)
        if not self.reads or not loads:
            return loads
        return shown_or_not(
            loads, self.prompts(clips), self.encode, seed=self.seed, dropout=self.dropout
        )

    def under_wrong_prompts(self, clips: Sequence[ClipInfo]) -> list[Load] | None:
        """Each clip under the prompt of another of them; None if all have the same prompt."""
        prompts = self.prompts(clips)
        if len(set(prompts)) < 2:
            return None
        draw = other_prompt(prompts)
        loads = []
        for index, (info, prompt) in enumerate(zip(clips, prompts, strict=True)):
            said = draw(prompt, keyed_generator(self.seed, SWAP, index))
            loads.append(shown(self.unprompted([info])[0], said, self.encode))
        return loads

    def other_image(
        self, clips: Sequence[ClipInfo], groups: Sequence[str], index: int, draw: int
    ) -> ClipInfo | None:
        """A clip of another group whose image is another one of the same size; None: there is none.

        Args:
            clips: to draw from.
            groups: sources of the clips.
            index: of the clip that gets the image.
            draw: part of the key of the draw.
        """
        own, names = clips[index], self.pictures
        others = [
            other
            for other, group in zip(clips, groups, strict=True)
            if group != groups[index]
            and other.shape == own.shape
            and names[str(other.path)] != names[str(own.path)]
        ]
        if not others:
            return None
        generator = keyed_generator(self.seed, IMAGE_SWAP, index, draw)
        return others[int(torch.randint(len(others), (), generator=generator))]

    def with_wrong_images(self, clips: Sequence[ClipInfo]) -> list[Load] | None:
        """Each clip with the image of another of them; None if one has no other of its size."""
        groups = [str(info.path) for info in clips]
        others = [self.other_image(clips, groups, index, 0) for index in range(len(clips))]
        loads = []
        for info, other in zip(clips, others, strict=True):
            if other is None:
                return None
            load = self.with_image_of(other, latents_of(info))
            loads.append(
                shown(load, self.said[str(info.path)], self.encode) if self.reads else load
            )
        return loads

    def images_swapped(
        self, clips: Sequence[ClipInfo], groups: Sequence[str], draws: int
    ) -> list[Contrast]:
        """Each clip with its own reference image against itself with that of another one.

        Args:
            clips: positives.
            groups: sources of the clips; the image of a negative is of another source.
            draws: wrong images of each clip.

        Raises:
            ImageStoreError: for clips that no other clip of their size has a wrong image for.
        """
        pairs = []
        for index, info in enumerate(clips):
            for draw in range(draws):
                other = self.other_image(clips, groups, index, draw)
                if other is None:
                    raise ImageStoreError(
                        f"no wrong image for {info.path}: no clip of {info.shape} latents from "
                        "another source has another image. Give more clips of this size, or "
                        "`swapped: 0`"
                    )
                negative = self.with_image_of(other, latents_of(info))
                if self.reads:
                    negative = shown(negative, self.said[str(info.path)], self.encode)
                own = (groups[index], groups[index])
                pairs.append(Contrast(self.one(info, latents_of(info)), negative, own))
        return pairs

    def swapped(
        self, clips: Sequence[ClipInfo], groups: Sequence[str], draws: int, source: WrongPrompts
    ) -> list[Contrast]:
        """Each clip under its own prompt against itself under wrong ones.

        Args:
            clips: positives.
            groups: sources of the clips.
            draws: for `others`: wrong prompts of each clip.
            source: `stored` takes each wrong prompt of a clip once.

        Raises:
            PromptStoreError: for `stored`, and clips without stored wrong prompts.
        """
        loads, prompts = self.unprompted(clips), self.prompts(clips)
        if source == "others":
            return swapped(loads, prompts, self.encode, groups=groups, seed=self.seed, draws=draws)
        wrong = [self.wrong[str(info.path)] for info in clips]
        bare = [info for info, texts in zip(clips, wrong, strict=True) if not texts]
        if bare:
            raise PromptStoreError(
                f"{len(bare)} of {len(clips)} clips have no wrong prompts stored, the first is "
                f"{bare[0].path}: encode with --wrong_prompts, or take prompts of other clips "
                "(`wrong_prompts: others`)"
            )
        return [
            Contrast(shown(load, prompt, self.encode), shown(load, said, self.encode), (own, own))
            for load, prompt, texts, own in zip(loads, prompts, wrong, groups, strict=True)
            for said in texts
        ]


def latents_of(info: ClipInfo) -> Load:
    """Loads a clip."""
    return lambda: load_clip(info.path).latents
