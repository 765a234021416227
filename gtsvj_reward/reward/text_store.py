"""Encoded prompts of a folder of latent clips, stored beside them."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.files import read_safetensors, write_safetensors, write_text
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.progress import Progress
from gtsvj_reward.reward.store import ConditionStore, StoreError

SUFFIX = ".text"
"""Of the file (safetensors) of a prompt."""
AT_ONCE = 16


@runtime_checkable
class TextEncoder(Protocol):
    """A text encoder, such as a `PromptEncoder`."""

    @property
    def family(self) -> str:
        """Class name of the transformer that it is for."""

    def __call__(self, prompts: Sequence[str], /) -> TextCondition:
        """Embeddings of prompts, one row each."""


class PromptStoreError(StoreError):
    """Stored prompts that are missing, damaged or do not fit the clips."""


def text_file(prompt: str) -> str:
    """Name of the file of a prompt."""
    return sha256(prompt.encode()).hexdigest()[:16] + SUFFIX


def write_texts(
    latents: str | Path,
    sources: Sequence[str],
    prompts: Mapping[str, str],
    encoder: TextEncoder,
    *,
    wrong: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """Encode the prompts of clips and store them beside the latents.

    Args:
        latents: folder of latent files.
        sources: of its clips.
        prompts: video -> prompt; names match as those of label files do.
        encoder: that of the generator.
        wrong: video -> wrong prompts, for training.

    Returns:
        Number of newly encoded prompts; existing ones are not encoded again.

    Raises:
        PromptStoreError: for clips without a prompt, wrong prompts that are the clip's own or of
            no clip, and prompts of another family in the folder.
        ValueError: for names that match several videos.
    """
    said = TextStore.matched(sources, prompts)
    return write_index(latents, said, wrong_by_source(sources, said, wrong or {}), encoder)


def wrong_by_source(
    sources: Sequence[str], said: Mapping[str, str], wrong: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Source -> its wrong prompts.

    Raises:
        PromptStoreError: for videos that are no source, and a prompt that is the clip's own.
    """
    matches = match_videos(sources, wrong, "the wrong prompts")
    unknown = sorted(set(wrong) - set(matches.values()))
    if unknown:
        raise PromptStoreError(
            f"{len(unknown)} of {len(wrong)} videos with wrong prompts have no latents here, the "
            f"first is {unknown[0]}: encode it, or leave its rows out"
        )
    found = {source: list(wrong[name]) for source, name in matches.items()}
    own = [source for source, prompts in found.items() if said[source] in prompts]
    if own:
        raise PromptStoreError(
            f"{len(own)} of {len(found)} clips have their own prompt among the wrong ones, the "
            f"first is {own[0]}, {said[own[0]]!r}: leave such rows out"
        )
    return found


def write_made(latents: str | Path, encoder: TextEncoder) -> int:
    """Encode the prompts in the settings of generated clips and store them beside the latents.

    Args:
        latents: folder of latent files, as `gtsvj negatives` writes them.
        encoder: that of the generator.

    Returns:
        Number of newly encoded prompts; existing ones are not encoded again.
    """
    made = sorted({prompt_of_settings(info) or "" for info in LatentFolder(latents).infos} - {""})
    return write_index(latents, {}, {}, encoder, further=made)


def write_index(
    latents: str | Path,
    said: Mapping[str, str],
    wrong: Mapping[str, Sequence[str]],
    encoder: TextEncoder,
    *,
    further: Sequence[str] = (),
) -> int:
    """Write the files of prompts that have none yet, and the index; how many were new."""
    folder = Path(latents) / TextStore.kind
    index = folder / TextStore.index_name()
    if index.is_file():
        TextStore(folder).require_family(encoder.family, "these are for")
    texts = dict.fromkeys([*said.values(), *(text for row in wrong.values() for text in row)])
    texts.update(dict.fromkeys(further))
    # First: what a run leaves that was stopped is of this family too.
    says = {"version": 1, "family": encoder.family, "prompts": said, "wrong": wrong}
    write_text(index, json.dumps(says, ensure_ascii=False, indent=1) + "\n")
    new = [text for text in texts if not (folder / text_file(text)).exists()]
    with Progress(len(new), "encode prompts", shown=bool(new)) as bar:
        for first in range(0, len(new), AT_ONCE):
            part = new[first : first + AT_ONCE]
            text = encoder(part)
            for row, prompt in enumerate(part):
                one = text.rows(torch.tensor([row]))
                tensors = {"embeds": one.embeds, "mask": one.mask, "pooled": one.pooled}
                kept = {name: value for name, value in tensors.items() if value is not None}
                write_safetensors(folder / text_file(prompt), kept, {"prompt": prompt})
            bar.update(len(part))
    return len(new)


def prompt_of_settings(info: ClipInfo) -> str | None:
    """The prompt that a generated clip was made under; None for an encoded video."""
    found = info.settings.get("prompt")
    return found if isinstance(found, str) else None


class TextStore(ConditionStore):
    """The prompts that `write_texts` stored."""

    kind = "prompts"
    reader = "reads prompts (text_input='prompt')"
    cure = (
        "encode them with `gtsvj encode --prompts`; generated ones with `gtsvj negatives "
        "--keep_prompts`"
    )
    flag = "--prompts"
    encoder_flag = "--text_encoder"
    error = PromptStoreError

    def read_index(self, values: Mapping[str, Any]) -> None:
        """See `ConditionStore.read_index`."""
        self.prompts: dict[str, str] = values["prompts"]
        self.wrong: dict[str, list[str]] = values.get("wrong", {})

    def prompt(self, info: ClipInfo) -> str:
        """The prompt of a clip: that of its generation, else the one in the index.

        Raises:
            PromptStoreError: if the clip has none.
        """
        made = prompt_of_settings(info)
        if made is not None:
            return made
        if info.source not in self.prompts:
            raise PromptStoreError(
                f"{info.path} is of {info.source}, of which {self.index} has no prompt "
                f"({len(self.prompts)} others): encode again with a table that names it"
            )
        return self.prompts[str(info.source)]

    def text_of(self, infos: Sequence[ClipInfo]) -> TextCondition:
        """The encoded prompts of clips, one row each.

        Raises:
            PromptStoreError: for a clip without a prompt, and a file that is not of its prompt.
        """
        return TextCondition.cat([self.read(self.prompt(info)) for info in infos])

    def read(self, prompt: str) -> TextCondition:
        """An encoded prompt."""
        file = self.folder / text_file(prompt)
        if not file.is_file():
            raise PromptStoreError(f"no {file}, which is of the prompt {prompt!r}: encode again")
        tensors, metadata = read_safetensors(file)
        if metadata.get("prompt") != prompt or "embeds" not in tensors:
            raise PromptStoreError(f"{file} is not of the prompt {prompt!r}: encode again")
        mask, pooled = tensors.get("mask"), tensors.get("pooled")
        return TextCondition(tensors["embeds"], mask, pooled, self.family)
