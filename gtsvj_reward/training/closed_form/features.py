"""Moments of clips, read once and kept on disk.

A clip is known by its content, so that a file that was moved or copied is not read again and one
that was changed is. A folder of features belongs to one way of reading clips: base weights, LoRA,
taps, pooling, stride, timestep and text. Features of another judge that reads alike can be used.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor

from gtsvj_reward.backbones import ImageCondition, TextCondition
from gtsvj_reward.backbones.lora import adapter_state
from gtsvj_reward.files import UnsoundFileError, read_safetensors, write_safetensors
from gtsvj_reward.judge import VideoJudge
from gtsvj_reward.judge.moments import MOMENTS, SMOOTHNESS
from gtsvj_reward.judge.prompt_moments import NOISE_SEED, PROMPT_MOMENTS
from gtsvj_reward.judge.reading import feature_widths
from gtsvj_reward.progress import Progress
from gtsvj_reward.training.processes import failing_together

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """A clip with its prompt, its reference image or both, for a judge that reads them."""

    latents: Float[Tensor, "time channel height width"]
    """Scaled latents."""
    text: TextCondition | None = None
    """What the text encoder said of its prompt, one row; None: no prompt."""
    image: ImageCondition | None = None
    """Its reference image, one row; None: no image."""


Load = Callable[[], Tensor | Shown]
"""Returns the scaled latents (time, channel, height, width) of a clip, possibly with its prompt or
reference image."""

FEATURES = "features"


def content_id(latents: Tensor) -> str:
    """SHA-256 of a clip's values and shape."""
    plain = latents.detach().float().cpu().contiguous()
    digest = hashlib.sha256(str(tuple(plain.shape)).encode())
    digest.update(plain.numpy().tobytes())
    return digest.hexdigest()


def shown_id(shown: Shown) -> str:
    """SHA-256 of a clip, its prompt and its image."""
    text, image = shown.text, shown.image
    parts = [shown.latents]
    if text is not None:
        parts.append(text.embeds)
        parts += [part.float() for part in (text.mask, text.pooled) if part is not None]
    names = [content_id(part) for part in parts]
    if image is not None:
        names += ["image", content_id(image.latents), str(image.factor)]
        names += [] if image.embeds is None else [content_id(image.embeds)]
    return hashlib.sha256(" ".join(names).encode()).hexdigest()


def adapter_id(judge: VideoJudge) -> str:
    """SHA-256 of the weights of a judge's LoRA, and of how it is scaled.

    Raises:
        ValueError: for one that was never trained, and so changes nothing.
    """
    config, state = judge.config, adapter_state(judge.backbone)
    if not any(bool(tensor.any()) for name, tensor in state.items() if "lora_B" in name):
        raise ValueError(
            f"the judge has LoRA of rank {config.lora_rank} that was never trained: set "
            "`lora_rank` to 0, or train it by `gtsvj train-discriminator --readout moments "
            f"--lora_rank {config.lora_rank}`"
        )
    weights = [content_id(state[name]) for name in sorted(state)]
    scale = [config.lora_rank, config.lora_alpha, config.lora_placement]
    return hashlib.sha256(json.dumps([scale, *weights]).encode()).hexdigest()


def reading_id(judge: VideoJudge) -> str:
    """SHA-256 of everything that a judge's moments of a clip depend on."""
    config = judge.config
    text = None if judge.stored_text is None else content_id(judge.stored_text)
    settings: dict[str, Any] = {
        "moments": [list(MOMENTS), SMOOTHNESS],
        "base": config.base_fingerprint,
        "dtype": str(judge.backbone.dtype),
        "taps": list(config.taps or ()),
        "latent_pooling": config.latent_pooling,
        "temporal_stride": config.temporal_stride,
        "timestep": config.timestep,
        "text": [config.text_input, text],
    }
    if config.lora_rank:
        settings["adapter"] = adapter_id(judge)
    if config.noise_levels:
        settings["surprise"] = [[vars(level) for level in config.noise_levels], config.noise_seed]
    if config.prompt_level is not None:
        level = asdict(config.prompt_level)
        settings["prompt"] = [list(PROMPT_MOMENTS), NOISE_SEED, level]
    if config.image_level is not None:
        level = asdict(config.image_level)
        settings["image"] = [list(PROMPT_MOMENTS), NOISE_SEED, level]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


class FeatureCache:
    """Features of clips under a judge that reads moments; computed once per clip.

    Args:
        judge: what reads the clips; on its device.
        folder: where features are kept, in a sub-folder for this way of reading; None keeps them
            in memory alone.
        batch_size: clips of one shape per forward pass.
        spread: each process keeps the features of the clips that it read, and no others.
    """

    def __init__(
        self,
        judge: VideoJudge,
        folder: str | Path | None = None,
        *,
        batch_size: int = 8,
        spread: bool = False,
    ) -> None:
        self.judge = judge
        self.reading = reading_id(judge)
        self.folder = None if folder is None else Path(folder) / self.reading[:16]
        self.batch_size = batch_size
        self.spread = spread
        self.known: dict[str, Tensor] = {}
        self.owners: dict[str, int] = {}
        self.computed = 0
        self.damaged: list[Path] = []
        self.warned: set[str] = set()
        """Warnings of fits to these features, each given once."""

    def read(self, clips: Sequence[Load], what: str) -> list[str]:
        """Compute features that are not cached; under `accelerate launch` in all processes.

        Damaged files of features are written anew, with a warning.

        Args:
            clips: loaded one after the other, never all at once.
            what: they are, for the progress bar and for messages.

        Returns:
            The content of each clip; clips that occur again have the same.

        Raises:
            ValueError: for features that are not finite, naming the clip.
            OSError: if the folder cannot be written, naming the file.
        """
        state = PartialState()
        with failing_together():
            names = self.read_share(clips, what)
        found = list(names.items())
        if state.num_processes > 1:
            found = gather_object(found)
        if not self.spread:
            self.gather(names.values())
        for index, name in sorted(found):
            self.owners.setdefault(name, index % state.num_processes)
        return [name for _, name in sorted(found)]

    def read_share(self, clips: Sequence[Load], what: str) -> dict[int, str]:
        """Read this process's share of some clips; their indices and content."""
        state = PartialState()
        share = range(state.process_index, len(clips), state.num_processes)
        names: dict[int, str] = {}
        waiting: dict[Hashable, dict[str, Tensor | Shown]] = {}
        shown = state.is_local_main_process
        # Clips that occur again are not read again, but that is not known before they are loaded.
        with Progress(len(share), f"read {what}", shown=shown, leave=False, at_most=True) as bar:
            for index in share:
                clip = clips[index]()
                name = content_id(clip) if isinstance(clip, Tensor) else shown_id(clip)
                names[index] = name
                alike = waiting.setdefault(kind_of(clip), {})
                if name in alike or self.find(name) is not None:
                    bar.skip()
                    continue
                alike[name] = clip
                if len(alike) == self.batch_size:
                    self.compute(alike, what)
                    bar.update(len(alike))
                    alike.clear()
            for alike in waiting.values():
                self.compute(alike, what)
                bar.update(len(alike))
        if self.damaged:
            logger.warning(
                "%d damaged files of features were computed again, the first: %s",
                len(self.damaged),
                self.damaged[0],
            )
            self.damaged.clear()
        return names

    def gather(self, own: Iterable[str]) -> None:
        """Share the features of this process with all processes."""
        if PartialState().num_processes > 1:
            rows = gather_object([(name, self.known[name]) for name in own])
            self.known.update(dict(rows))

    def features(self, names: Sequence[str]) -> Float[Tensor, "clip feature"]:
        """Features of clips that were read, float32 on the CPU; all processes ask together."""
        if self.spread:
            self.gather([name for name in dict.fromkeys(names) if name in self.known])
        return torch.stack([self.known[name] for name in names])

    def share(
        self, names: Sequence[str]
    ) -> tuple[Int[Tensor, " own"], Float[Tensor, "own feature"]]:
        """Which of some clips are this process's, each clip one's, and their features."""
        here = PartialState().process_index
        own = [row for row, name in enumerate(names) if self.owners[name] == here]
        width = sum(feature_widths(self.judge.backbone, self.judge.config))
        features = [self.known[names[row]] for row in own]
        stacked = torch.stack(features) if own else torch.empty(0, width)
        return torch.tensor(own, dtype=torch.long), stacked

    def find(self, name: str) -> Tensor | None:
        """Features of a clip that was read before, from memory or disk."""
        if name not in self.known and self.folder is not None:
            file = self.folder / f"{name}.safetensors"
            if file.is_file():
                try:
                    self.known[name] = read_safetensors(file)[0][FEATURES]
                except UnsoundFileError:
                    self.damaged.append(file)
        return self.known.get(name)

    def compute(self, clips: dict[str, Tensor | Shown], what: str) -> None:
        """Read some clips of one kind, and keep their features."""
        if not clips:
            return
        device = next(self.judge.parameters()).device
        latents = [c if isinstance(c, Tensor) else c.latents for c in clips.values()]
        shown = [clip for clip in clips.values() if isinstance(clip, Shown)]
        texts = [clip.text for clip in shown if clip.text is not None]
        images = [clip.image for clip in shown if clip.image is not None]
        text = TextCondition.cat(texts).to(device) if texts else None
        image = ImageCondition.cat(images).to(device) if images else None
        with torch.no_grad():
            moments = self.judge.moments(torch.stack(latents).to(device), text, image)
        features = moments.mean(dim=1).float().cpu()
        for name, row in zip(clips, features, strict=True):
            if not bool(row.isfinite().all()):
                raise ValueError(
                    f"a clip of {what} (content {name[:12]}…) has moments that are not finite: its "
                    "latents, or the base model in its dtype, overflow"
                )
            self.known[name] = row.clone()
            self.computed += 1
            if self.folder is not None:
                write_safetensors(
                    self.folder / f"{name}.safetensors", {FEATURES: row}, {"format": "pt"}
                )


def kind_of(clip: Tensor | Shown) -> Hashable:
    """Key of clips that can share a forward pass."""
    if isinstance(clip, Tensor):
        return tuple(clip.shape)
    text = None if clip.text is None else clip.text.kind
    image = None if clip.image is None else clip.image.kind
    return tuple(clip.latents.shape), text, image
