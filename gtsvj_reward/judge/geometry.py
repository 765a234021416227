"""What clips a judge was trained on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Range of clips that a judge was trained on; each pair is (lowest, highest), both included."""

    latent_frames: tuple[int, int]
    """Length in latent frames, truncated clips included."""
    height: tuple[int, int]
    """Height in latent pixels."""
    width: tuple[int, int]
    """Width in latent pixels."""
    fps: tuple[float, float]
    """Frames per second of the video before encoding."""

    def complaint(self, shape: tuple[int, int, int], fps: float | None) -> str | None:
        """What of a clip is outside the range, or None.

        Args:
            shape: latent frames, height and width of the clip.
            fps: its frame rate; None is not checked.
        """
        measured = {
            "latent frames": (shape[0], self.latent_frames),
            "latent height": (shape[1], self.height),
            "latent width": (shape[2], self.width),
            "fps": (fps, self.fps),
        }
        outside = [
            f"{name} {value:g} outside {low:g}..{high:g}"
            for name, (value, (low, high)) in measured.items()
            if value is not None and not low - 1e-6 <= value <= high + 1e-6
        ]
        return ", ".join(outside) or None
