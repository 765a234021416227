"""What is stored beside clips, for a judge that reads it: prompts and reference images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.judge import JudgeConfig
from gtsvj_reward.latents.store import ClipInfo
from gtsvj_reward.reward.image_store import ImageStore
from gtsvj_reward.reward.text_store import TextStore


@dataclass(frozen=True)
class Stored:
    """The stores of a folder of clips."""

    texts: TextStore | None = None
    """Prompts; None: the clips are scored without."""
    images: ImageStore | None = None
    """Reference images; None: the judge sees none."""

    @classmethod
    def beside(cls, config: JudgeConfig, folder: Path, *, under_prompts: bool = True) -> "Stored":
        """What a judge reads of what is stored beside latent files.

        Args:
            config: the judge's.
            folder: of the latent files.
            under_prompts: False leaves prompts out, if the judge takes clips without.

        Raises:
            StoreError: if something that the judge needs is not stored, and if another family's
                pipeline encoded it.
        """
        texts = images = None
        if config.text_input == "prompt" and (under_prompts or not config.prompt_dropout):
            optional = config.prompt_dropout > 0 and TextStore.beside(folder) is None
            texts = None if optional else TextStore.of_folder(folder, config.family)
        if config.image_input == "image":
            images = ImageStore.of_folder(folder, config.family)
        return cls(texts, images)

    def text(self, infos: Sequence[ClipInfo]) -> TextCondition | None:
        """What the text encoder said of the prompts of clips, one row each."""
        return None if self.texts is None else self.texts.text_of(infos)

    def image(self, infos: Sequence[ClipInfo]) -> ImageCondition | None:
        """What is fed of the reference images of clips, one row each."""
        return None if self.images is None else self.images.image_of(infos)

    def prompt(self, info: ClipInfo) -> str | None:
        """The prompt that a clip is scored under."""
        return None if self.texts is None else self.texts.prompt(info)

    def digests(self) -> dict[str, str]:
        """Kind -> hash of what the index says."""
        return {
            store.kind: store.digest for store in (self.texts, self.images) if store is not None
        }
