"""Encoded prompts of a folder of latent clips, stored beside them."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import torch

from gtsvj_reward.annotations.matching import match_videos
from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.files import read_safetensors, write_safetensors, write_text
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.reward.texts import PromptEncoder

FOLDER, INDEX, SUFFIX = "prompts", "prompts.json", ".text"
"""Beside latent files: a folder, which names the prompt of each clip and has a file (safetensors)
for each prompt."""
AT_ONCE = 16


class PromptStoreError(ValueError):
    """Stored prompts that are missing, damaged or do not fit the clips."""


def text_file(prompt: str) -> str:
    """Name of the file of a prompt."""
    return sha256(prompt.encode()).hexdigest()[:16] + SUFFIX


def write_texts(
    latents: str | Path,
    sources: Sequence[str],
    prompts: Mapping[str, str],
    encoder: PromptEncoder,
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
        PromptStoreError: for clips without a prompt, wrong prompts that are the own one or of no
            clip, and prompts of another family in the folder.
        ValueError: for names that match several videos.
    """
    matches = match_videos(sources, prompts, "the prompts")
    missing = [source for source in sources if source not in matches]
    if missing:
        raise PromptStoreError(
            f"{len(missing)} of {len(sources)} clips have no prompt, the first is {missing[0]}: "
            "give the table a row for each (`video,prompt`), or encode those videos elsewhere"
        )
    said = {source: prompts[matches[source]] for source in sources}
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


def write_made(latents: str | Path, encoder: PromptEncoder) -> int:
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
    encoder: PromptEncoder,
    *,
    further: Sequence[str] = (),
) -> int:
    """Write the files of prompts that have none yet, and the index; how many were new."""
    folder = Path(latents) / FOLDER
    if (folder / INDEX).is_file():
        TextStore(folder).require_family(encoder.family, "these are for")
    texts = dict.fromkeys([*said.values(), *(text for row in wrong.values() for text in row)])
    texts.update(dict.fromkeys(further))
    new = [text for text in texts if not (folder / text_file(text)).exists()]
    for first in range(0, len(new), AT_ONCE):
        part = new[first : first + AT_ONCE]
        text = encoder(part)
        for row, prompt in enumerate(part):
            one = text.rows(torch.tensor([row]))
            tensors = {"embeds": one.embeds, "mask": one.mask, "pooled": one.pooled}
            kept = {name: value for name, value in tensors.items() if value is not None}
            write_safetensors(folder / text_file(prompt), kept, {"prompt": prompt})
    index = {"version": 1, "family": encoder.family, "prompts": said, "wrong": wrong}
    write_text(folder / INDEX, json.dumps(index, ensure_ascii=False, indent=1) + "\n")
    return len(new)


def prompt_of_settings(info: ClipInfo) -> str | None:
    """The prompt that a generated clip was made under; None for an encoded video."""
    found = info.settings.get("prompt")
    return found if isinstance(found, str) else None


class TextStore:
    """The prompts that `write_texts` stored.

    Args:
        folder: the folder of prompts.

    Raises:
        PromptStoreError: if the index is missing or invalid.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.text = (self.folder / INDEX).read_text()
            values = json.loads(self.text)
            self.family: str = values["family"]
            self.prompts: dict[str, str] = values["prompts"]
            self.wrong: dict[str, list[str]] = values.get("wrong", {})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PromptStoreError(
                f"{self.folder / INDEX} does not say the prompts of the clips: write it with "
                f"`gtsvj encode --prompts` ({error!r})"
            ) from error

    @property
    def digest(self) -> str:
        """SHA-256 of the index."""
        return sha256(self.text.encode()).hexdigest()

    def require_family(self, family: str | None, what: str) -> None:
        """Reject prompts encoded for another family.

        Args:
            family: class name of a transformer.
            what: is of this family, with its verb, for the message.

        Raises:
            PromptStoreError: naming both families.
        """
        if family != self.family:
            raise PromptStoreError(
                f"{self.folder} holds prompts encoded for a {self.family}, {what} a {family}: "
                "remove the folder and encode again with --text_encoder of that model, or keep "
                "latents of another model elsewhere"
            )

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
                f"{info.path} is of {info.source}, of which {self.folder / INDEX} has no prompt "
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


def store_in(folder: Path) -> TextStore | None:
    """The prompts beside latent files, in this folder or one above; None if there are none."""
    for above in (folder, *folder.parents):
        index = above / FOLDER / INDEX
        if index.is_file():
            return stored(index.parent, index.stat().st_mtime_ns)
    return None


@lru_cache(maxsize=16)
def stored(folder: Path, changed: int) -> TextStore:
    """The prompts of a folder as they were at a time."""
    del changed
    return TextStore(folder)
