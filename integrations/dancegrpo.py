"""DanceGRPO: an object that is called as VideoAlign is, by video files.

Written against XueZeyue/DanceGRPO (`fastvideo/train_grpo_hunyuan.py`, `train_grpo_skyreels_i2v.py`,
`fastvideo/models/videoalign/inference.py`). The scripts call `inferencer.reward([path], [prompt],
use_norm=True)`, read `VQ` and `MQ` of the first dictionary, and put -1.0 in their place after any
`Exception`. This module does not import them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gtsvj_reward.latents.space import Layout
from gtsvj_reward.latents.video import read_video
from gtsvj_reward.reward import RewardOutput
from gtsvj_reward.reward.aspect_groups import MOTION_QUALITY, VISUAL_QUALITY, AspectGroups
from gtsvj_reward.reward.clip_scorer import ClipScorer
from gtsvj_reward.reward.encoding import Reading


class ScoringStopped(BaseException):
    """A clip cannot be scored. Not an `Exception`: DanceGRPO turns those into a number."""


@contextmanager
def stopping(stop_the_run: bool) -> Iterator[None]:
    """Turn errors into `ScoringStopped` if `stop_the_run` is set."""
    try:
        yield
    except Exception as error:
        if not stop_the_run:
            raise
        raise ScoringStopped(f"{type(error).__name__}: {error}") from error


class NamedScores(dict[str, float]):
    """Scores of one video under VideoAlign's names; names without a score are missing."""

    def __missing__(self, name: str) -> float:
        raise KeyError(
            f"no score {name!r}, only {sorted(self)}: a judge that does not read the prompt has no "
            "text alignment (TA)"
        )


class VideoAlignReward:
    """Scores videos by their files, as `VideoVLMRewardInference` of VideoAlign does.

    `VQ` and `MQ` are means of the judge's aspects, `Overall` is the judge's own score (VideoAlign's
    is the sum of its three). There is no `TA` unless `ta` names aspects for it.

    Example:
        ```python
        scorer = ClipScorer(reward, vae=vae, fps=8.0)
        inferencer = VideoAlignReward(scorer, Reading(fps=8.0, height=32, width=48, num_frames=9))
        inferencer.reward(["a.mp4"], ["a dog runs"], use_norm=True)[0]["MQ"]
        ```

    Args:
        scorer: of a judge with aspects; with its VAE, for files.
        reading: how files are read: the length, size and frame rate of the judge's training.
        vq: aspects of visual quality.
        mq: aspects of motion quality.
        ta: aspects to report as text alignment; a judge that reads no prompts predicts them from
            the video alone.
        stop_the_run: raise `ScoringStopped`, which DanceGRPO does not catch, instead of each
            error. False: raise the errors themselves, which DanceGRPO turns into -1.0.

    Raises:
        ValueError: if the judge lacks one of the aspects, or the scorer does not normalise or has
            another frame rate than `reading`.
    """

    def __init__(
        self,
        scorer: ClipScorer,
        reading: Reading | None = None,
        *,
        vq: Sequence[str] = VISUAL_QUALITY,
        mq: Sequence[str] = MOTION_QUALITY,
        ta: Sequence[str] | None = None,
        stop_the_run: bool = True,
    ) -> None:
        config = scorer.reward.config
        if config is None or not scorer.normalize:
            raise ValueError(
                "expected a scorer of one `GTSVJReward` with normalize=True: names are given to "
                "its aspects, and `use_norm` chooses the scale"
            )
        if reading is not None and scorer.fps != reading.fps:
            raise ValueError(f"the scorer's fps is {scorer.fps}, `reading` says {reading.fps}")
        groups = {"VQ": vq, "MQ": mq} if ta is None else {"VQ": vq, "MQ": mq, "TA": ta}
        self.groups = AspectGroups(config, groups)
        self.scorer = scorer
        self.reading = reading
        self.stop_the_run = stop_the_run

    def reward(
        self,
        video_paths: Sequence[str],
        prompts: Sequence[str],
        fps: float | None = None,
        num_frames: int | None = None,
        max_pixels: int | None = None,
        use_norm: bool = True,
    ) -> list[NamedScores]:
        """Scores of video files, one dictionary each.

        Args:
            video_paths: the files.
            prompts: one per file; used by a scorer with `encode`, otherwise only counted.
            fps: VideoAlign's sampling rate; None, or the value in `reading`.
            num_frames: None, or the value in `reading`.
            max_pixels: None.
            use_norm: False gives means of aspects scaled to 0..1, and the judge's raw score.

        Raises:
            ScoringStopped: for a file that cannot be read or scored, with the error as its cause.
        """
        with stopping(self.stop_the_run), torch.no_grad():
            videos = self.videos(video_paths, prompts, (fps, num_frames, max_pixels))
            return self.named(self.scorer.score_frames(videos, prompts=prompts), use_norm)

    def reward_latents(
        self,
        latents: Tensor,
        prompts: Sequence[str] | None = None,
        *,
        layout: Layout = "BCTHW",
        use_norm: bool = True,
    ) -> list[NamedScores]:
        """Scores of scaled latents, for a script changed to pass them undecoded.

        Args:
            latents: of the clips.
            prompts: one per clip, for a scorer with `encode`.
            layout: the order of their axes.
            use_norm: as for `reward`.

        Raises:
            ScoringStopped: for latents that cannot be scored, with the error as its cause.
        """
        with stopping(self.stop_the_run), torch.no_grad():
            scores = self.scorer.score_latents(latents, layout, prompts=prompts)
            return self.named(scores, use_norm)

    def videos(
        self, paths: Sequence[str], prompts: Sequence[str], sampling: tuple[Any, Any, Any]
    ) -> list[Tensor]:
        """Frames of files (time, 3, height, width) in [0, 1]."""
        if self.reading is None or self.scorer.vae_space is None:
            raise ValueError("files need `reading`, and a scorer with the judge's `vae`")
        if len(paths) != len(prompts):
            raise ValueError(f"got {len(prompts)} prompts for {len(paths)} videos")
        read = (self.reading.fps, self.reading.num_frames, None)
        if any(asked not in (None, own) for asked, own in zip(sampling, read, strict=True)):
            raise ValueError(
                f"expected fps, num_frames and max_pixels None or {read}, as the videos are read, "
                f"got {sampling}: `reading` says how, when this object is made"
            )
        step = self.scorer.vae_space.temporal_compression
        options = {**self.reading.arguments(), "temporal_compression": step}
        return [read_video(path, **options).batch()[0] for path in paths]

    def named(self, scores: RewardOutput, use_norm: bool) -> list[NamedScores]:
        """Scores of each clip under VideoAlign's names."""
        found = self.groups.scores(scores.parts, normalize=use_norm)
        found["Overall"] = scores.rewards if use_norm else scores.raw
        numbers = {name: values.tolist() for name, values in found.items()}
        count = len(scores.rewards)
        return [NamedScores({name: numbers[name][i] for name in numbers}) for i in range(count)]
