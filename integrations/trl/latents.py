"""A reward for clips that come with the completions."""

from collections.abc import Sequence
from functools import partial
from os import PathLike
from typing import Any, Literal

import torch
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
from gtsvj_reward.integrations.trl.texts import prompt_text
from gtsvj_reward.latents.store import load_clip
from gtsvj_reward.reward import AnyReward, as_reward
from gtsvj_reward.reward.inputs import AnyNumber, AnySpace, as_count, as_number, as_space
from gtsvj_reward.reward.texts import Encode, check_encode


class LatentsRewardFunc:
    """Scores the clips of a column; pickles if the reward does.

    A column of the dataset holds the same clip for all completions of a prompt, which then all get
    the same reward: the advantages are 0 and nothing is learnt. A policy learns only from clips
    that depend on its completions. Make them in the trainer's `rollout_func` and return them as an
    extra field of this name.

    Example:
        ```python
        trainer = GRPOTrainer(
            model,
            reward_funcs=LatentsRewardFunc(reward, column="clip"),
            args=args,
            train_dataset=requests,
            rollout_func=rollout_with_clips,
            processing_class=tokenizer,
        )
        trainer.train()
        ```

    Args:
        reward: a judge, or a combination of judges.
        space: latent space of clips that are given as values; None: you vouch for it. A latent file
            says itself what space it is of, and its frame rate.
        fps: frames per second of clips that are given as values.
        column: holds per completion a clip (time, channel, height, width), as a tensor, an array
            or nested lists, or the path of a latent file.
        num_frames: frames that the generator of clips given as values was asked for; drops the
            padding of CogVideoX 1.5.
        normalize: as for `GTSVJReward`.
        missing: what None in the column means: `error` refuses it, `none` gives the row None.
        name: in the trainer's logs.
        encode: prompts -> what the text encoder says of them, a `PromptEncoder` of the pipeline
            that made the clips; for a reward that reads prompts.
        prompt_column: holds per completion the prompt of its clip, a text, or a conversation that
            ends with it; `completions`, say, where the policy writes prompts.

    Raises:
        ValueError: for a reward that needs prompts without `encode`.
    """

    def __init__(
        self,
        reward: AnyReward,
        *,
        space: AnySpace | None = None,
        fps: AnyNumber | None = None,
        column: str = "latents",
        num_frames: AnyNumber | None = None,
        normalize: bool = True,
        missing: Literal["error", "none"] = "error",
        name: str = "gtsvj_latents",
        encode: Encode | None = None,
        prompt_column: str = "prompts",
    ) -> None:
        check_choice("missing", missing, ("error", "none"))
        self.reward = as_reward(reward)
        check_encode(self.reward, encode)
        self.encode, self.prompt_column = encode, prompt_column
        self.kind: Kind = (
            as_space(space),
            as_number("fps", fps),
            as_count("num_frames", num_frames),
        )
        self.column = column
        self.normalize = normalize
        self.missing = missing
        self.__name__ = name

    def __call__(
        self, prompts: Sequence[Text], *, log_metric: LogMetric | None = None, **columns: Any
    ) -> list[float | None]:
        """One score per completion, in their order; records no gradient.

        Args:
            prompts: one per completion; read as `prompt_column`, else only counted.
            log_metric: of the trainer; gets mean and standard deviation of what scores are made of
                (raw score and aspects; the parts of a combination).
            columns: whatever else the trainer passes; `column` is read.

        Raises:
            ValueError: for no such column, one of another length, rows without a clip, or a value
                that is not a clip.
            FileNotFoundError, LatentFileError: for a path that leads to no valid latent file.
            LatentSpaceError, GeometryError, NonFiniteError: from the reward, with the rows.
        """
        items = self.items(columns, len(prompts))
        clips = {row: self.clip(row, item) for row, item in enumerate(items) if item is not None}
        said = {"prompts": prompts, **columns}
        encode = None if self.encode is None else partial(self.text, self.encode, said)
        scored = score_rows(self.reward, clips, normalize=self.normalize, encode=encode)
        log_parts(log_metric, self.__name__, list(scored.values()))
        return [scored[row].score if row in scored else None for row in range(len(items))]

    def text(self, encode: Encode, columns: dict[str, Any], rows: Sequence[int]) -> TextCondition:
        """What the encoder says of the prompts of some rows."""
        if self.prompt_column not in columns:
            raise ValueError(
                f"no column {self.prompt_column!r} reached the reward, only {sorted(columns)}: "
                "`prompt_column` names the one with the prompts of the clips"
            )
        prompts = columns[self.prompt_column]
        if len(prompts) != len(columns["prompts"]):
            raise ValueError(
                f"column {self.prompt_column!r} has {len(prompts)} rows for "
                f"{len(columns['prompts'])} completions"
            )
        return encode([prompt_text(prompts[row]) for row in rows])

    def items(self, columns: dict[str, Any], count: int) -> Sequence[Any]:
        """The column, if it has as many rows as there are completions, and a clip in each."""
        if self.column not in columns:
            raise ValueError(
                f"no column {self.column!r} reached the reward, only {sorted(columns)}: put it in "
                "the dataset, with remove_unused_columns=False, or return it from `rollout_func`"
            )
        items: Sequence[Any] = columns[self.column]
        if len(items) != count:
            raise ValueError(
                f"column {self.column!r} has {len(items)} rows for {count} completions"
            )
        empty = [row for row, item in enumerate(items) if item is None]
        if empty and self.missing == "error":
            raise ValueError(
                f"{len(empty)} of {count} rows have no clip in {self.column!r}: rows {empty}. "
                'Provide them, or give such rows no reward with missing="none"'
            )
        return items

    def clip(self, row: int, item: Any) -> tuple[Kind, Tensor]:
        """What the clip of a row is scored as, and the clip."""
        if isinstance(item, str | PathLike):
            stored = load_clip(str(item))
            return (stored.space, stored.fps, None), stored.latents
        if isinstance(item, Tensor):
            return self.kind, item
        try:
            return self.kind, torch.as_tensor(item, dtype=torch.float32)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"row {row} of column {self.column!r} is not a clip (time, channel, height, "
                f"width): {error}"
            ) from error


latents_reward_func = LatentsRewardFunc
"""The class, under the name of the function that it stands for in `reward_funcs`."""
