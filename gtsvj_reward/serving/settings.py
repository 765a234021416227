"""What `gtsvj serve` was asked for, in a form that travels to other processes, and its app."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.dtypes import dtype_of
from gtsvj_reward.latents.allowance import DecodeLimit
from gtsvj_reward.reward import GTSVJReward
from gtsvj_reward.reward.encoding import reading_for
from gtsvj_reward.serving.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """How videos are read and encoded; numbers that are None are those of training."""

    vae: str
    """That of the judge: bundled name, folder or hub id."""
    dtype: str = "float32"
    """Of the VAE's weights."""
    space_id: str | None = None
    """Name of its latent space; None: read from it."""
    fps: float | None = None
    """Frames per second."""
    height: int | None = None
    """Pixels."""
    width: int | None = None
    """Pixels."""
    num_frames: int | None = None
    """4f + 1 for CogVideoX."""
    max_megapixels: int = 1024
    """Of all pictures of a video that have to be decoded; then an error of that video."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """A judge to serve, and how."""

    checkpoint: str
    """Folder, bundled name or hub id."""
    base_model: str | None = None
    """Where the base transformer is, if it has moved."""
    device: str = "cpu"
    """Where to score."""
    dtype: str | None = None
    """Of the base weights; None: that of training."""
    aspects: tuple[str, ...] | None = None
    """Score with the mean of these; None: with the judge's own score."""
    allow_untrained_geometry: bool = False
    """Score clips outside the trained range."""
    videos: VideoSettings | None = None
    """Also serve UniRL's format, for videos; None: latents only."""
    limits: Limits = field(default_factory=Limits)
    """What is taken."""
    token: str | None = field(default=None, repr=False)
    """What clients must send; None: nothing."""


def build_app(settings: ServeSettings) -> "FastAPI":
    """Load the judge, and the VAE if there is one, and make their application.

    Raises:
        FileNotFoundError: if the judge, its base or the VAE is not there.
        ValueError: for a VAE of another space, or a way to read videos that is not clear.
    """
    from gtsvj_reward.serving.app import create_app
    from gtsvj_reward.serving.unirl import unirl_routes
    from gtsvj_reward.serving.videos import VideoReader

    reward = GTSVJReward.from_pretrained(
        settings.checkpoint,
        base_model=settings.base_model,
        device=settings.device,
        dtype=dtype_of(settings.dtype) if settings.dtype else None,
        aspects=settings.aspects,
        allow_untrained_geometry=settings.allow_untrained_geometry,
    )
    routers = []
    if settings.videos is not None:
        videos = settings.videos
        reading = reading_for(
            reward.config,
            fps=videos.fps,
            height=videos.height,
            width=videos.width,
            num_frames=videos.num_frames,
        )
        vae = load_vae(videos.vae, dtype=dtype_of(videos.dtype), device=settings.device)
        limit = DecodeLimit(total=videos.max_megapixels * 1_000_000)
        reader = VideoReader(reward, vae, reading, videos.space_id, limit)
        routers.append(unirl_routes(reader))
    return create_app(reward, limits=settings.limits, token=settings.token, routers=routers)
