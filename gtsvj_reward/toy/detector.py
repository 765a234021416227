"""A small network that reads a clip's caption back: the world's own measure of generated clips.

It was trained on rendered clips, without a judge, a generator or the codec, so it is independent of
the reward that a generator is trained on. It reads frames averaged to half the resolution, where
the codec's blur is hardly visible.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gtsvj_reward.assets import folder_of
from gtsvj_reward.toy.world import COLOURS, COUNTS, MOTIONS, SHAPES, caption

WIDTH = 64
"""Features of a clip, before the last layers."""

CLASSES: dict[str, tuple[Any, ...]] = {
    "count": tuple(COUNTS),
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "motion": MOTIONS,
}
"""Attribute -> its values, in the order of the network's outputs."""


@dataclass(frozen=True)
class Detection:
    """Content of a clip."""

    count: int
    colour: str
    shape: str
    motion: str

    @property
    def caption(self) -> str:
        """In the words of the world."""
        return caption(self.count, self.colour, self.shape, self.motion)  # type: ignore[arg-type]


class Detector(nn.Module):
    """Four classifications of a clip from one set of features."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 16, 32, 48, WIDTH)
        strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 1, 1))
        self.layers = nn.ModuleList(
            nn.Conv3d(channels[i], channels[i + 1], 3, stride=strides[i], padding=1)
            for i in range(4)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in channels[1:])
        # Mean and maximum over space and time: the maximum detects small objects.
        self.mix = nn.Linear(2 * WIDTH, WIDTH)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTH, len(values)) for name, values in CLASSES.items()}
        )

    def features(
        self, frames: UInt8[Tensor, "clip time height width 3"]
    ) -> Float[Tensor, "clip feature"]:
        """Features before the classifiers; for Fréchet distances."""
        x = frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        x = F.avg_pool3d(x, (1, 2, 2))
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        pooled = torch.cat([x.mean(dim=(2, 3, 4)), x.amax(dim=(2, 3, 4))], dim=1)
        mixed: Tensor = F.silu(self.mix(pooled))
        return mixed

    def forward(
        self, frames: UInt8[Tensor, "clip time height width 3"]
    ) -> dict[str, Float[Tensor, "clip value"]]:
        """Logits per attribute."""
        features = self.features(frames)
        return {name: head(features) for name, head in self.heads.items()}


def load_detector(source: str | Path = "gtsvj-toy-detector") -> Detector:
    """A trained detector from a bundled name or a folder.

    Raises:
        ValueError: if the folder holds another network.
    """
    folder = Path(folder_of(source))
    kind = json.loads((folder / "config.json").read_text()).get("_class_name")
    if kind != "Detector":
        raise ValueError(f"{folder} holds a {kind}, expected the toy world's Detector")
    detector = Detector()
    detector.load_state_dict(load_file(folder / "model.safetensors"))
    return detector.float().requires_grad_(False).eval()


def detect(
    detector: Detector, frames: UInt8[Tensor, "clip time height width 3"]
) -> list[Detection]:
    """The most likely attributes of each clip."""
    with torch.no_grad():
        logits = detector(frames)
    best = {name: logits[name].argmax(dim=1).tolist() for name in CLASSES}
    return [
        Detection(**{name: values[best[name][index]] for name, values in CLASSES.items()})
        for index in range(len(frames))
    ]


def caption_log_probability(
    detector: Detector,
    frames: UInt8[Tensor, "clip time height width 3"],
    wanted: Sequence[str],
) -> Float[Tensor, " clip"]:
    """How likely the detector finds each clip's caption, in nats: 0 at best.

    Unlike `agreement` it moves before the most likely attribute changes.

    Args:
        detector: a trained one.
        frames: of the clips.
        wanted: one caption per clip, in the world's words.

    Raises:
        ValueError: for another number of captions, or one of other words.
    """
    if len(frames) != len(wanted):
        raise ValueError(f"{len(frames)} clips for {len(wanted)} captions")
    indices = {text: classes_of(text) for text in dict.fromkeys(wanted)}
    with torch.no_grad():
        logits = detector(frames)
    total = torch.zeros(len(frames))
    for name in CLASSES:
        place = torch.tensor([indices[text][name] for text in wanted])
        chances = logits[name].float().cpu().log_softmax(dim=1)
        total += chances.gather(1, place[:, None]).squeeze(1)
    return total


def classes_of(text: str) -> dict[str, int]:
    """Attribute -> index of its value in `CLASSES`, of a caption.

    Raises:
        ValueError: for a text that is not a caption of this world.
    """
    for values in itertools.product(*CLASSES.values()):
        if Detection(**dict(zip(CLASSES, values, strict=True))).caption == text:
            return {name: CLASSES[name].index(v) for name, v in zip(CLASSES, values, strict=True)}
    raise ValueError(f"{text!r} is not a caption of the toy world: see `captions()`")
