"""Settings of a reward in a trainer's configuration file: plain values that define a scorer."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import torch

from gtsvj_reward.assets.vae import load_vae
from gtsvj_reward.dtypes import DTYPES, dtype_name, dtype_of
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward.base import AnyReward
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.reward import GTSVJReward
from gtsvj_reward.reward.texts import PromptEncoder, check_encode, load_prompt_encoder


@runtime_checkable
class Connect(Protocol):
    """Makes the client of a scoring server, which is called as a reward is: `ScoreClient` does."""

    def __call__(self, url: str, *, token: str | None) -> AnyReward:
        """The client of the server at a URL."""


OF_THE_JUDGE = ("base_model", "aspects", "weights", "batch_size", "allow_untrained_geometry",
                "check_statistics", "dtype")  # fmt: skip
"""Settings that apply where the judge is loaded; on a server, whoever starts it sets them."""


@dataclass(frozen=True, kw_only=True)
class ScorerConfig:
    """A judge and the clips that it will get, as JSON or YAML hold them."""

    judge: str | None = None
    """Checkpoint folder, bundled name or hub id (owner/name), to score in this process."""
    server_url: str | None = None
    """A server started with `gtsvj serve`, to score there instead; no gradients."""
    server_token_env: str | None = None
    """Name of the environment variable that holds the server's token, if it has one."""
    latents_of: str | None = None
    """Whose latents will be scored: bundled name, folder or hub id of the generator's pipeline or
    VAE. None: latents are refused."""
    encode_with: str | None = None
    """The judge's VAE (same kinds of names), to encode decoded videos. None: decoded videos are
    refused."""
    fps: float | None = None
    """Frames per second of the clips, checked against the trained range; None: not checked."""
    text_encoder: str | None = None
    """The generator's pipeline, whose text encoder reads the prompts for a judge that reads them:
    bundled name, folder or hub id. None: the judge gets no prompts."""
    first_frames: int | None = None
    """Score the first frames of a decoded video only, 4f + 1 of them; None: all of it."""
    normalize: bool = True
    """Subtract the checkpoint's mean and divide by its standard deviation."""
    base_model: str | None = None
    """Folder or hub id of the base transformer; None: as the checkpoint says."""
    aspects: tuple[str, ...] | None = None
    """Score with the mean of these aspects; None: the judge's own score."""
    weights: Mapping[str, float] | None = None
    """The same with a weighted sum, name -> weight."""
    batch_size: int = 8
    """Clips per forward pass."""
    allow_untrained_geometry: bool = False
    """Score clips outside the trained range."""
    check_statistics: bool = True
    """Refuse latents that are not spread as those that the judge was trained on."""
    device: str | None = None
    """Where judge and VAE go; None: the CPU, or where the host says."""
    dtype: str | None = None
    """dtype of the judge's base weights; None: that of training."""
    vae_dtype: str = "float32"
    """dtype of the VAE that encodes decoded videos; the scores depend on it."""
    text_dtype: str = "float32"
    """dtype of the text encoder; likewise."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if (self.judge is None) == (self.server_url is None):
            raise ValueError("give `judge`, to score in this process, or `server_url`, not both")
        if self.latents_of is None and self.encode_with is None:
            raise ValueError(
                "give `latents_of`, the model whose latents are passed, or "
                "`encode_with`, the judge's VAE, to have decoded videos encoded"
            )
        for name in ("dtype", "vae_dtype", "text_dtype"):
            value = vars(self)[name]
            if value is not None and value not in DTYPES:
                raise ValueError(f"`{name}` must be one of {', '.join(DTYPES)}, got {value!r}")
        defaults = {field.name: field.default for field in fields(self)}
        given = [name for name in OF_THE_JUDGE if vars(self)[name] != defaults[name]]
        if self.server_url is not None and given:
            raise ValueError(
                f"the judge of a server is set up there: leave {', '.join(given)} out, and give "
                "them to `gtsvj serve`"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ScorerConfig":
        """The configuration that a mapping holds.

        Raises:
            ValueError: for keys that are not known, which a host would ignore.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"unknown keys {unknown}: expected some of {', '.join(known)}")
        given = dict(values)
        for name, kind in (("aspects", tuple), ("weights", dict)):
            if given.get(name) is not None:
                given[name] = kind(given[name])
        return cls(**given)

    def on(self, device: Any, dtype: torch.dtype, batch_size: int | None = None) -> "ScorerConfig":
        """With the trainer's own values for settings that are not given here.

        A server's judge has its own dtype and batch size.
        """
        found = replace(self, device=self.device or str(device))
        if self.server_url is not None:
            return found
        found = replace(found, dtype=self.dtype or dtype_name(dtype))
        return found if batch_size is None else replace(found, batch_size=batch_size)

    def key(self) -> str:
        """Text that is equal for equal configurations, to load each of them once."""
        return json.dumps(asdict(self), sort_keys=True)

    def load(self, connect: Connect | None = None, *, takes_text: bool = False) -> ClipScorer:
        """The judge or the client, with the VAE or the latent space that it needs.

        Args:
            connect: makes a client of a server; None: this host needs the judge in its process.
            takes_text: the host brings what its text encoder said, in place of prompts.

        Raises:
            FileNotFoundError, CheckpointError: as `GTSVJReward.from_pretrained`.
            LatentSpaceError: if latents or VAE are of another space than the judge's.
            ValueError: for a server without `connect`, a token's variable that is not set, a judge
                that needs prompts without `text_encoder`, or one that reads none with it.
        """
        reward = self.judge_here() if self.server_url is None else self.client(connect)
        encode = self.encoder()
        if not takes_text:
            check_encode(reward, encode, "text_encoder")
        # A VAE that only names a space is read, since some are named by their weights, and let go.
        space = None if self.latents_of is None else LatentSpace.from_vae(load_vae(self.latents_of))
        vae = None
        if self.encode_with is not None:
            dtype = dtype_of(self.vae_dtype)
            vae = load_vae(self.encode_with, dtype=dtype, device=self.device or "cpu")
        return ClipScorer(
            reward,
            space=space,
            vae=vae,
            fps=self.fps,
            first_frames=self.first_frames,
            normalize=self.normalize,
            concurrent=self.server_url is not None,
            encode=encode,
            takes_text=takes_text,
        )

    def encoder(self) -> PromptEncoder | None:
        """The text encoder, if it is named."""
        if self.text_encoder is None:
            return None
        dtype = dtype_of(self.text_dtype)
        return load_prompt_encoder(self.text_encoder, dtype=dtype, device=self.device or "cpu")

    def judge_here(self) -> GTSVJReward:
        """The judge, in this process."""
        return GTSVJReward.from_pretrained(
            str(self.judge),
            base_model=self.base_model,
            device=self.device,
            dtype=None if self.dtype is None else dtype_of(self.dtype),
            aspects=self.aspects,
            weights=self.weights,
            batch_size=self.batch_size,
            allow_untrained_geometry=self.allow_untrained_geometry,
            check_statistics=self.check_statistics,
        )

    def client(self, connect: Connect | None) -> AnyReward:
        """A client of the server."""
        if connect is None:
            raise ValueError(
                f"this host needs the judge in its own process, not on {self.server_url}: give "
                "`judge` instead of `server_url`"
            )
        name = self.server_token_env
        if name is not None and name not in os.environ:
            raise ValueError(f"the environment has no variable {name!r} with the server's token")
        return connect(str(self.server_url), token=None if name is None else os.environ[name])
