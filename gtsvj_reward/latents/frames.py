"""The pictures of a source, each with the time at which it is shown."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One picture of a source, not yet converted."""

    index: int
    """Which picture of the source it is, from 0."""
    time: Fraction
    """Seconds after the first picture."""
    end: Fraction
    """Seconds after the first picture at which it goes, if no other follows."""
    picture: Callable[[], RGB]
    """Gives the pixels, `(height, width, 3)`, upright."""
    pixel_aspect: Fraction = Fraction(1)
    """Width of a pixel divided by its height."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Pictures in the order in which they are shown."""

    fps: float
    """Frames per second, on average."""
    frames: Iterator[Frame]
    """Each picture once; a long one of a gif once for each step of time."""


def on_black(rgba: RGB) -> RGB:
    """Colours as players show them: on black where a pixel is not opaque."""
    if rgba[:, :, 3].min() == 255:
        return rgba[:, :, :3]
    return np.round(rgba[:, :, :3] * (rgba[:, :, 3:] / 255)).astype(np.uint8)


def nearest(frames: Iterator[Frame], times: Iterator[Fraction]) -> Iterator[Frame]:
    """For each time the frame whose own time is nearest to it, until the frames are at their end.

    Of two equally near frames the later one is taken. The end of the last frame counts as one more
    frame, at which the clip stops. No frame is asked for that is not needed to decide.

    Args:
        frames: in the order of their times.
        times: seconds after the first picture, ascending.
    """
    before: Frame | None = None
    target = next(times, None)
    for frame in frames:
        while before and target is not None and 2 * target < before.time + frame.time:
            yield before
            target = next(times, None)
        while target is not None and target <= frame.time:
            yield frame
            target = next(times, None)
        if target is None:
            return
        before = frame
    while before and target is not None and 2 * target < before.time + before.end:
        yield before
        target = next(times, None)
