"""A reward with fixed input settings, for trainers that cannot pass them in each call."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.latents.space import LatentSpace, Layout
from gtsvj_reward.latents.vae_lock import vae_lock
from gtsvj_reward.locks import lock_of
from gtsvj_reward.reward.base import AnyReward, as_reward
from gtsvj_reward.reward.clips import Clips, Latents
from gtsvj_reward.reward.inputs import AnyNumber, AnySpace, as_number, as_space
from gtsvj_reward.reward.output import RewardOutput
from gtsvj_reward.reward.texts import Encode, check_encode


class ClipScorer:
    """Scores latents of one named space, decoded videos, or both, and rejects all other input.

    Latents are scored without decoding, and frames only if `vae` is given. Scores of latents and of
    their decoded frames differ, since decoding and encoding lose detail: do not mix both in one
    comparison.

    Gradients follow the caller's mode, to the latents or through the VAE to the frames. Calls from
    several threads run one at a time, also across scorers that share a VAE.

    Args:
        reward: a judge, or a combination of judges.
        space: of the latents, or a pipeline or VAE to read it from; None: latents are rejected.
        vae: the VAE of the judge's space, which encodes frames; None: frames are rejected.
        fps: frames per second of all clips; None: not checked.
        first_frames: score only the first frames of a video, 4f + 1 of them; None: all.
        normalize: as for `GTSVJReward`.
        concurrent: let threads call the reward concurrently, for a client of a server that batches
            requests.
        encode: prompts -> their embeddings, such as a `PromptEncoder`, for a reward that reads
            prompts; each call then passes prompts.
        takes_text: each call passes encoded prompts, in place of prompts.

    Raises:
        ValueError: if neither `space` nor `vae` is given, or `first_frames` is below 1; for a
            reward that needs prompts with neither `encode` nor `takes_text`, one that reads none
            with either, and for both.
        LatentSpaceError: if either has another space than the judge's, naming both.
    """

    def __init__(
        self,
        reward: AnyReward,
        *,
        space: AnySpace | None = None,
        vae: Any = None,
        fps: AnyNumber | None = None,
        first_frames: int | None = None,
        normalize: bool = True,
        concurrent: bool = False,
        encode: Encode | None = None,
        takes_text: bool = False,
    ) -> None:
        if space is None and vae is None:
            raise ValueError(
                "give `space` of the generator's latents, or `vae` of the "
                "judge, which encodes decoded videos"
            )
        if first_frames is not None and first_frames < 1:
            raise ValueError(f"`first_frames` must be at least 1, got {first_frames}")
        self.reward = as_reward(reward)
        if not takes_text:
            check_encode(self.reward, encode)
        elif encode is not None or not self.reward.reads_text:
            raise ValueError(
                "`takes_text` is for a reward that reads prompts and replaces `encode`: leave one "
                "out"
                if encode is not None
                else "the reward reads no prompts: leave `takes_text` out"
            )
        self.encode = encode
        self.takes_text = takes_text
        self.space = as_space(space)
        self.vae = vae
        self.vae_space = None if vae is None else LatentSpace.from_vae(vae)
        self.fps = as_number("fps", fps)
        self.first_frames = first_frames
        self.normalize = normalize
        self.concurrent = concurrent
        if self.space is not None:
            self.reward.refuse_foreign(self.space, "the latents to score")
        if self.vae_space is not None:
            self.reward.refuse_foreign(self.vae_space, "what the given VAE encodes to")

    def score_latents(
        self,
        latents: Latents,
        layout: Layout = "BTCHW",
        *,
        prompts: Sequence[str] | None = None,
        text: TextCondition | None = None,
    ) -> RewardOutput:
        """Scores of scaled latents, without decoding.

        Args:
            latents: (batch, time, channel, height, width), or a sequence of clips without the batch
                axis, of any sizes.
            layout: the order of their axes; of clips, without the B.
            prompts: one per clip, for a scorer with `encode`; others do not read them.
            text: one row per clip, for a scorer with `takes_text`.

        Raises:
            ValueError: for a scorer without `space`, with `encode` and without a prompt for each
                clip, or with `takes_text` and without `text`.
            LatentSpaceError, GeometryError, NonFiniteError: from the reward, with the clip's index.
        """
        if self.space is None:
            raise ValueError(
                "got latents of an unknown space: pass `space`, so that latents of another model "
                "are rejected"
            )
        if isinstance(latents, Tensor) and len(latents):
            ordered: Latents = self.space.to_btchw(latents, layout)
        else:
            ordered = [self.space.to_btchw(clip[None], layout)[0] for clip in latents]
        return self.scores(ordered, self.space, prompts, text)

    def score_frames(
        self,
        frames: Latents,
        *,
        prompts: Sequence[str] | None = None,
        text: TextCondition | None = None,
    ) -> RewardOutput:
        """Scores of decoded videos, encoded by `vae` first.

        Args:
            frames: colours in [0, 1], (batch, time, 3, height, width), or a sequence of videos
                without the batch axis, of any sizes; 4f + 1 frames each, for CogVideoX and Wan.
            prompts: as for `score_latents`.
            text: likewise.

        Raises:
            ValueError: for a scorer without `vae`, for what the VAE cannot encode, and as
                `score_latents` for prompts.
            LatentSpaceError, GeometryError, NonFiniteError: from the reward, with the clip's index.
        """
        if self.vae is None or self.vae_space is None:
            raise ValueError(
                "got decoded frames, but no VAE to encode them: pass latents, or the judge's VAE, "
                "which encodes for each score"
            )
        if isinstance(frames, Tensor):
            latents: Latents = self.encoded(frames, self.vae_space)
        else:
            latents = [
                self.encoded(video[None], self.vae_space, f"video {index}: ")[0]
                for index, video in enumerate(frames)
            ]
        return self.scores(latents, self.vae_space, prompts, text)

    def to(self, device: str | torch.device) -> None:
        """Move judge and VAE; a client of a server, or a combination, stays where it is."""
        self.reward.to(device)
        if self.vae is not None:
            with vae_lock(self.vae):
                self.vae.to(device)

    def encoded(self, frames: Tensor, space: LatentSpace, which: str = "") -> Tensor:
        """Latents of videos in [0, 1], or of their first frames if set."""
        shape = tuple(frames.shape)
        if frames.ndim != 5 or shape[2] != 3 or not frames.is_floating_point():
            raise ValueError(
                f"{which}expected floating point frames (batch, time, 3, height, width) in [0, 1], "
                f"got {frames.dtype} of shape {shape}; single images cannot be scored"
            )
        count = self.first_frames or shape[1]
        if shape[1] < count:
            raise ValueError(f"{which}expected at least {count} frames, got {shape[1]}")
        try:
            return space.encode(frames[:, :count], self.vae)
        except ValueError as error:
            raise type(error)(f"{which}{error}") from error

    def scores(
        self,
        latents: Latents,
        space: LatentSpace,
        prompts: Sequence[str] | None,
        text: TextCondition | None,
    ) -> RewardOutput:
        """Scores of latents in this package's axis order, and their parts."""
        if text is None and self.takes_text and len(latents):
            raise ValueError("`text` is missing: with `takes_text` each call passes it")
        if text is not None and not self.takes_text:
            raise ValueError("`text` is for a scorer with `takes_text`: leave it out")
        text = self.text(prompts, len(latents)) if text is None else text
        with nullcontext() if self.concurrent else lock_of(self):
            return self.reward.score(
                Clips(
                    latents=latents,
                    space=space,
                    fps=self.fps,
                    text=text,
                    may_be_empty=self.reward.takes_empty,
                ),
                self.normalize,
            )

    def text(self, prompts: Sequence[str] | None, count: int) -> TextCondition | None:
        """The encoded prompts of clips; None for a scorer without one."""
        if self.encode is None or not count:
            return None
        if isinstance(prompts, str) or prompts is None or len(prompts) != count:
            given = "none" if prompts is None else repr(prompts)
            if prompts is not None and not isinstance(prompts, str):
                given = str(len(prompts))
            raise ValueError(
                f"`prompts` must be one per clip, {count} of them, since the reward reads prompts; "
                f"got {given}"
            )
        with lock_of(self):
            return self.encode(list(prompts))
