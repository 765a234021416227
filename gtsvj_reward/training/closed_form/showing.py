"""How a fit shows clips to its judge: alone, or with the prompts that are stored beside them."""

from collections.abc import Sequence
from typing import Literal

import torch

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.store import ClipInfo, load_clip
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.reward.text_store import PromptStoreError, TextStore, store_in
from gtsvj_reward.training.closed_form.examples import Contrast
from gtsvj_reward.training.closed_form.features import Load
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
        seed: of what is shown without its prompt, and of wrong prompts.

    Raises:
        PromptStoreError: for a judge that reads prompts, and clips that have none stored, an empty
            one, or one that another family's text encoder read.
    """

    def __init__(self, config: JudgeConfig, clips: Sequence[ClipInfo], *, seed: int) -> None:
        self.reads = config.text_input == "prompt"
        self.dropout, self.seed = config.prompt_dropout, seed
        self.stores: dict[str, TextStore] = {}
        """Prompt -> where its text is."""
        self.wrong: dict[str, list[str]] = {}
        """Path of a clip -> stored prompts that are not true of it."""
        self.said: dict[str, str] = {}
        """Path of a clip -> its prompt."""
        if self.reads:
            self.find(config, clips)

    def find(self, config: JudgeConfig, clips: Sequence[ClipInfo]) -> None:
        """Look up the prompts of all clips."""
        found = [(info, store_in(info.path.parent)) for info in clips]
        bare = [info for info, store in found if store is None]
        if bare:
            raise PromptStoreError(
                f"this judge reads prompts (text_input='prompt'), and {len(bare)} of {len(clips)} "
                f"clips have none stored beside them, the first is {bare[0].path}: encode them "
                "with `gtsvj encode --prompts`; generated ones with `gtsvj negatives "
                "--keep_prompts`"
            )
        for info, store in found:
            if store is None:
                continue
            store.require_family(config.family, "this judge is of")
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

    def text(self, info: ClipInfo) -> TextCondition | None:
        """What the encoder said of a clip's prompt, one row; None for a judge that reads none."""
        return self.encode(self.prompts([info])) if self.reads else None

    def one(self, info: ClipInfo, load: Load) -> Load:
        """A clip, or what was made of it, with the clip's prompt."""
        return shown(load, self.said[str(info.path)], self.encode) if self.reads else load

    def kept(self, *key: int) -> bool:
        """Whether a draw shows prompts; by the share that the judge goes without."""
        draw = torch.rand((), generator=keyed_generator(self.seed, DROP, *key))
        return draw.item() >= self.dropout

    def pair(self, number: int, first: ClipInfo, second: ClipInfo) -> tuple[Load, Load]:
        """Two clips that are compared: both with their prompts, or both without."""
        loads = latents_of(first), latents_of(second)
        if not self.kept(number):
            return loads
        return self.one(first, loads[0]), self.one(second, loads[1])

    def all(self, clips: Sequence[ClipInfo]) -> list[Load]:
        """Clips with their prompts."""
        return [self.one(info, latents_of(info)) for info in clips]

    def some(self, clips: Sequence[ClipInfo]) -> list[Load]:
        """Clips of which a share goes without their prompts."""
        loads: list[Load] = [latents_of(info) for info in clips]
        if not self.reads:
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
            loads.append(shown(latents_of(info), said, self.encode))
        return loads

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
        loads, prompts = [latents_of(info) for info in clips], self.prompts(clips)
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
