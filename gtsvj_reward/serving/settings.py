"""Settings of `gtsvj serve`, in a form that can be sent to other processes, and its app."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.dtypes import dtype_of
from gtsvj_reward.latents.allowance import DecodeLimit
from gtsvj_reward.reward import GTSVJReward
from gtsvj_reward.reward.encoding import reading_for
from gtsvj_reward.reward.images import load_image_encoder
from gtsvj_reward.reward.texts import load_prompt_encoder
from gtsvj_reward.serving.judges import DEFAULT, check_names, share_base
from gtsvj_reward.serving.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """How videos are read and encoded; numbers that are None are those of training."""

    vae: str
    """The judge's VAE: bundled name, folder or hub id."""
    dtype: str = "float32"
    """dtype of the VAE's weights."""
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
    """Of all frames of a video that must be decoded; then that video is an error."""
    text_encoder: str | None = None
    """The generator's pipeline, whose text encoder reads the prompts, for a judge that does."""
    text_dtype: str = "float32"
    """dtype of the text encoder's weights."""
    image_encoder: str | None = None
    """The generator's pipeline, which encodes reference images, for a judge that sees them."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """A judge to serve, and how."""

    checkpoint: str
    """The default judge: folder, bundled name or hub id."""
    judges: Mapping[str, str] = field(default_factory=dict)
    """Name -> checkpoint of further judges; equal weights of their bases are held once."""
    base_model: str | None = None
    """Where the base transformer is, if it has moved."""
    device: str = "cpu"
    """Where to score."""
    dtype: str | None = None
    """dtype of the base weights; None: that of training."""
    aspects: tuple[str, ...] | None = None
    """Score with the mean of these; None: with the judge's own score. Not of further judges."""
    pessimism: float = 0.0
    """k in r - k u, with u the uncertainty of a moment judge. Not of further judges."""
    allow_untrained_geometry: bool = False
    """Score clips outside the trained range."""
    check_statistics: bool = True
    """Refuse latents that are not spread as those that the judge was trained on."""
    videos: VideoSettings | None = None
    """Also serve UniRL's format, for videos; None: latents only."""
    limits: Limits = field(default_factory=Limits)
    """Limits on requests."""
    token: str | None = field(default=None, repr=False)
    """The token of clients; None: nothing."""
    reloads: bool = True
    """Whether judges can be loaded again while they are served; not where there are replicas."""


def load_reward(
    settings: ServeSettings, name: str, others: Callable[[], Iterable[GTSVJReward]]
) -> GTSVJReward:
    """A judge of the settings, which shares weights of its base with others.

    Args:
        settings: what is served.
        name: of the judge.
        others: gives the judges that are served by then.

    Raises:
        FileNotFoundError: if the judge or its base is not there.
        ValueError: if it cannot be loaded.
    """
    is_default = name == DEFAULT
    reward = GTSVJReward.from_pretrained(
        settings.checkpoint if is_default else settings.judges[name],
        base_model=settings.base_model,
        dtype=dtype_of(settings.dtype) if settings.dtype else None,
        aspects=settings.aspects if is_default else None,
        allow_untrained_geometry=settings.allow_untrained_geometry,
        check_statistics=settings.check_statistics,
        pessimism=settings.pessimism if is_default else 0.0,
    )
    share_base(reward.judge, [other.judge for other in others()])
    return reward.to(settings.device)


def build_app(settings: ServeSettings) -> "FastAPI":
    """Load the judges, and the VAE if there is one, and make their application.

    Raises:
        FileNotFoundError: if the judge, its base or the VAE is not there.
        ValueError: for a VAE of another space, or a way to read videos that is not clear.
    """
    from gtsvj_reward.serving import cosmos_rl, reload
    from gtsvj_reward.serving.app import Service, create_app
    from gtsvj_reward.serving.unirl import unirl_routes
    from gtsvj_reward.serving.videos import VideoReader

    check_names([DEFAULT, *settings.judges])
    loaded: dict[str, GTSVJReward] = {}
    for name in (DEFAULT, *settings.judges):
        loaded[name] = load_reward(settings, name, loaded.values)
    reward = loaded.pop(DEFAULT)
    routers = [reload.routes, cosmos_rl.routes]
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
        encode = None
        if videos.text_encoder is not None:
            encode = load_prompt_encoder(
                videos.text_encoder, dtype=dtype_of(videos.text_dtype), device=settings.device
            )
        encode_image = None
        if videos.image_encoder is not None:
            encode_image = load_image_encoder(
                videos.image_encoder, dtype=dtype_of(videos.dtype), device=settings.device
            )
        reader = VideoReader(reward, vae, reading, videos.space_id, limit, encode, encode_image)
        routers.append(unirl_routes(reader))
    app = create_app(
        reward, judges=loaded, limits=settings.limits, token=settings.token, routers=routers
    )
    if settings.reloads:
        service: Service = app.state.service
        for judge in service.judges.named.values():
            judge.load = partial(load_reward, settings, judge.name, service.judges.rewards)
    return app
