"""From folders of latents to a judge on disk; the work of `gtsvj train-discriminator`."""

from transformers import set_seed

from gtsvj_reward.latents.space import LatentSpace
from gtsvj_reward.latents.store import ClipInfo, LatentFolder
from gtsvj_reward.training.arguments import JudgeArguments
from gtsvj_reward.training.data import split
from gtsvj_reward.training.discriminator.settings import DiscriminatorConfig
from gtsvj_reward.training.discriminator.trainer import DiscriminatorTrainer
from gtsvj_reward.training.run import build_judge, check_apart, resume_point


def train_discriminator(
    judge_arguments: JudgeArguments, args: DiscriminatorConfig
) -> DiscriminatorTrainer:
    """Train stage 1 and write the judge to `output_dir`; the work of `gtsvj train-discriminator`.

    An output folder that holds checkpoints of an interrupted run is resumed.

    Returns:
        The trainer, with its log and the trained judge.
    """
    set_seed(args.seed)
    real, held_out_real, space = folders(
        args.real, args.held_out_real, args.held_out_fraction, args.seed
    )
    generated: list[ClipInfo] = []
    held_out_generated: list[ClipInfo] = []
    if args.generated is not None:
        generated, held_out_generated, _ = folders(
            args.generated, args.held_out_generated, args.held_out_fraction, args.seed
        )
    trainer = DiscriminatorTrainer(
        build_judge(judge_arguments, space, seed=args.seed),
        args,
        real=real,
        generated=generated,
        held_out_real=held_out_real,
        held_out_generated=held_out_generated,
    )
    trainer.train(resume_from_checkpoint=resume_point(args))
    trainer.finish()
    trainer.save_state()
    return trainer


def folders(
    train: str, held_out: str | None, fraction: float, seed: int
) -> tuple[list[ClipInfo], list[ClipInfo], LatentSpace]:
    """Clips to train on, clips held out, and their latent space."""
    folder = LatentFolder(train)
    if held_out is None:
        return *split(folder.infos, fraction, seed), folder.space
    apart = LatentFolder(held_out).infos
    check_apart(folder.infos, apart)
    return folder.infos, apart, folder.space
