"""Stage 1 on moments with LoRA: the closed form first, then gradient descent from it."""

from dataclasses import replace

from transformers import set_seed

from gtsvj_reward.judge import JudgeConfig, VideoJudge
from gtsvj_reward.judge.reading import check_adapter_is_read
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.closed_form.features import FeatureCache
from gtsvj_reward.training.closed_form.refit import refit
from gtsvj_reward.training.discriminator.data import ContrastivePairs, RealAndGenerated
from gtsvj_reward.training.discriminator.fit import drawn
from gtsvj_reward.training.discriminator.run import real_and_generated
from gtsvj_reward.training.discriminator.settings import DiscriminatorTuning
from gtsvj_reward.training.discriminator.trainer import DiscriminatorTrainer
from gtsvj_reward.training.run import build_judge


def tune_discriminator(
    judge_arguments: JudgeArguments, args: DiscriminatorTuning
) -> DiscriminatorTrainer:
    """Train LoRA and a moment readout from the closed form on, and write the judge.

    The work of `gtsvj train-discriminator --readout moments --lora_rank 8`. Later stages are solved
    in closed form on the moments of the adapted base. An output folder that holds checkpoints of an
    interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    train, held_out = real_and_generated(args)
    trainer = DiscriminatorTrainer(
        closed_form_with_lora(judge_arguments, args, train),
        args,
        train_dataset=train,
        eval_dataset=held_out,
    )
    trainer.run()
    return trainer


def closed_form_with_lora(
    judge_arguments: JudgeArguments, args: DiscriminatorTuning, train: RealAndGenerated
) -> VideoJudge:
    """A judge fitted to the frozen base, with fresh LoRA, which changes nothing yet."""
    frozen = replace(judge_arguments, lora_rank=0, lora_alpha=8.0, lora_placement="last")
    judge = build_judge(frozen, train.real[0].space, seed=args.seed).to(args.device)
    wanted = with_lora(judge.config, judge_arguments)  # refused now, not after clips were read
    check_adapter_is_read(wanted, wanted.taps or (), judge.backbone.depth)
    pairs = ContrastivePairs(
        train, sampler=args.sampler(), truncation=args.truncation(), seed=args.seed
    )
    cache = FeatureCache(judge, args.feature_folder(), batch_size=args.per_device_eval_batch_size)
    contrast = drawn(pairs, args.draws, args.group_by)
    fitted = refit(judge, cache, contrast=contrast, beta=args.beta)
    record = {**fitted.config.training, "method": "closed form, then LoRA from it"}
    config = with_lora(replace(fitted.config, training=record), judge_arguments)
    adapted = VideoJudge(
        fitted.backbone,
        config,
        stored_text=fitted.stored_text,
        seed=args.seed,
    )
    adapted.head.load_state_dict(fitted.head.state_dict())
    return adapted.to(args.device)


def with_lora(config: JudgeConfig, arguments: JudgeArguments) -> JudgeConfig:
    """The config of a frozen judge, with the LoRA that is asked for.

    Raises:
        ValueError: for a judge that LoRA does not go with.
    """
    return replace(
        config,
        lora_rank=arguments.lora_rank,
        lora_alpha=arguments.lora_alpha,
        lora_placement=arguments.lora_placement,
    )
