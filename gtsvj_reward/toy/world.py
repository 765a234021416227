"""The small video world: plain shapes that move over soft, panning backgrounds.

A seed gives a scene, and a scene gives a clip and a caption that is true of it. The world is small
enough for two CPU cores to learn to generate, and has what a temporal judge needs: objects that
persist, move by simple laws and occlude one another.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from gtsvj_reward.random_keys import keyed_generator

Shape = Literal["square", "circle", "triangle"]
Motion = Literal["drifting", "bouncing", "falling", "orbiting"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
MOTIONS: tuple[Motion, ...] = get_args(Motion)
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.14),
    "green": (0.16, 0.68, 0.22),
    "blue": (0.15, 0.30, 0.88),
    "yellow": (0.95, 0.84, 0.15),
}
"""Colour word -> RGB in 0..1; a body's brightness varies by 10% around it."""
COUNTS = {1: "one", 2: "two"}

SIZE = 64
"""Height and width of a frame in pixels."""
FRAMES = 17
"""Frames of a clip: 5 latent frames under a causal VAE that compresses time fourfold."""
FPS = 8.0
GRAVITY = 0.5
"""Pixels per frame, per frame."""

Frames = UInt8[Tensor, "time height width 3"]
Track = Float[Tensor, "time 2"]


@dataclass(frozen=True, kw_only=True)
class Body:
    """One moving shape; its track has its position in each frame."""

    shape: Shape
    colour: tuple[float, float, float]
    """RGB in 0..1."""
    radius: float
    """Pixels from the centre to the corners (circle: to the edge)."""
    track: Track
    """Centre (x, y) in pixels, y downwards, per frame."""
    angle: Float[Tensor, " time"]
    """Radians per frame."""
    opacity: Float[Tensor, " time"]
    """1 if it is visible, 0 if not."""
    other_shape: Shape
    """The shape it turns into if `morph` is above 0."""
    morph: Float[Tensor, " time"]
    """0: `shape`; 1: `other_shape`; in between the outline is in between."""


@dataclass(frozen=True, kw_only=True)
class Background:
    """A linear gradient between two muted colours with a faint wave, panned by the camera."""

    colours: Float[Tensor, "2 3"]
    direction: float
    """Of the gradient, in radians."""
    wave: tuple[float, float, float]
    """Amplitude in 0..1, wave length in pixels, direction in radians."""
    pan: tuple[float, float]
    """Camera motion (x, y) in pixels per frame."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Content of a clip. `caption` holds for the undamaged scene."""

    count: int
    colour: str
    shape: Shape
    motion: Motion
    bodies: tuple[Body, ...]
    """Later ones hide earlier ones."""
    background: Background

    @property
    def caption(self) -> str:
        """For example "two red squares bouncing"."""
        return caption(self.count, self.colour, self.shape, self.motion)

    @property
    def frames(self) -> int:
        """Length of the clip."""
        return len(self.bodies[0].track)


def caption(count: int, colour: str, shape: Shape, motion: Motion) -> str:
    """The words for a combination of attributes."""
    return f"{COUNTS[count]} {colour} {shape}{'s' if count > 1 else ''} {motion}"


def captions() -> list[str]:
    """All captions that the world has, 96 of them."""
    return [
        caption(count, colour, shape, motion)
        for count in COUNTS
        for colour in COLOURS
        for shape in SHAPES
        for motion in MOTIONS
    ]


def draw_scene(*key: int, frames: int = FRAMES, text: str | None = None) -> Scene:
    """The scene of a key: the same key, the same scene.

    Args:
        *key: whole numbers, for example (seed, index).
        frames: length of the clip.
        text: a caption that the scene shall have; by default all are equally likely.

    Raises:
        ValueError: for a caption that the world does not have.
    """
    generator = keyed_generator(*key)
    known = captions()
    if text is not None and text not in known:
        raise ValueError(
            f"the world has no caption {text!r}; captions are like {known[0]!r} or {known[-1]!r}"
        )
    number = int(torch.randint(len(known), (), generator=generator))
    words = (known[number] if text is None else text).split()
    count = next(number for number, word in COUNTS.items() if word == words[0])
    shape = next(shape for shape in SHAPES if words[2].startswith(shape))
    motion = next(motion for motion in MOTIONS if motion == words[3])
    radii = [_uniform(generator, 11.0, 14.0) for _ in range(count)]
    tracks = _tracks(motion, radii, frames, generator)
    bodies = tuple(
        _body(shape, words[1], radius, track, generator)
        for radius, track in zip(radii, tracks, strict=True)
    )
    return Scene(
        count=count,
        colour=words[1],
        shape=shape,
        motion=motion,
        bodies=bodies,
        background=_background(generator),
    )


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _body(
    shape: Shape, colour: str, radius: float, track: Track, generator: torch.Generator
) -> Body:
    """A body with its own brightness and a slow turn."""
    gain = _uniform(generator, 0.9, 1.1)
    red, green, blue = (min(1.0, value * gain) for value in COLOURS[colour])
    start, turn = _uniform(generator, 0.0, 2 * math.pi), _uniform(generator, -0.12, 0.12)
    still = torch.zeros(len(track))
    return Body(
        shape=shape,
        colour=(red, green, blue),
        radius=radius,
        track=track,
        angle=start + turn * torch.arange(len(track)),
        opacity=still + 1,
        other_shape=shape,
        morph=still,
    )


def _background(generator: torch.Generator) -> Background:
    """Muted colours of one hue family, a faint wave, a slow pan."""
    level, spread = _uniform(generator, 0.35, 0.6), _uniform(generator, 0.05, 0.2)
    tint = 0.06 * (2 * torch.rand(3, generator=generator) - 1)
    colours = torch.stack([level - spread + tint, level + spread + tint])
    direction = _uniform(generator, 0.0, 2 * math.pi)
    wave = (
        _uniform(generator, 0.01, 0.04),
        _uniform(generator, 24.0, 40.0),
        _uniform(generator, 0.0, 2 * math.pi),
    )
    heading, speed = _uniform(generator, 0.0, 2 * math.pi), _uniform(generator, 0.0, 0.8)
    pan = (speed * math.cos(heading), speed * math.sin(heading))
    return Background(colours=colours, direction=direction, wave=wave, pan=pan)


def _tracks(
    motion: Motion, radii: list[float], frames: int, generator: torch.Generator
) -> list[Track]:
    """One track per body; bodies start apart, and keep their distance on the way if they can."""
    best, widest = [], -1.0
    for _ in range(8):
        tracks = [_track(motion, radius, frames, generator) for radius in radii]
        if len(tracks) == 1:
            return tracks
        gap = (tracks[0] - tracks[1]).norm(dim=1)
        # The start counts most: two bodies that start as one blob are one body to the eye.
        room = gap[0].item() + 0.5 * gap.min().item()
        if room > widest:
            best, widest = tracks, room
    return best


def _track(motion: Motion, radius: float, frames: int, generator: torch.Generator) -> Track:
    """A path inside the frame by the law of a motion."""
    low, high = radius, SIZE - radius
    time = torch.arange(float(frames))
    if motion == "orbiting":
        reach = _uniform(generator, 9.0, 14.0)
        centre = torch.tensor([_uniform(generator, low + 6, high - 6) for _ in range(2)])
        sense = 1.0 if _uniform(generator, -1.0, 1.0) > 0 else -1.0
        phase = _uniform(generator, 0.0, 2 * math.pi) + sense * 2 * math.pi * time / 20
        path = centre + reach * torch.stack([phase.cos(), phase.sin()], 1)
        return path.clamp(low, high)
    if motion == "falling":
        return _fall(low, high, frames, generator)
    start = torch.tensor([_uniform(generator, low, high) for _ in range(2)])
    if motion == "drifting":  # head for the inside, so that it need not turn
        rate, heading = _uniform(generator, 0.6, 1.2), _uniform(generator, 0.0, math.pi / 2)
        velocity = rate * torch.tensor([math.cos(heading), math.sin(heading)])
        velocity = velocity * torch.where(start < SIZE / 2, 1.0, -1.0)
    else:  # mostly along one axis, fast enough to meet a wall on it
        rate = _uniform(generator, 3.25, 4.25)
        quarter = int(torch.randint(4, (), generator=generator))
        heading = math.pi / 2 * quarter + _uniform(generator, -0.6, 0.6)
        velocity = rate * torch.tensor([math.cos(heading), math.sin(heading)])
    return _reflect(start + velocity * time[:, None], low, high)


def _reflect(path: Track, low: float, high: float) -> Track:
    """A straight path folded back at the walls."""
    span = high - low
    folded = (path - low).remainder(2 * span)
    return low + torch.where(folded > span, 2 * span - folded, folded)


def _fall(low: float, high: float, frames: int, generator: torch.Generator) -> Track:
    """Down from the upper part with gravity, bouncing on the floor, drifting sideways a little."""
    x, y = _uniform(generator, low, high), _uniform(generator, low, low + 12)
    across, down = _uniform(generator, -0.8, 0.8), 0.0
    rows = []
    for _ in range(frames):
        rows.append([x, y])
        down += GRAVITY
        x, y = x + across, y + down
        if y > high:
            y, down = 2 * high - y, -0.7 * down
    path = torch.tensor(rows)
    return torch.stack([_reflect(path, low, high)[:, 0], path[:, 1].clamp(low, high)], 1)


def render(scene: Scene) -> Frames:
    """The clip of a scene, antialiased, RGB in 0..255."""
    grid = torch.arange(float(SIZE)) + 0.5
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    image = _paint_background(scene.background, scene.frames, x, y)
    for body in scene.bodies:
        cover = (0.5 - _distance(body, x, y)).clamp(0, 1) * body.opacity[:, None, None]
        colour = torch.tensor(body.colour)
        image = image + cover[..., None] * (colour - image)
    return (255 * image).round().clamp(0, 255).byte()


def bodies_mask(scene: Scene, margin: float) -> Float[Tensor, "time height width"]:
    """1 within `margin` pixels of a body and inside it, else 0."""
    grid = torch.arange(float(SIZE)) + 0.5
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    covers = [_distance(body, x, y) < margin for body in scene.bodies]
    return torch.stack(covers).any(dim=0).float()


def _paint_background(
    background: Background, frames: int, x: Tensor, y: Tensor
) -> Float[Tensor, "time height width 3"]:
    """Gradient and wave, seen by a camera that moves."""
    time = torch.arange(float(frames))[:, None, None]
    x, y = x + background.pan[0] * time, y + background.pan[1] * time
    along = (x - SIZE / 2) * math.cos(background.direction)
    along = along + (y - SIZE / 2) * math.sin(background.direction)
    share = (0.5 + along / (1.8 * SIZE)).clamp(0, 1)[..., None]
    amplitude, length, direction = background.wave
    phase = 2 * math.pi / length * (x * math.cos(direction) + y * math.sin(direction))
    low, high = background.colours
    image: Tensor = low + share * (high - low) + amplitude * phase.sin()[..., None]
    return image


def _distance(body: Body, x: Tensor, y: Tensor) -> Float[Tensor, "time height width"]:
    """Signed distance in pixels to the outline, negative inside."""
    first = _outline(body.shape, body, x, y)
    if not bool(body.morph.any()):
        return first
    second = _outline(body.other_shape, body, x, y)
    return first + body.morph[:, None, None] * (second - first)


def _outline(shape: Shape, body: Body, x: Tensor, y: Tensor) -> Float[Tensor, "time height width"]:
    """Distance to one shape; for polygons, to the nearest of the lines through their edges."""
    right = x - body.track[:, 0, None, None]
    down = y - body.track[:, 1, None, None]
    if shape == "circle":
        return (right.square() + down.square()).sqrt() - 0.9 * body.radius
    sides = {"square": 4, "triangle": 3}[shape]
    inner = body.radius * math.cos(math.pi / sides)
    turns = body.angle[:, None] + 2 * math.pi * torch.arange(sides) / sides
    along = right[:, None] * turns.cos()[..., None, None]
    along = along + down[:, None] * turns.sin()[..., None, None]
    return along.amax(dim=1) - inner


def with_bodies(scene: Scene, bodies: tuple[Body, ...]) -> Scene:
    """The scene with other bodies, as a damaged one has."""
    return replace(scene, bodies=bodies)
