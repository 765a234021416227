"""From folders of latents to a judge on disk; the work of `gtsvj train-discriminator`."""

from transformers import set_seed

from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.discriminator.data import RealAndGenerated
from gtsvj_reward.training.discriminator.settings import DiscriminatorConfig, DiscriminatorData
from gtsvj_reward.training.discriminator.trainer import DiscriminatorTrainer
from gtsvj_reward.training.run import build_judge
from gtsvj_reward.training.splits import beside, check_apart, check_real, hold_out


def train_discriminator(
    judge_arguments: JudgeArguments, args: DiscriminatorConfig
) -> DiscriminatorTrainer:
    """Train stage 1 and write the judge to `output_dir`; the work of `gtsvj train-discriminator`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    train, held_out = real_and_generated(args)
    trainer = DiscriminatorTrainer(
        build_judge(judge_arguments, train.real[0].space, seed=args.seed),
        args,
        train_dataset=train,
        eval_dataset=held_out,
    )
    trainer.run()
    return trainer


def real_and_generated(args: DiscriminatorData) -> tuple[RealAndGenerated, RealAndGenerated]:
    """Clips to train on and clips held out, with no video on both sides."""
    real, held_out_real = folders(args.real, args.held_out_real, "held_out_real", args)
    generated: list[ClipInfo] = []
    held_out_generated: list[ClipInfo] = []
    if args.generated is not None:
        generated, held_out_generated = generated_folders(args.generated, args, real, held_out_real)
        check_real([*real, *held_out_real], [*generated, *held_out_generated])
        check_apart([*real, *generated], [*held_out_real, *held_out_generated])
    return (
        RealAndGenerated(real, generated),
        RealAndGenerated(held_out_real, held_out_generated),
    )


def folders(
    train: str, held_out: str | None, setting: str, args: DiscriminatorData
) -> tuple[list[ClipInfo], list[ClipInfo]]:
    """Clips to train on and clips held out."""
    infos = LatentFolder(train).infos
    return hold_out(
        infos,
        None if held_out is None else LatentFolder(held_out).infos,
        lambda info: [info],
        count=max(1, round(args.held_out_fraction * len(infos))),
        args=args,
        setting=setting,
    )


def generated_folders(
    generated: str, args: DiscriminatorData, real: list[ClipInfo], held_out_real: list[ClipInfo]
) -> tuple[list[ClipInfo], list[ClipInfo]]:
    """Generated clips to train on and held-out ones.

    A clip that was made from a real one (`gtsvj negatives`) is on that one's side. Others are drawn
    until the share that is to be held out is reached.
    """
    if args.held_out_generated is not None:
        return folders(generated, args.held_out_generated, "held_out_generated", args)
    infos = LatentFolder(generated).infos
    train, held_out, free = beside(infos, real, held_out_real, args.group_by)
    count = max(1, round(args.held_out_fraction * len(infos))) - len(held_out)
    if free and count > 0:
        free, drawn = hold_out(
            free, None, lambda info: [info], count=count, args=args, setting="held_out_generated"
        )
        held_out = held_out + drawn
    return train + free, held_out
