"""`gtsvj train-...` and `gtsvj calibrate-perturbations`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import with_config


def train_discriminator(argv: list[str]) -> int:
    """`gtsvj train-discriminator`."""
    from transformers import HfArgumentParser

    from gtsvj_reward.losses import contrastive_bound
    from gtsvj_reward.plotting import plot_training
    from gtsvj_reward.training import DiscriminatorConfig, JudgeArguments, run

    parser = HfArgumentParser(
        (JudgeArguments, DiscriminatorConfig),
        prog="gtsvj train-discriminator",
        description="Stage 1: train the energy judge. --config FILE.yaml holds defaults.",
        allow_abbrev=False,
    )
    judge, config = parser.parse_args_into_dataclasses(with_config(argv))
    trainer = run.train_discriminator(judge, config)
    if trainer.is_world_process_zero():
        plot_training(
            trainer.state.log_history,
            bound=contrastive_bound(config.beta),
            path=Path(config.output_dir) / "training.png",
        )
        print(f"judge written to {config.output_dir}")
    return 0


def calibrate_perturbations(argv: list[str]) -> int:
    """`gtsvj calibrate-perturbations`."""
    from transformers import HfArgumentParser

    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.plotting import plot_calibration
    from gtsvj_reward.training import (
        CalibrationSettings,
        JudgeArguments,
        build_judge,
        calibrate_perturbations as calibrate,
    )

    parser = HfArgumentParser(
        (JudgeArguments, CalibrationSettings),
        prog="gtsvj calibrate-perturbations",
        description="Train on one perturbation at a time (A.1, A.2). --config FILE.yaml holds "
        "defaults.",
        allow_abbrev=False,
    )
    parser.add_argument("--real", type=Path, required=True, help="folder of real latent clips")
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON and picture")
    parser.add_argument("--device", default="cpu", help="where to train")
    judge, settings, rest = parser.parse_args_into_dataclasses(with_config(argv))
    clips = LatentFolder(rest.real)
    result = calibrate(
        lambda: build_judge(judge, clips.space, seed=settings.seed),
        clips.infos,
        settings,
        work=rest.out / "runs",
        device=rest.device,
    )
    result.save(rest.out / "perturbations.json")
    plot_calibration(
        result.gradient_norms,
        result.losses,
        decay_times=result.decay_times,
        probabilities=result.probabilities,
        epsilon=result.epsilons,
        path=rest.out / "calibration.png",
    )
    for kind, share in result.probabilities.items():
        time = result.decay_times[kind]
        print(f"{kind:<20} {share:.3f}  decay time {time if time else 'none (censored)'}")
    print(f"written to {rest.out / 'perturbations.json'}")
    return 0
