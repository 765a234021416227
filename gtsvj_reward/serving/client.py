"""A reward behind a server: `ScoreClient` is called like a `GTSVJReward`, without gradients."""

import os
from dataclasses import replace
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import torch

from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import Clips, Reward, RewardOutput
from gtsvj_reward.reward.inputs import AnySpace, as_space
from gtsvj_reward.serving.protocol import (
    CONTENT_TYPE,
    JUDGE_PATH,
    PATH,
    VERSION,
    VERSION_HEADER,
    MalformedError,
    ScoreRequest,
    write_request,
)
from gtsvj_reward.serving.replies import read_reply
from gtsvj_reward.serving.retries import (
    RETRIED,
    RefusedError as RefusedError,
    ScoreServerError as ScoreServerError,
    repeat,
)


class ScoreClient(Reward):
    """Scores latents on a server started with `gtsvj serve`.

    Called like a `GTSVJReward`, and taken by the adapters in its place. No gradients: latents that
    require them are rejected. A rejected request raises `RefusedError`. If the server is full,
    restarting or unreachable, the request is retried until `retry_for` seconds have passed, after
    growing random pauses or the time that the server asks for. Missing scores are never replaced.

    Threads may share a client; `asyncio.to_thread(client, latents)` awaits one. It can be pickled,
    and used on both sides of a `fork`: each process has connections of its own.

    Example:
        ```python
        reward = ScoreClient("http://127.0.0.1:8000", space=LatentSpace.from_pipeline(pipe))
        scores = reward(latents, fps=8.0, num_frames=49)
        ```

    Args:
        url: of the server; with a path only if a proxy serves it below one (404 is then final).
        judge: name of one of several judges; the server's default one otherwise.
        token: the server's, if it has one.
        space: the latent space of all latents, or a pipeline or VAE to read it from; calls may
            override it.
        timeout: seconds per attempt, including queueing and scoring.
        retry_for: seconds after which the last failure is raised.
        clips_per_request: longer batches are sent in parts.

    Raises:
        ImportError: if httpx is not installed.
    """

    reads_text = reads_image = True  # the judge of the server may, and refuses them otherwise

    def __init__(
        self,
        url: str,
        *,
        judge: str | None = None,
        token: str | None = None,
        space: AnySpace | None = None,
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
        self.judge = judge
        self.token = token
        self.space = as_space(space)
        self.timeout = timeout
        self.retry_for = retry_for
        self.clips_per_request = clips_per_request
        self.__name__ = "gtsvj_server"
        self.pool = (os.getpid(), self.connect())

    @property
    def http(self) -> Any:
        """The connection pool of this process.

        A pool inherited through `fork` is not used: its sockets are shared with the parent, so one
        process could read the other's answer.
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
        # A proxy from the environment would get latents and token, and most cannot reach localhost.
        return httpx.Client(headers=headers, timeout=self.timeout, trust_env=False)

    @property
    def route(self) -> str:
        """Path for scores, below the URL."""
        return PATH if self.judge is None else JUDGE_PATH.format(name=quote(self.judge, safe=""))

    def score(self, clips: Clips, normalize: bool = True) -> RewardOutput:
        """The server's scores of clips, on the CPU; `aspect_trajectory` stays empty.

        Raises:
            RefusedError: with the server's reason.
            ScoreServerError: if there is no answer in time, or none that can be used.
            ValueError: for latents that record gradients or are of no known space.
        """
        space = clips.space or self.space
        if space is None:
            raise ValueError(
                "`space`, the VAE of the latents, is missing, and the server requires it: pass it "
                "to the client or the call, e.g. LatentSpace.from_pipeline(pipe)"
            )
        if torch.is_grad_enabled() and any(clip.requires_grad for clip in clips.latents):
            raise ValueError(
                "a score from a server has no gradient: detach the latents, or score them with a "
                "GTSVJReward in this process"
            )
        parts = clips.buckets(self.clips_per_request)
        if len(parts) > 1:  # the server only knows indices within a request
            clips = replace(clips, names=[clips.label(index) for index in range(len(clips))])
        outputs = [self.ask(clips.rows(indices), space, normalize) for indices in parts]
        order = [index for indices in parts for index in indices]
        places = [place for _, place in sorted(zip(order, range(len(order)), strict=True))]
        return RewardOutput.cat(outputs).rows(places)

    def ask(self, clips: Clips, space: LatentSpace, normalize: bool) -> RewardOutput:
        """The scores of clips of one shape, with retries.

        Raises:
            RefusedError: with the server's reason.
            ScoreServerError: if there is no answer in time, or none that can be used.
        """
        body = body_of(clips, space, normalize)
        path = urlsplit(self.url).path
        where = f"{self.url} (is its path {path!r} right? `gtsvj serve` has none)"
        with clips.named(RefusedError):
            response = repeat(
                lambda: self.http.post(self.url + self.route, content=body),
                retry_for=self.retry_for,
                where=where if path else self.url,
                # Below a path that is wrong nothing is ever found.
                retried=[status for status in RETRIED if not path or status != 404],
            )
        try:
            return read_reply(response.content, len(clips), VERSION).output()
        except MalformedError as error:
            raise ScoreServerError(f"{self.url} gave no usable answer: {error}") from error

    def health(self) -> dict[str, Any]:
        """The server's description of itself and its judge, without retries."""
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


def body_of(clips: Clips, space: LatentSpace, normalize: bool) -> bytes:
    """The body of a score request for clips of one shape."""
    return write_request(
        ScoreRequest(
            latents=torch.stack(list(clips.latents)),
            space_id=space.id,
            space=space,
            fps=clips.fps,
            num_frames=clips.num_frames,
            text=clips.text,
            image=clips.image,
            normalize=normalize,
        )
    )
