"""Pictures that Pillow reads: gif files and folders of png or jpg."""

from collections.abc import Iterator
from fractions import Fraction
from math import gcd
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from gtsvj_reward.latents.frames import RGB, Frame, Source, on_black
from gtsvj_reward.latents.sources import UnreadableVideoError, pictures

_GIF_DEFAULT = 100
"""Milliseconds that a picture without a time is shown for, as browsers do."""
PICTURE_ERRORS = (
    *(UnidentifiedImageError, Image.DecompressionBombError),
    *(OSError, SyntaxError, EOFError, ValueError),
)
"""What Pillow raises for files that are no whole pictures, or larger than it reads."""


def gif_source(path: Path) -> Source:
    """A gif shows each picture for a time of its own: a grid of the common divisor holds all.

    Raises:
        UnreadableVideoError: for a gif that is not whole, or damaged.
    """
    if not path.read_bytes().rstrip(b"\0").endswith(b";"):
        raise UnreadableVideoError(path, "not a whole gif: its end is missing")
    times = []
    try:
        with Image.open(path) as gif:
            for picture in ImageSequence.Iterator(gif):
                picture.load()
                times.append(int(picture.info.get("duration", 0)) or _GIF_DEFAULT)
    except PICTURE_ERRORS as error:
        raise UnreadableVideoError(path, f"damaged gif ({error})") from error
    step = gcd(*times)

    def frames() -> Iterator[Frame]:
        shown = 0
        with Image.open(path) as gif:
            for index, picture in enumerate(ImageSequence.Iterator(gif)):
                rgb = rgb_of(picture)
                for _ in range(times[index] // step):
                    yield _still(index, shown, Fraction(step, 1000), rgb)
                    shown += 1

    return Source(fps=1000 / step, frames=frames())


def folder_source(folder: Path, fps: float) -> Source:
    """The png and jpg files of a folder, in natural order, all of one size.

    Raises:
        UnreadableVideoError: while iterating, with what is wrong.
    """
    step = 1 / Fraction(fps).limit_denominator(1_000_000)
    return Source(fps=fps, frames=_folder_frames(folder, step))


def _folder_frames(folder: Path, step: Fraction) -> Iterator[Frame]:
    files = pictures(folder)
    if not files:
        raise UnreadableVideoError(folder, "the folder holds no png or jpg files")
    size: tuple[int, int] | None = None
    for index, file in enumerate(files):
        try:
            with Image.open(file) as picture:
                rgb = rgb_of(picture)
        except PICTURE_ERRORS as error:
            raise UnreadableVideoError(folder, f"{file.name}: {error}") from error
        if size is not None and rgb.shape[:2] != size:
            raise UnreadableVideoError(
                folder,
                f"{file.name} has {rgb.shape[1]}x{rgb.shape[0]} pixels, the others "
                f"{size[1]}x{size[0]}",
            )
        size = (rgb.shape[0], rgb.shape[1])
        yield _still(index, index, step, rgb)


def _still(index: int, shown: int, step: Fraction, rgb: RGB) -> Frame:
    def picture() -> RGB:
        return rgb

    return Frame(index=index, time=shown * step, end=(shown + 1) * step, picture=picture)


def rgb_of(picture: Image.Image) -> RGB:
    """A picture upright, in 8 bits, on black where it is not opaque."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # grey of 16 bits, which Pillow would clip at 255
        grey = np.round(np.asarray(upright) / 257).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return on_black(np.asarray(upright.convert("RGBA")))
