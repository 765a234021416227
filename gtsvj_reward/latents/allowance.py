"""How much of a video from somebody else is decoded: small files can hold hours of work."""

from dataclasses import dataclass
from pathlib import Path

from gtsvj_reward.latents.sources import UnreadableVideoError

LEAST_PICTURE = 1 << 16
LEAST_PACKET = 1 << 12
"""Pixels that a picture and a packet of any track count as at least, for the work around them."""


@dataclass(frozen=True, kw_only=True)
class DecodeLimit:
    """What a video file may cost until its last picture that is needed; more is rejected."""

    picture: int = 4096 * 2304
    """Pixels of one picture."""
    total: int = 1 << 30
    """Pixels of all of them together."""


class Allowance:
    """What is left to spend on a file.

    Args:
        path: the file, for messages.
        limit: what may be spent; None: anything.
    """

    def __init__(self, path: Path, limit: DecodeLimit | None) -> None:
        self.path = path
        self.limit = limit
        self.spent = 0

    @property
    def options(self) -> dict[str, str]:
        """For ffmpeg, which decodes pictures already to find out what a file is."""
        return {} if self.limit is None else {"max_pixels": str(self.limit.picture)}

    def check_size(self, width: int, height: int) -> None:
        """Reject a track whose pictures are too large."""
        if self.limit is not None and width * height > self.limit.picture:
            raise UnreadableVideoError(
                self.path,
                f"its pictures have {width} x {height} pixels, at most {self.limit.picture} are "
                "decoded: resize it",
            )

    def packet(self) -> None:
        """Spend a packet, of any track."""
        self.spend(LEAST_PACKET)

    def picture(self, width: int, height: int) -> None:
        """Spend a picture."""
        self.spend(max(LEAST_PICTURE, width * height))

    def spend(self, pixels: int) -> None:
        """Spend so many pixels.

        Raises:
            UnreadableVideoError: when there are not so many left.
        """
        self.spent += pixels
        if self.limit is not None and self.spent > self.limit.total:
            raise UnreadableVideoError(
                self.path,
                f"over {self.limit.total} pixels would have to be decoded, of all its pictures up "
                "to the last one that is needed: lower its frame rate or size",
            )
