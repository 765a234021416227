"""Features of clips on disk: what leaves the frozen blocks below the first adapter.

A clip that training shows again, whole and unperturbed, leaves those blocks the same every time.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from gtsvj_reward.backbones import Features
from gtsvj_reward.backbones.lora import frozen_blocks
from gtsvj_reward.judge import JudgeOutput, VideoJudge, judge_clips
from gtsvj_reward.judge.batching import in_batches
from gtsvj_reward.latents.files import read_safetensors, write_safetensors, write_text
from gtsvj_reward.latents.store import ClipInfo, unique_clips

Example = TypeVar("Example")

KEY_FILE = "key.json"


@dataclass(frozen=True)
class ClipFeatures:
    """What a trainer knows of a clip beside its latents."""

    key: str | None = None
    """Its name in the folder; None for a clip that is cut, perturbed, or not to be kept."""
    tensors: Features | None = None
    """What is stored of it, without the batch axis; None if there is nothing yet."""


@dataclass(frozen=True)
class FeatureFolder:
    """Features of clips for one judge's frozen blocks, a safetensors file for each clip.

    Files are named by the content of the latents, so that renamed clips are found and changed ones
    are not. Make one with `feature_folder`.

    Attributes:
        path: the folder.
        frozen: blocks whose output is kept.
    """

    path: Path
    frozen: int

    def file(self, key: str) -> Path:
        """Where the features of a clip are."""
        return self.path / f"{key}.safetensors"

    def of(self, latents: Tensor) -> ClipFeatures:
        """Key and stored features of a clip (time, channel, height, width).

        Raises:
            UnsoundFileError: if its file is damaged.
        """
        key = content_key(latents)
        if not self.file(key).exists():
            return ClipFeatures(key)
        tensors, _ = read_safetensors(self.file(key))
        return ClipFeatures(key, tuple(tensors[name] for name in sorted(tensors)))

    def keep(self, key: str, tensors: Features) -> None:
        """Store the features of a clip, in one step."""
        named = {f"stream_{index}": tensor for index, tensor in enumerate(tensors)}
        write_safetensors(self.file(key), named, {})

    def judge(
        self,
        judge: VideoJudge,
        clips: Sequence[Tensor],
        known: Sequence[ClipFeatures],
    ) -> list[JudgeOutput]:
        """What the judge says of each clip, by its features where they are stored.

        Features of clips that have a key and nothing stored are stored. Scores equal those without
        a folder up to rounding: clips are batched in other companies.

        Args:
            judge: the one that the folder was made for.
            clips: latents (time, channel, height, width).
            known: of each clip.
        """

        def call(batch: Tensor, chosen: list[int]) -> JudgeOutput:
            rows = [known[index] for index in chosen]
            given = stacked(rows, batch.device)
            with judge.backbone.at_boundary(self.frozen, given) as boundary:
                output: JudgeOutput = judge(batch)
            for place, row in enumerate(rows):
                if given is None and row.key is not None:
                    self.keep(row.key, tuple(stream[place] for stream in boundary.seen))
            return output

        return in_batches(clips, call, kinds=[item.tensors is not None for item in known])


def stacked(rows: Sequence[ClipFeatures], device: torch.device) -> Features | None:
    """What is stored of clips, with a batch axis; None if nothing is."""
    streams = [row.tensors for row in rows if row.tensors is not None]
    if not streams:
        return None
    return tuple(torch.stack(stream).to(device) for stream in zip(*streams, strict=True))


def judge_with(
    folder: FeatureFolder | None,
    judge: VideoJudge,
    clips: Sequence[Tensor],
    known: Sequence[ClipFeatures],
) -> list[JudgeOutput]:
    """`judge_clips`, by way of a folder of features if there is one."""
    if folder is None:
        return judge_clips(judge, clips)
    return folder.judge(judge, clips, known)


class ClipDataset(Dataset[Example]):
    """Examples that may come with the features of their clips.

    Attributes:
        features: where these are; None if none are kept.
    """

    features: FeatureFolder | None = None

    def known(self, latents: Tensor, whole: bool) -> ClipFeatures:
        """What is known of a clip: nothing of one that is cut or perturbed."""
        return self.features.of(latents) if self.features and whole else ClipFeatures()


def feature_folder(root: Path, judge: VideoJudge, autocast: torch.dtype | None) -> FeatureFolder:
    """The folder below a root for the features of a judge, made if it is not there.

    Judges share one if all agree that changes what leaves their frozen blocks: base weights,
    number of these blocks, timestep, text, what is seen of a clip, precision, diffusers' version.

    Args:
        root: folder for all of them.
        judge: whose blocks below the first adapter are meant.
        autocast: the dtype of an autocast region that it runs in.

    Raises:
        ValueError: if no block is frozen, or one that is draws random numbers (dropout).
    """
    frozen = frozen_blocks(judge.backbone)
    config = judge.config
    if frozen == 0:
        raise ValueError(
            f"`feature_cache` is of no use with `lora_placement={config.lora_placement!r}`: the "
            "first block has an adapter, so there is nothing frozen whose output could be kept"
        )
    dropout = [
        name
        for name, module in judge.backbone.named_modules()
        if isinstance(module, torch.nn.Dropout) and module.p > 0 and ".lora_" not in name
    ]
    if dropout:
        raise ValueError(
            f"`feature_cache` needs blocks that say the same every time, {dropout[0]} of the base "
            "model is a dropout: train without the cache, or without the dropout"
        )
    text = judge.stored_text
    key = {
        "diffusers": version("diffusers"),
        "base": config.base_fingerprint,
        "blocks": frozen,
        "timestep": config.timestep,
        "text": config.text_input if text is None else content_key(text.float().cpu()),
        "text_tokens": config.text_tokens,
        "latent_pooling": config.latent_pooling,
        "temporal_stride": config.temporal_stride,
        "weights": config.base_dtype,
        "autocast": str(autocast),
    }
    content = json.dumps(key, indent=2, sort_keys=True)
    path = root / hashlib.sha256(content.encode()).hexdigest()[:16]
    write_text(path / KEY_FILE, content + "\n")
    return FeatureFolder(path, frozen)


def content_key(tensor: Tensor) -> str:
    """A name for the content of a tensor: dtype, shape and values; 32 hexadecimal digits."""
    digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=16)
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class DiskCost:
    """What a folder of features would take.

    Attributes:
        clips: number of clips that can be seen whole.
        bytes: of the features of all of them.
        latents: bytes of their latents, for comparison.
        free: bytes that are free where the folder is, counting as free what it holds already.
    """

    clips: int
    bytes: int
    latents: int
    free: int

    def __str__(self) -> str:
        return (
            f"features of up to {self.clips:,} clips take {size(self.bytes)} "
            f"({self.bytes / self.latents:.0f} times their latents), {size(self.free)} are free"
        )


def size(count: int) -> str:
    """Bytes in MB, or in GB from a tenth of one."""
    return f"{count / 1e9:,.2f} GB" if count >= 1e8 else f"{count / 1e6:,.2f} MB"


def disk_cost(folder: FeatureFolder, judge: VideoJudge, infos: Sequence[ClipInfo]) -> DiskCost:
    """Measure what the features of clips would take, by one pass over zeros of each shape.

    Args:
        folder: where they would go.
        judge: the judge, in evaluation mode, where it is to run.
        infos: clips, each file counted once.

    Raises:
        ValueError: if that is more than there is room for.
    """
    shapes = [info.shape for info in unique_clips(infos)]
    sizes = {shape: feature_bytes(folder, judge, shape) for shape in set(shapes)}
    held = sum(file.stat().st_size for file in folder.path.glob("*.safetensors"))
    cost = DiskCost(
        len(shapes),
        sum(sizes[shape] for shape in shapes),
        sum(4 * torch.Size(shape).numel() for shape in shapes),
        shutil.disk_usage(folder.path).free + held,
    )
    if cost.bytes > cost.free:
        raise ValueError(
            f"`feature_cache`: {cost} at {folder.path}: choose a larger disk, fewer clips, or "
            "leave it out"
        )
    return cost


def feature_bytes(
    folder: FeatureFolder, judge: VideoJudge, shape: tuple[int, int, int, int]
) -> int:
    """Bytes of the features of one clip (time, channel, height, width)."""
    device = next(judge.parameters()).device
    with torch.no_grad(), judge.backbone.at_boundary(folder.frozen) as boundary:
        judge(torch.zeros(1, *shape, device=device))
    return sum(stream.numel() * stream.element_size() for stream in boundary.seen)
