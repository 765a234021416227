"""Videos written from tensors."""

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from gtsvj_reward.latents.frames import RGB

PREVIEW_EDGE = 448
"""Pixels of the longer edge of a preview, at most."""


def write_video(path: str | Path, frames: UInt8[Tensor, "time height width 3"], fps: float) -> None:
    """Write frames as mp4 (H.264, nearly lossless luma), gif, or a folder of png.

    Args:
        path: ends in .mp4 or .gif; a name without a suffix becomes a folder of numbered png
            files, which are exact but do not hold `fps`.
        frames: RGB, 0 to 255; even height and width for mp4.
        fps: frames per second; gif holds hundredths of a second, so it must divide 100.

    Raises:
        ValueError: for another suffix, or what the format cannot hold.
    """
    path = Path(path)
    pictures = frames.cpu().numpy()
    if len(pictures) == 0:
        raise ValueError(f"no frames to write to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".mp4":
        _write_mp4(path, pictures, fps)
    elif path.suffix.lower() == ".gif":
        if (100 / fps) % 1:
            raise ValueError(f"gif cannot hold {fps:g} fps: take one of 10, 12.5, 20, 25, 50")
        first, *rest = (Image.fromarray(picture) for picture in pictures)
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0)
    elif path.suffix == "":
        path.mkdir(exist_ok=True)
        if any(path.iterdir()):
            raise ValueError(f"{path} is not empty: write frames to a new folder")
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(path / f"{number:06d}.png")
    else:
        raise ValueError(f"expected .mp4, .gif or a folder without suffix, got {path.name!r}")


def _write_mp4(path: Path, pictures: RGB, fps: float) -> None:
    _, height, width, _ = pictures.shape
    if height % 2 or width % 2:
        raise ValueError(f"mp4 needs even height and width, got {height}x{width}: crop by one")
    with av.open(str(path.absolute()), "w") as container:
        rate = Fraction(fps).limit_denominator(1_000_000)
        track = container.add_stream("libx264", rate=rate, options={"crf": "10"})
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        for picture in pictures:
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(track.encode())


def preview(frames: UInt8[Tensor, "time height width 3"], fps: float) -> bytes:
    """Frames as a small mp4 for a page: at most `PREVIEW_EDGE` pixels at the longer edge.

    Args:
        frames: RGB, 0 to 255.
        fps: frames per second.
    """
    pictures = frames.cpu().numpy()
    height, width = pictures.shape[1:3]
    shrink = min(1.0, PREVIEW_EDGE / max(height, width))
    size = [max(2, 2 * round(edge * shrink / 2)) for edge in (width, height)]
    stream = BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1_000_000)
        track = container.add_stream("libx264", rate=rate, options={"crf": "24"})
        track.width, track.height, track.pix_fmt = size[0], size[1], "yuv420p"
        for picture in pictures:
            small = Image.fromarray(picture).resize((size[0], size[1]))
            container.mux(track.encode(av.VideoFrame.from_image(small)))
        container.mux(track.encode())
    return stream.getvalue()
