"""A reward behind a server: `ScoreClient` is called like a `GTSVJReward`, without gradients."""

import os
from types import TracebackType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.reward import Clips
from gtsvj_reward.serving.parts import alike, checked_clips, joined
from gtsvj_reward.serving.protocol import (
    CONTENT_TYPE,
    PATH,
    VERSION,
    VERSION_HEADER,
    MalformedError,
    ScoreRequest,
    write_request,
)
from gtsvj_reward.serving.replies import ScoreReply, read_reply
from gtsvj_reward.serving.retries import (
    RefusedError as RefusedError,
    ScoreServerError as ScoreServerError,
    repeat,
)


class ScoreClient:
    """Scores latents on a server started with `gtsvj serve`.

    Called like a `GTSVJReward`, and taken by the adapters in its place. No gradients: latents that
    record them are refused. What the server refuses raises `RefusedError`; when it is full,
    restarting or out of reach, the request is repeated, with growing and random pauses or after
    what the server asks for, until `retry_for` seconds are over. No score is ever put in place of
    one that is missing.

    Threads may share a client; `asyncio.to_thread(client, latents)` awaits one. It can be pickled,
    and used on both sides of a `fork`: each process has connections of its own.

    Example:
        reward = ScoreClient("http://127.0.0.1:8000", space=LatentSpace.from_pipeline(pipe))
        scores = reward(latents, fps=8.0, num_frames=49)

    Args:
        url: of the server, without a path.
        token: the server's, if it has one.
        space: the latent space of all latents that are sent; each call may name another.
        timeout: seconds for an attempt, waiting for a free place and scoring included.
        retry_for: seconds after which the last failure is raised.
        clips_per_request: longer batches are sent in parts.

    Raises:
        ImportError: if httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        space: LatentSpace | None = None,
        timeout: float = 120.0,
        retry_for: float = 300.0,
        clips_per_request: int = 8,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"`url` must start with http:// or https://, got {url!r}")
        if not (timeout > 0 and retry_for >= 0 and clips_per_request >= 1):
            raise ValueError(
                "expected timeout > 0, retry_for >= 0 and clips_per_request >= 1, got "
                f"{timeout=}, {retry_for=}, {clips_per_request=}"
            )
        self.url = url.rstrip("/")
        self.token = token
        self.space = space
        self.timeout = timeout
        self.retry_for = retry_for
        self.clips_per_request = clips_per_request
        self.__name__ = "gtsvj_server"
        self.pool = (os.getpid(), self.connect())

    @property
    def http(self) -> Any:
        """The connection pool of this process.

        A pool that came along through `fork` is left alone: its sockets are the parent's too, and
        whoever reads first from one takes the other's answer.
        """
        process, pool = self.pool
        if process != os.getpid():
            pool = self.connect()
            self.pool = (os.getpid(), pool)
        return pool

    def connect(self) -> Any:
        """A new connection pool; nothing is sent yet."""
        try:
            import httpx
        except ImportError as error:
            raise ImportError("`ScoreClient` needs httpx: pip install httpx") from error
        headers = {"content-type": CONTENT_TYPE, VERSION_HEADER: VERSION}
        if self.token is not None:
            headers["authorization"] = f"Bearer {self.token}"
        # A proxy from the environment would see latents and token, and most cannot reach localhost.
        return httpx.Client(headers=headers, timeout=self.timeout, trust_env=False)

    def __call__(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> Float[Tensor, " clip"]:
        """Scores of clips, one each, float32, on the CPU; see `details` for the arguments."""
        return self.details(
            latents, space=space, fps=fps, num_frames=num_frames, text=text, normalize=normalize
        ).rewards

    def details(
        self,
        latents: Clips,
        *,
        space: LatentSpace | None = None,
        fps: float | None = None,
        num_frames: int | None = None,
        text: TextCondition | None = None,
        normalize: bool = True,
    ) -> RewardOutput:
        """Scores with their trajectories; `aspect_trajectory` stays empty.

        Args:
            latents: as for `GTSVJReward`: (batch, time, channel, height, width), or a sequence of
                clips (time, channel, height, width) of any sizes.
            space: their latent space; the client's own by default, one of both is needed.
            fps: frames per second of the video.
            num_frames: frames that the generator was asked for.
            text: prompt embeddings, for a judge that was trained with them.
            normalize: False gives raw scores.

        Raises:
            RefusedError: with the server's reason.
            ScoreServerError: if there is no answer in time, or none that can be used.
            ValueError: for latents that record gradients or are of no known space.
        """
        space = space or self.space
        if space is None:
            raise ValueError(
                "`space` must say which VAE the latents are of: the server refuses unnamed ones. "
                "Pass it to the client or the call, e.g. LatentSpace.from_pipeline(pipe)"
            )
        clips = checked_clips(latents, text)
        replies: dict[int, tuple[ScoreReply, int]] = {}
        for indices in alike(clips, self.clips_per_request):
            request = ScoreRequest(
                latents=torch.stack([clips[index] for index in indices]),
                space_id=space.id,
                space=space,
                fps=fps,
                num_frames=num_frames,
                text=None if text is None else text.rows(torch.tensor(indices)),
                normalize=normalize,
            )
            reply = self.score(request)
            replies |= {index: (reply, place) for place, index in enumerate(indices)}
        return joined([replies[index] for index in range(len(clips))])

    def score(self, request: ScoreRequest) -> ScoreReply:
        """Send one request, again and again where that may help.

        Raises:
            RefusedError: with the server's reason.
            ScoreServerError: if there is no answer in time, or none that can be used.
        """
        body = write_request(request)
        response = repeat(
            lambda: self.http.post(self.url + PATH, content=body),
            retry_for=self.retry_for,
            where=self.url,
        )
        try:
            return read_reply(response.content, len(request.latents), VERSION)
        except MalformedError as error:
            raise ScoreServerError(f"{self.url} gave no usable answer: {error}") from error

    def health(self) -> dict[str, Any]:
        """What the server says of itself and its judge; one attempt."""
        response = self.http.get(f"{self.url}/healthz")
        if response.status_code != 200:
            raise ScoreServerError(f"{self.url}: HTTP {response.status_code}: {response.text}")
        found: dict[str, Any] = response.json()
        return found

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def __enter__(self) -> "ScoreClient":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "pool"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.pool = (os.getpid(), self.connect())
