"""The video track of a file, as its own timestamps have it."""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition

from gtsvj_reward.latents.allowance import Allowance, DecodeLimit
from gtsvj_reward.latents.frames import RGB, Frame, Source, on_black
from gtsvj_reward.latents.sources import UnreadableVideoError

_MISSING_END = 0.5
"""Seconds that a file may end before its header says."""
_NOT_SDR = {8: "linear light", 16: "HDR, PQ", 18: "HDR, HLG"}
"""Transfer functions (ITU-T H.273) that look wrong if they are read as standard dynamic range."""

_BICUBIC = 0x4
_EXACT = _BICUBIC | 0x2000 | 0x40000
"""libswscale's flags (SWS_FULL_CHR_H_INT, SWS_ACCURATE_RND; PyAV has names for them since 17): more
than 8 bits are converted exactly, otherwise they lose up to two levels of 255."""


def track_source(path: Path, limit: DecodeLimit | None = None) -> Source:
    """The pictures of a video file, at the times that the file gives them.

    Args:
        path: the file.
        limit: the most that is decoded of it.

    Raises:
        UnreadableVideoError: at once or while iterating, with what is wrong.
    """
    allowance = Allowance(path, limit)
    with _opened(path, allowance.options) as container:
        track = _track(path, container)
        allowance.check_size(track.codec_context.width, track.codec_context.height)
        rate = track.average_rate or track.guessed_rate
        transfer = track.codec_context.color_trc
        hidden_alpha = track.metadata.get("alpha_mode") == "1"
    if not rate:
        raise UnreadableVideoError(path, "its video track has no frame rate")
    if transfer in _NOT_SDR:
        raise UnreadableVideoError(
            path,
            f"its brightness is coded as {_NOT_SDR[transfer]}, and only standard dynamic range can "
            "be read: convert it (tone mapping)",
        )
    if hidden_alpha:
        raise UnreadableVideoError(
            path, "it has an alpha channel, which cannot be read from webm: composite it on black"
        )
    return Source(fps=float(rate), frames=_frames(path, 1 / rate, allowance))


def _opened(path: Path, options: dict[str, str]) -> InputContainer:
    try:
        # Of a relative name ffmpeg would take what stands before a colon for a protocol.
        return av.open(str(path.absolute()), metadata_errors="ignore", options=options)
    except av.FFmpegError as error:
        raise UnreadableVideoError(path, f"not a video, or cut short ({error.strerror})") from error


def _track(path: Path, container: InputContainer) -> av.VideoStream:
    """The video track that players show; the cover picture of an audio file does not count."""
    track = container.streams.best("video")
    if not isinstance(track, av.VideoStream) or track.disposition & Disposition.attached_pic:
        raise UnreadableVideoError(path, "it has no video track")
    return track


def _frames(path: Path, usual: Fraction, allowance: Allowance) -> Iterator[Frame]:
    """Decoded pictures, `usual` seconds long where the file does not say how long."""
    count, first, last = 0, Fraction(0), Fraction(0)
    with _opened(path, allowance.options) as container:
        track = _track(path, container)
        # The decoder patches up damaged pictures unless it is set to stop there.
        track.codec_context.options = {"err_detect": "explode", **allowance.options}
        tick, clock = Fraction(track.time_base or 0), _Clock(container)
        aspect = Fraction(track.sample_aspect_ratio or 1)
        try:
            for packet in container.demux():
                allowance.packet()
                clock.see(packet)
                for decoded in track.decode(packet) if packet.stream is track else ():
                    allowance.picture(decoded.width, decoded.height)
                    time = clock.ticks(decoded) * tick
                    first = time if count == 0 else first
                    if count and time < last:
                        raise UnreadableVideoError(
                            path, f"frame {count} has an earlier timestamp than the one before"
                        )
                    turn = _turn(path, decoded)
                    yield Frame(
                        index=count,
                        time=time - first,
                        end=time - first + ((decoded.duration or 0) * tick or usual),
                        picture=partial(_rgb, decoded, turn),
                        pixel_aspect=1 / aspect if turn.swap else aspect,
                    )
                    count, last = count + 1, time
        except av.FFmpegError as error:
            raise UnreadableVideoError(
                path, f"cut short or damaged after frame {count} ({error.strerror})"
            ) from error
        missing = clock.missing()
    if count == 0 or missing > _MISSING_END:
        raise UnreadableVideoError(
            path,
            f"cut short or damaged: {count} frames can be read, and its header says that it goes "
            f"on for {max(missing, 0):.1f} s",
        )


class _Clock:
    """When pictures are shown, and how far a file has been read.

    Args:
        container: the file.
    """

    def __init__(self, container: InputContainer) -> None:
        self.announced = Fraction(container.duration or 0, av.time_base)
        self.start = min(Fraction(container.start_time or 0, av.time_base), Fraction(0))
        self.reached = self.start
        # An avi file has no times of its own: its pictures are shown where its packets stand.
        self.slots: deque[int] | None = deque() if container.format.name == "avi" else None

    def see(self, packet: Any) -> None:
        """Note a packet of any track."""
        stands = packet.dts if packet.pts is None else packet.pts
        if stands is None:
            return
        end = (stands + (packet.duration or 0)) * Fraction(packet.time_base)
        self.reached = max(self.reached, end)
        if self.slots is not None and packet.stream.type == "video" and packet.dts is not None:
            self.slots.append(packet.dts)

    def ticks(self, decoded: av.VideoFrame) -> int:
        """When a picture is shown, in the units of its track."""
        if self.slots is not None:
            return self.slots.popleft()
        if decoded.pts is None:
            raise av.InvalidDataError(0, "a picture without a timestamp")
        return decoded.pts

    def missing(self) -> float:
        """Seconds between the end of what was read, on any track, and the announced one."""
        return float(self.announced - (self.reached - self.start))


@dataclass(frozen=True)
class _Turn:
    """What brings a picture upright: first the axes swapped, then rows and columns reversed."""

    swap: bool
    rows: bool
    columns: bool


def _turn(path: Path, decoded: av.VideoFrame) -> _Turn:
    """How the file says that a picture is turned: (x, y) is shown at (ax + cy, bx + dy)."""
    matrix: Any = decoded.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Turn(False, False, False)
    a, b, _, c, d = (value / 65536 for value in struct.unpack("<5i", bytes(matrix)[:20]))
    if (abs(a), abs(b), abs(c), abs(d)) == (1, 0, 0, 1):
        return _Turn(False, d < 0, a < 0)
    if (abs(a), abs(b), abs(c), abs(d)) == (0, 1, 1, 0):
        return _Turn(True, b < 0, c < 0)
    raise UnreadableVideoError(
        path, "its pictures are rotated by an angle that is not a multiple of 90 degrees"
    )


def _rgb(decoded: av.VideoFrame, turn: _Turn) -> RGB:
    """The pixels of a picture, upright, on black where it is not opaque."""
    parts = decoded.format.components
    rounding = _EXACT if any(part.bits > 8 for part in parts) else _BICUBIC
    if any(part.is_alpha for part in parts) or decoded.format.has_palette:
        rgba = decoded.to_ndarray(format="rgba", interpolation=rounding)
        pixels = on_black(np.asarray(rgba, np.uint8))
    else:
        rgb = decoded.to_ndarray(format="rgb24", interpolation=rounding)
        pixels = np.asarray(rgb, np.uint8)
    if turn.swap:
        pixels = pixels.transpose(1, 0, 2)
    pixels = pixels[:: -1 if turn.rows else 1, :: -1 if turn.columns else 1]
    return np.ascontiguousarray(pixels)
