"""Parts that each stage adds to a judge, and the stage that must come before."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from gtsvj_reward.backbones import Backbone
from gtsvj_reward.judge.config import Aspect, JudgeConfig
from gtsvj_reward.judge.heads import AspectHead, EnergyHead, TimePooling, TokenPooling
from gtsvj_reward.judge.reading import feature_widths
from gtsvj_reward.judge.readout import MomentReadout
from gtsvj_reward.judge.settings import Stage

Part = Literal["adapter", "head", "preference"]
Head = TypeVar("Head", bound=nn.Module)

NOT_MEASURED: dict[str, Any] = {
    "reward_mean": None,
    "reward_std": None,
    "reward_data": None,
    "aspect_mean": None,
    "aspect_covariance": None,
}
"""What a checkpoint measured, and the next stage has yet to."""


def make_head(
    backbone: Backbone, config: JudgeConfig, seed: int
) -> EnergyHead | AspectHead | MomentReadout:
    """The head of a stage, drawn from the seed without touching the global generator.

    A moment readout starts as nothing: it is filled by a fit, or from a checkpoint.
    """
    dim = backbone.dim
    if config.readout == "moments":
        return MomentReadout(
            feature_widths(backbone, config),
            max(1, len(config.aspects)),
            energy=config.has_energy,
            penalties=config.penalties,
            seed=config.projection_seed,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.stage == "discriminator":
            return EnergyHead(dim, config.head_width, config.token_pooling)
        energy = None
        if config.energy_width is not None:
            energy = EnergyHead(dim, config.energy_width, config.energy_pooling)
        return AspectHead(
            dim,
            config.head_width,
            len(config.aspects),
            pooling=config.token_pooling,
            time_pooling=config.time_pooling,
            energy=energy,
        )


def aspects_config(
    before: JudgeConfig,
    aspects: Sequence[Aspect],
    *,
    head_width: int | None,
    token_pooling: TokenPooling,
    time_pooling: TimePooling,
    keep_energy: bool,
) -> JudgeConfig:
    """The config of stage 2 after that of a discriminator; see `VideoJudge.start_aspects`.

    Raises:
        ValueError: if it is not that of a discriminator, or there are no aspects.
    """
    require_stage(before, "discriminator", "aspects")
    refuse_moments(before)
    return replace(
        before,
        stage="aspects",
        aspects=tuple(aspects),
        head_width=head_width or before.head_width,
        token_pooling=token_pooling,
        time_pooling=time_pooling,
        energy_width=before.head_width if keep_energy else None,
        energy_pooling=before.token_pooling if keep_energy else "mean",
        **NOT_MEASURED,
    )


def head_after(before: nn.Module, head: Head) -> Head:
    """A new head where the one before it is, with that one inside if it keeps an energy."""
    head = head.to(next(before.parameters()))
    if isinstance(head, AspectHead) and head.energy_head is not None:
        head.energy_head.load_state_dict(before.state_dict())
    return head


def preference_layer(config: JudgeConfig) -> nn.Linear:
    """The linear layer from aspects to the score; it starts as their mean."""
    layer = nn.Linear(len(config.aspects), 1)
    nn.init.constant_(layer.weight, 1 / len(config.aspects))
    nn.init.zeros_(layer.bias)
    return layer


def require_stage(config: JudgeConfig, stage: Stage, following: Stage) -> None:
    """Refuse a judge of another stage than the one that the following stage starts from."""
    if config.stage != stage:
        raise ValueError(
            f"stage {following!r} starts from a judge of stage {stage!r}, "
            f"this one is of stage {config.stage!r}"
        )


def refuse_moments(config: JudgeConfig) -> None:
    """Reject training of a readout that is solved in closed form."""
    if config.readout == "moments":
        raise ValueError(
            "a judge with readout='moments' is not trained step by step: its stages are solved by "
            "`gtsvj_reward.training.refit`"
        )
