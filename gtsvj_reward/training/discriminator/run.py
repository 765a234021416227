"""From folders of latents to a judge on disk; the work of `gtsvj train-discriminator`."""

from transformers import set_seed

from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.discriminator.data import RealAndGenerated
from gtsvj_reward.training.discriminator.settings import DiscriminatorConfig
from gtsvj_reward.training.discriminator.trainer import DiscriminatorTrainer
from gtsvj_reward.training.run import build_judge
from gtsvj_reward.training.splits import check_apart, check_real, hold_out


def train_discriminator(
    judge_arguments: JudgeArguments, args: DiscriminatorConfig
) -> DiscriminatorTrainer:
    """Train stage 1 and write the judge to `output_dir`; the work of `gtsvj train-discriminator`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    real, held_out_real = folders(args.real, args.held_out_real, "held_out_real", args)
    generated: list[ClipInfo] = []
    held_out_generated: list[ClipInfo] = []
    if args.generated is not None:
        generated, held_out_generated = folders(
            args.generated, args.held_out_generated, "held_out_generated", args
        )
        check_real([*real, *held_out_real], [*generated, *held_out_generated])
        check_apart([*real, *generated], [*held_out_real, *held_out_generated])
    space = real[0].space
    trainer = DiscriminatorTrainer(
        build_judge(judge_arguments, space, seed=args.seed),
        args,
        train_dataset=RealAndGenerated(real, generated),
        eval_dataset=RealAndGenerated(held_out_real, held_out_generated),
    )
    trainer.run()
    return trainer


def folders(
    train: str, held_out: str | None, setting: str, args: DiscriminatorConfig
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
