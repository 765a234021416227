"""A reward for language models that write the prompts of videos."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from gtsvj_reward.backbones import TextCondition
from gtsvj_reward.integrations.trl.rows import (
    Kind,
    LogMetric,
    Text,
    check_choice,
    log_parts,
    score_rows,
)
from gtsvj_reward.integrations.trl.texts import completion_text, noise_seed
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.reward import AnyReward, as_reward, text_of

LogExtra = Callable[[str, list[Any]], None]
"""Takes the name of a column of TRL's completions table and one value per completion."""


class PromptRewardFunc:
    """Makes a video of each completion and scores it, so that a policy learns to write prompts.

    **A judge that ignores the prompt, as the paper's does, is asked whether the video looks good,
    and never whether it shows what was asked for.** Such a reward pushes prompts toward what
    renders well: the policy may forget the request altogether. `aspects` and `weights` do not
    change that. Train with a second reward that compares completion and request.

    All completions of a prompt start from the same noise in a step, whichever process they are on:
    it is drawn from the seed, the prompt and the step, so that prompts are compared and not noises.
    Completions of a prompt with equal text are generated once and get equal rewards.

    Pickles if reward, pipeline and `to_prompt` do.

    Example:
        ```python
        trainer = GRPOTrainer(
            model,
            reward_funcs=PromptRewardFunc(
                reward, pipe, num_frames=9, height=64, width=96, num_inference_steps=2,
                guidance_scale=6.0, fps=8.0, seed=0, batch_size=4,
            ),
            args=args,
            train_dataset=requests,
            processing_class=tokenizer,
        )
        trainer.train()
        ```

    Args:
        reward: a judge, or a combination of judges, that takes no prompt.
        pipe: a diffusers `CogVideoXPipeline`, on the device that it generates on.
        num_frames: frames of a video, 4f + 1.
        height: of a video, in pixels.
        width: of a video, in pixels.
        num_inference_steps: denoising steps.
        guidance_scale: strength of the guidance; 1 or less is none.
        negative_prompt: as for the pipeline.
        use_dynamic_cfg: as for the pipeline.
        fps: frames per second that the videos are meant for.
        seed: of the noise.
        batch_size: videos that are generated at once.
        normalize: as for `GTSVJReward`.
        to_prompt: finds the video's prompt in a completion.
        empty: what a completion without text means: `error` refuses it, `none` gives it None.
        too_long: what a completion beyond the pipeline's text length means: `error` refuses it,
            `truncate` lets the pipeline cut off its end, and logs how much.
        name: in the trainer's logs.

    Raises:
        LatentSpaceError: for a pipeline of another family.
        ValueError: for a number of frames that CogVideoX does not have, or an unknown choice.
    """

    def __init__(
        self,
        reward: AnyReward,
        pipe: Any,
        *,
        num_frames: int,
        height: int,
        width: int,
        num_inference_steps: int,
        guidance_scale: float,
        negative_prompt: str | None = None,
        use_dynamic_cfg: bool = False,
        fps: float | None = None,
        seed: int = 0,
        batch_size: int = 1,
        normalize: bool = True,
        to_prompt: Callable[[Text], str] = completion_text,
        empty: Literal["error", "none"] = "error",
        too_long: Literal["error", "truncate"] = "error",
        name: str = "gtsvj_prompt",
    ) -> None:
        check_choice("empty", empty, ("error", "none"))
        check_choice("too_long", too_long, ("error", "truncate"))
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}")
        self.space = LatentSpace.from_pipeline(pipe)
        self.space.latent_frames(num_frames)
        self.reward = as_reward(reward)
        self.pipe = pipe
        self.num_frames = num_frames
        self.kind: Kind = (self.space, fps, None)
        self.sampling = {
            "num_frames": num_frames,
            "height": height,
            "width": width,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "negative_prompt": negative_prompt,
            "use_dynamic_cfg": use_dynamic_cfg,
            # The pipeline's own default is right for the published models only.
            "max_sequence_length": pipe.transformer.config.max_text_seq_length,
            "output_type": "latent",
        }
        self.seed = seed
        self.batch_size = batch_size
        self.normalize = normalize
        self.to_prompt = to_prompt
        self.empty = empty
        self.too_long = too_long
        self.__name__ = name

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        *,
        trainer_state: Any,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **_columns: Any,
    ) -> list[float | None]:
        """One score per completion, in their order; records no gradient.

        Args:
            prompts: what the policy was given, one per completion.
            completions: what it wrote.
            trainer_state: of the trainer; its `global_step` is a part of the noise's seed.
            log_metric: of the trainer; gets mean and standard deviation of what scores are made of,
                and with `too_long="truncate"` the share of completions that were cut.
            log_extra: of the trainer; gets with `too_long="truncate"` the tokens cut off each.
            _columns: whatever else the trainer passes; not read.

        Raises:
            ValueError: for completions that are empty or too long, with their rows; or no text.
            LatentSpaceError, GeometryError, NonFiniteError: from the reward, with the rows.
        """
        texts = [self.to_prompt(completion) for completion in completions]
        self.check_texts(texts, log_metric, log_extra)
        noises = [noise_seed(self.seed, prompt, trainer_state.global_step) for prompt in prompts]
        rows = {row: (text, noises[row]) for row, text in enumerate(texts) if text}
        # A video that is asked for twice is the same to the last bit only if it is generated once.
        first: dict[tuple[str, int], int] = {}
        for row, wish in rows.items():
            first.setdefault(wish, row)
        latents = self.generate(list(first))
        clips = {row: (self.kind, clip) for row, clip in zip(first.values(), latents, strict=True)}

        def encode(rows: Sequence[int]) -> TextCondition:
            return text_of(self.pipe, [texts[row] for row in rows])

        videos = score_rows(self.reward, clips, normalize=self.normalize, encode=encode)
        scored = {row: videos[first[wish]] for row, wish in rows.items()}
        log_parts(log_metric, self.__name__, list(scored.values()))
        return [scored[row].score if row in scored else None for row in range(len(texts))]

    def check_texts(
        self, texts: Sequence[str], log_metric: LogMetric | None, log_extra: LogExtra | None
    ) -> None:
        """Refuse, or report, prompts without text and prompts that the pipeline would cut."""
        empty = [row for row, text in enumerate(texts) if not text]
        if empty and self.empty == "error":
            raise ValueError(
                f"{len(empty)} of {len(texts)} completions have no text: rows {empty}. Let the "
                'policy write at least one word, or give such rows no reward with empty="none"'
            )
        limit = self.sampling["max_sequence_length"]
        cut = [max(0, len(self.pipe.tokenizer(text).input_ids) - limit) for text in texts]
        long = [row for row, tokens in enumerate(cut) if tokens]
        if long and self.too_long == "error":
            raise ValueError(
                f"{len(long)} of {len(texts)} completions exceed the {limit} tokens that the "
                f"pipeline reads, by up to {max(cut)}: rows {long}. Lower max_completion_length, "
                'or score what the pipeline reads of them with too_long="truncate"'
            )
        if self.too_long == "truncate" and log_metric is not None:
            log_metric(f"rewards/{self.__name__}/cut_share", len(long) / len(texts))
        if self.too_long == "truncate" and log_extra is not None:
            log_extra(f"{self.__name__}/cut_tokens", cut)

    @torch.no_grad()
    def generate(self, wishes: Sequence[tuple[str, int]]) -> list[Float[Tensor, "_ _ _ _"]]:
        """Clips (time, channel, height, width) of pairs of prompt and seed, without padding."""
        clips: list[Tensor] = []
        for start in range(0, len(wishes), self.batch_size):
            batch = wishes[start : start + self.batch_size]
            # One generator per video, so that its noise does not depend on the rest of the batch.
            noise = [torch.Generator().manual_seed(seed) for _, seed in batch]
            out = self.pipe([text for text, _ in batch], generator=noise, **self.sampling)
            clips.extend(self.space.unpad(out.frames, self.num_frames))
        return clips


prompt_reward_func = PromptRewardFunc
"""The class, under the name of the function that it stands for in `reward_funcs`."""
