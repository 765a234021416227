"""Rewards of the predicted clean latents, step by step, as a pipeline's callback."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from types import TracebackType
from typing import Any, TypeVar

import torch

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.reward import AnyReward, as_reward
from gtsvj_reward.sampling.clean import CleanLatents, Step, predicted_clean_latents
from gtsvj_reward.sampling.pipelines import check_scored, latent_space
from gtsvj_reward.sampling.scoring import Scoring

T = TypeVar("T", bound="RewardCallback")


@dataclass(eq=False, repr=False)
class RewardCallback:
    """Records the reward of the predicted clean latents x̂₀ against the step; changes nothing.

        with RewardCallback(pipe, reward, num_frames=49) as recorder:
            pipe(prompt, num_frames=49, callback_on_step_end=recorder)
        recorder.records  # [{"step": 0, "timestep": 999.0, "rewards": [-1.3]}, ...]

    A judge of clean latents has not seen the blurred predictions of early steps: its scores become
    comparable with those of finished clips late in the schedule only.

    Raises:
        ValueError: for a pipeline or scheduler that is not known, or a reward that needs prompts
            without `text`.
    """

    pipe: Any
    """A `CogVideoXPipeline`, `HunyuanVideoPipeline` or `WanPipeline`, with a scheduler that
    `predicted_clean_latents` knows."""
    reward: AnyReward
    """Anything that is called as `GTSVJReward` is."""
    _: KW_ONLY
    num_frames: int
    """What the pipeline is called with."""
    steps: Sequence[int] | None = None
    """Indices of the steps to take, from 0; None: `default_steps`."""
    fps: float | None = None
    """Passed to the reward."""
    text: TextCondition | None = None
    """Prompt embeddings, one row per clip, or one for all."""
    normalize: bool = True
    """Passed to the reward."""

    def __post_init__(self) -> None:
        """Refuse what cannot be watched."""
        if self.steps is not None and (not self.steps or min(self.steps) < 0):
            raise ValueError(f"`steps` must be indices >= 0, at least one, got {list(self.steps)}")
        if self.text is None and as_reward(self.reward).needs_text:
            raise ValueError(
                "the reward reads prompts, and a callback does not get those of the pipeline: give "
                "`text`, for example text_of(pipe, prompts)"
            )
        check_scored(self.pipe)
        self.scoring = Scoring(
            reward=self.reward,
            space=latent_space(self.pipe),
            num_frames=self.num_frames,
            fps=self.fps,
            text=self.text,
            normalize=self.normalize,
        )
        self.records: list[dict[str, Any]] = []
        self.seen: CleanLatents | None = None
        self.stack = ExitStack()

    def __enter__(self: T) -> T:
        """Start watching the pipeline's scheduler."""
        if self.seen is not None:
            raise RuntimeError("this callback is in use already: make one for each block")
        self.seen = self.stack.enter_context(predicted_clean_latents(self.pipe))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the scheduler back as it was."""
        self.seen = None
        self.stack.close()

    def __call__(
        self, pipe: Any, index: int, _timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        """What the pipeline calls at the end of a step; returns the tensors to go on with.

        Raises:
            RuntimeError: outside the `with` block, or from another pipeline.
            ValueError: if a chosen step does not exist in this run.
        """
        if self.seen is None or pipe is not self.pipe:
            raise RuntimeError(
                "call the pipeline that was given, inside the block: "
                "`with RewardCallback(pipe, ...) as callback: pipe(callback_on_step_end=callback)`"
            )
        count = pipe.num_timesteps
        steps = self.default_steps(count) if self.steps is None else self.steps
        if max(steps) >= count:
            raise ValueError(
                f"step {max(steps)} was chosen, but this run has {count} steps, 0 to {count - 1}"
            )
        return self.take(self.seen.latest, tensors) if index in steps else tensors

    def default_steps(self, count: int) -> range:
        """Indices of the steps to score in a run of `count` steps, if none were named."""
        return range(count)

    def take(self, step: Step, tensors: dict[str, Any]) -> dict[str, Any]:
        """Record a chosen step; return the tensors unchanged."""
        with torch.no_grad():
            rewards = self.scoring.scores(step.clean, unfinished=True)
        self.records.append(
            {"step": step.index, "timestep": step.timestep, "rewards": rewards.tolist()}
        )
        return tensors
