"""From arguments to a fresh judge."""

from collections.abc import Sequence
from dataclasses import fields

from gtsvj_reward.assets import folder_of, lasting_name
from gtsvj_reward.backbones import backbone_for, load_scheduler, load_transformer
from gtsvj_reward.backbones.load import check_expert
from gtsvj_reward.dtypes import dtype_of
from gtsvj_reward.judge import Aspect, JudgeConfig, JudgeSettings, VideoJudge
from gtsvj_reward.judge.heads import TimePooling
from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.training.arguments import JudgeArguments


def build_judge(
    arguments: JudgeArguments,
    space: LatentSpace,
    *,
    seed: int,
    aspects: Sequence[Aspect] = (),
    time_pooling: TimePooling = "mean",
) -> VideoJudge:
    """A fresh judge on a base model from disk or a hub: a discriminator, or one of aspects.

    Args:
        arguments: what to build.
        space: the latent space of the clips it will see.
        seed: seeds head and adapter.
        aspects: for a judge of stage `aspects` that was no discriminator before.
        time_pooling: of such a judge.

    Raises:
        ValueError: without a base model.
    """
    if not arguments.base_model:
        raise ValueError("`base_model` must be set: a bundled name, a folder or a hub id")
    transformer = load_transformer(
        folder_of(arguments.base_model), depth=arguments.depth, revision=arguments.base_revision
    )
    backbone = backbone_for(transformer)
    if arguments.base_dtype != "auto":
        backbone.cast(dtype_of(arguments.base_dtype))
    chosen = {item.name: getattr(arguments, item.name) for item in fields(JudgeSettings)}
    if arguments.surprise and arguments.depth is not None:
        raise ValueError("`surprise` takes all blocks: leave out `depth`, and name fewer `taps`")
    if arguments.surprise:
        check_expert(
            folder_of(arguments.base_model), arguments.surprise, revision=arguments.base_revision
        )
    chosen["base_model"] = lasting_name(arguments.base_model)
    if arguments.readout == "moments":
        chosen["lora_rank"] = 0
        refuse_adapter(arguments)
    reads = arguments.text_input == "prompt"
    if reads and arguments.readout != "moments":
        raise ValueError(
            "`text_input: prompt` is for `--readout moments`: LoRA training shows no prompts"
        )
    sees = arguments.image_input == "image"
    if sees and arguments.readout != "moments":
        raise ValueError(
            "`image_input: image` is for `--readout moments`: LoRA training shows no images"
        )
    config = JudgeConfig(
        **chosen,
        text_input="prompt" if reads else "zeros",
        prompt_dropout=arguments.prompt_dropout if reads else 0.0,
        image_input="image" if sees else "none",
        latent_space=space,
        stage="aspects" if aspects else "discriminator",
        aspects=tuple(aspects),
        time_pooling=time_pooling,
    )
    scheduler = None
    if (config.surprise or reads or sees) and not backbone.flow_matching:
        scheduler = load_scheduler(
            folder_of(arguments.base_model), revision=arguments.base_revision
        )
    return VideoJudge.from_transformer(backbone, config, seed=seed, scheduler=scheduler)


ADAPTER = ("lora_rank", "lora_alpha", "lora_placement", "head_width", "token_pooling")
"""Settings of `readout: mlp`."""


def refuse_adapter(arguments: JudgeArguments) -> None:
    """Refuse settings that a moment readout does not have."""
    given = [
        item.name
        for item in fields(arguments)
        if item.name in ADAPTER and getattr(arguments, item.name) not in (item.default, 0)
    ]
    if given:
        raise ValueError(
            f"{given} are settings of `--readout mlp`: a moment readout has no hidden layer, and "
            "gets an adapter only by `gtsvj train-discriminator --readout moments --lora_rank 8`; "
            "leave them out"
        )
