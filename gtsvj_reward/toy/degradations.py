"""Faults of video, each with a severity: in the pixels, or in what the scene does.

None of them is one of the five latent perturbations that a discriminator is trained on. A severity
is in 0..1, where 0 changes nothing and 1 is obvious.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gtsvj_reward.toy.world import SHAPES, Frames, Scene, render, with_bodies

PixelFault = Callable[[Frames, float, torch.Generator], Frames]
SceneFault = Callable[[Scene, float, torch.Generator], Scene]


def flicker(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """Each frame's brightness is scaled by its own factor, uniform in 1 ± 0.4 severity."""
    draw = 2 * torch.rand(len(frames), 1, 1, 1, generator=generator) - 1
    return _bytes(frames.float() * (1 + 0.4 * severity * draw))


def jitter(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """Each frame is shifted by its own offset, uniform in ± 5 severity pixels on both axes."""
    offsets = 5 * severity * (2 * torch.rand(len(frames), 2, generator=generator) - 1)
    size = torch.tensor([frames.shape[2], frames.shape[1]])
    move = torch.eye(2).expand(len(frames), -1, -1)
    affine = torch.cat([move, (2 * offsets / size)[..., None]], dim=2)
    image = frames.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(affine, list(image.shape), align_corners=False)
    moved = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
    return _bytes(moved.permute(0, 2, 3, 1))


def ghosting(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """Frames fade into one another: each keeps a share 0.75 severity of what was shown before."""
    del generator
    shown = [frames[0].float()]
    for frame in frames[1:]:
        shown.append((1 - 0.75 * severity) * frame.float() + 0.75 * severity * shown[-1])
    return _bytes(torch.stack(shown))


def stutter(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """A share 0.7 severity of the frames, one at least, shows what was shown before."""
    if severity == 0:
        return frames.clone()
    places = len(frames) - 1
    held = max(1, round(0.7 * severity * places))
    hold = (torch.randperm(places, generator=generator)[:held] + 1).tolist()
    source = list(range(len(frames)))
    for place in sorted(hold):
        source[place] = source[place - 1]
    return frames[source]


def colour_drift(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """Colours turn steadily: at the end the channels are scaled by 1 ± 0.5 severity."""
    direction = torch.randn(3, generator=generator)
    direction = direction - direction.mean()
    direction = direction / direction.abs().max()
    time = torch.linspace(0, 1, len(frames))[:, None, None, None]
    return _bytes(frames.float() * (1 + 0.5 * severity * time * direction))


def blur(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """Gaussian blur of sigma 3 severity pixels, the same in every frame."""
    del generator
    if severity == 0:
        return frames.clone()
    sigma, reach = 3 * severity, math.ceil(9 * severity)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1)
    image = F.pad(frames.permute(0, 3, 1, 2).float(), (reach,) * 4, mode="reflect")
    image = F.conv2d(image, kernel[:, None, :, None], groups=3)
    image = F.conv2d(image, kernel[:, None, None, :], groups=3)
    return _bytes(image.permute(0, 2, 3, 1))


def noise(frames: Frames, severity: float, generator: torch.Generator) -> Frames:
    """Gaussian noise with a standard deviation of 40 severity grey levels, new in every frame."""
    return _bytes(frames.float() + 40 * severity * torch.randn(frames.shape, generator=generator))


def popping(scene: Scene, severity: float, generator: torch.Generator) -> Scene:
    """One body is gone for a share 0.4 severity of the frames, one at least; not at the ends."""
    if severity == 0:
        return scene
    number = int(torch.randint(len(scene.bodies), (), generator=generator))
    length = max(1, round(0.4 * severity * scene.frames))
    start = int(torch.randint(1, scene.frames - length, (), generator=generator))
    opacity = scene.bodies[number].opacity.clone()
    opacity[start : start + length] = 0
    return _replace_body(scene, number, opacity=opacity)


def morphing(scene: Scene, severity: float, generator: torch.Generator) -> Scene:
    """In the middle of the clip one body's outline turns, by `severity`, into another shape's."""
    number = int(torch.randint(len(scene.bodies), (), generator=generator))
    others = [shape for shape in SHAPES if shape != scene.shape]
    other = others[int(torch.randint(len(others), (), generator=generator))]
    ramp = ((torch.arange(scene.frames) / (scene.frames - 1) - 0.25) / 0.5).clamp(0, 1)
    return _replace_body(scene, number, other_shape=other, morph=severity * ramp)


PIXEL_FAULTS: dict[str, PixelFault] = {
    "flicker": flicker,
    "jitter": jitter,
    "ghosting": ghosting,
    "stutter": stutter,
    "colour_drift": colour_drift,
    "blur": blur,
    "noise": noise,
}
"""Name -> fault that any clip can have, a generated one as well."""

SCENE_FAULTS: dict[str, SceneFault] = {"popping": popping, "morphing": morphing}
"""Name -> fault of what the scene does."""

FAULTS: tuple[str, ...] = (*PIXEL_FAULTS, *SCENE_FAULTS)
"""All of them."""


def degraded(scene: Scene, severities: Mapping[str, float], generator: torch.Generator) -> Frames:
    """The clip of a scene with some faults, in the order of `FAULTS`, the scene's own first.

    Args:
        scene: what is shown.
        severities: name of a fault -> severity in 0..1; others are not there.
        generator: draws where and how; the result is deterministic under it.

    Raises:
        ValueError: for an unknown fault or a severity outside 0..1.
    """
    for name, severity in severities.items():
        if name not in FAULTS:
            raise ValueError(f"no fault {name!r}: expected one of {', '.join(FAULTS)}")
        if not 0 <= severity <= 1:
            raise ValueError(f"the severity of {name!r} must lie in 0..1, got {severity}")
    for name, alter in SCENE_FAULTS.items():
        if severities.get(name, 0) > 0:
            scene = alter(scene, severities[name], generator)
    frames = render(scene)
    for name, damage in PIXEL_FAULTS.items():
        if severities.get(name, 0) > 0:
            frames = damage(frames, severities[name], generator)
    return frames


def _replace_body(scene: Scene, number: int, **changes: object) -> Scene:
    bodies = list(scene.bodies)
    bodies[number] = replace(bodies[number], **changes)  # type: ignore[arg-type]
    return with_bodies(scene, tuple(bodies))


def _bytes(frames: Float[Tensor, "time height width 3"]) -> Frames:
    return frames.round().clamp(0, 255).byte()
