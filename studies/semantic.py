"""Faults that low-level statistics hardly show: events that the world's laws forbid.

Each frame of such a clip is a frame of a clean clip, and so is, nearly, each pair of neighbours.
What is wrong is the order of events, or where gravity points. A bouncing body keeps its speed, so
that its clip played backwards is a clean one; a falling one loses speed at the floor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from gtsvj_reward.latents import LatentSpace
from gtsvj_reward.random_keys import keyed_generator
from gtsvj_reward.toy.corpus import encode_frames, save_latents
from gtsvj_reward.toy.world import (
    FRAMES,
    SIZE,
    Body,
    Frames,
    Scene,
    captions,
    draw_scene,
    render,
    with_bodies,
)

BATCH = 16
TURNS = range(FRAMES // 2, FRAMES - 4)
"""Frames at which a body may turn around so that its whole way back was visible before."""


@dataclass(frozen=True)
class Kind:
    """A fault of the clips of one motion."""

    motion: str
    """Last word of the captions of its scenes."""
    frames: Callable[[Scene], Frames]
    """The clip with the fault."""


def reversed_in_time(scene: Scene) -> Frames:
    """Played backwards: bodies bounce higher than they fell, and slow down as they rise."""
    return render(scene).flip(0)


def upside_down(scene: Scene) -> Frames:
    """Bodies fall up."""
    return render(scene).flip(1)


def turned_in_the_air(scene: Scene) -> Frames:
    """Bodies turn around far from any wall, and go back on their own tracks."""
    return render(with_bodies(scene, tuple(turned(body) for body in scene.bodies)))


def turned(body: Body) -> Body:
    """A body that goes back from where it is farthest from the walls."""
    room = torch.minimum(body.track, SIZE - body.track).amin(dim=1)
    turn = max(TURNS, key=lambda frame: float(room[frame]))
    time = torch.arange(len(body.track))
    return replace(body, track=body.track[torch.where(time > turn, 2 * turn - time, time)])


KINDS = {
    "reversal": Kind("falling", reversed_in_time),
    "upwards": Kind("falling", upside_down),
    "wall": Kind("bouncing", turned_in_the_air),
}


def scene_of(motion: str, key: int, index: int) -> Scene:
    """A scene of a motion; count, colour and shape are drawn."""
    known = [text for text in captions() if text.endswith(motion)]
    number = int(torch.randint(len(known), (), generator=keyed_generator(key, index, 1)))
    return draw_scene(key, index, frames=FRAMES, text=known[number])


def clip_name(part: str, motion: str, index: int, kind: str = "clean") -> str:
    """Name of a clip; `part` is `pool` or `test`."""
    return f"{part}-{motion}-{index:04d}-{kind}"


def clip_names(part: str, kind: str, motion: str, numbers: Sequence[int]) -> list[str]:
    """Names of some clips of a fault, or clean ones."""
    return [clip_name(part, motion, number, kind) for number in numbers]


def build_semantic(out: Path, sizes: dict[str, int], vae: Any) -> None:
    """Write whatever is missing of the clips: each scene clean, and with each of its faults."""
    space = LatentSpace.from_vae(vae)
    wanted: dict[Path, tuple[str, int, int, str]] = {}
    for part, key in (("pool", 51), ("test", 52)):
        for motion in dict.fromkeys(kind.motion for kind in KINDS.values()):
            kinds = ["clean", *(name for name, kind in KINDS.items() if kind.motion == motion)]
            for index in range(sizes[part]):
                for kind in kinds:
                    path = out / f"{clip_name(part, motion, index, kind)}.safetensors"
                    if not path.exists():
                        wanted[path] = (motion, key, index, kind)
    rows = list(wanted.items())
    for first in tqdm(range(0, len(rows), BATCH), f"encode {out.name}", leave=False):
        some = rows[first : first + BATCH]
        frames = torch.stack([drawn(*what) for _, what in some])
        latents = encode_frames(frames, vae, space, bfloat16=True)
        for (path, (motion, key, index, kind)), clip in zip(some, latents, strict=True):
            save_latents(path, clip, space, FRAMES, {"scene": [motion, key, index], "fault": kind})


def drawn(motion: str, key: int, index: int, kind: str) -> Tensor:
    """Pixels of a clip."""
    scene = scene_of(motion, key, index)
    return render(scene) if kind == "clean" else KINDS[kind].frames(scene)
