"""`gtsvj train-...` and `gtsvj calibrate-perturbations`."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtsvj_reward.cli.parsing import running
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.flags import with_config

DEFAULT_READOUT = "moments"
"""Default readout of a new judge."""

TUNED = "moments with --lora_rank"
"""Key of the settings of LoRA on moments."""

NEXT = {
    "discriminator": (
        ("label clips while the judge learns",
         "label VIDEOS --latents LATENTS --judge {folder} --out labels"),
        ("fit it to comparisons",
         "train-preference --from_judge {folder} --latents LATENTS --comparisons "
         "labels/comparisons.csv --output_dir NEXT"),
        ("or to ratings of aspects",
         "train-aspects --from_judge {folder} --latents LATENTS --ratings labels/ratings.csv "
         "--output_dir NEXT"),
    ),
    "aspects": (
        ("fit one score to comparisons",
         "train-preference --from_judge {folder} --latents LATENTS --comparisons PAIRS "
         "--output_dir NEXT"),
    ),
    "preference": (
        ("evaluate it on held-out labels",
         "evaluate --benchmark pairs --data HELD_OUT --latents LATENTS --judge {folder} "
         "--out eval"),
    ),
}  # fmt: skip
"""Stage -> next steps and their commands."""

if TYPE_CHECKING:
    from gtsvj_reward.judge import VideoJudge
    from gtsvj_reward.training.arguments import FitConfig


def train_discriminator(argv: list[str]) -> int:
    """`gtsvj train-discriminator`."""
    from gtsvj_reward import training
    from gtsvj_reward.losses import contrastive_bound
    from gtsvj_reward.plotting import check_matplotlib, plot_training

    judge, config = judge_and_config(
        "train-discriminator",
        "Stage 1: an energy judge from clips without labels.",
        {
            "mlp": training.DiscriminatorConfig,
            "moments": training.DiscriminatorFit,
            TUNED: training.DiscriminatorTuning,
        },
        argv,
    )
    if isinstance(config, training.DiscriminatorFit):
        return fit_and_report(training.fit_discriminator, judge, config)
    check_matplotlib()
    tunes = isinstance(config, training.DiscriminatorTuning)
    train = training.tune_discriminator if tunes else training.train_discriminator
    trainer = train(judge, config)
    if trainer.is_world_process_zero():
        plot_training(
            trainer.state.log_history,
            bound=contrastive_bound(config.beta),
            path=Path(config.output_dir) / "training.png",
        )
        report(trainer.judge, last_metrics(trainer.state.log_history), config.output_dir)
    return 0


def train_aspects(argv: list[str]) -> int:
    """`gtsvj train-aspects`."""
    from gtsvj_reward import training

    judge, config = judge_and_config(
        "train-aspects",
        "Stage 2: predict people's ratings of each aspect.",
        {"mlp": training.AspectConfig, "moments": training.AspectFit},
        argv,
    )
    if judge.readout == "moments":
        return fit_and_report(training.fit_aspects, judge, config)
    return train_and_report(training.train_aspects, judge, config)


def train_preference(argv: list[str]) -> int:
    """`gtsvj train-preference`."""
    from gtsvj_reward import training

    judge, config = judge_and_config(
        "train-preference",
        "Stage 3: one score from pairwise comparisons.",
        {"mlp": training.PreferenceConfig, "moments": training.PreferenceFit},
        argv,
    )
    if judge.readout == "moments":
        return fit_and_report(training.fit_preference, judge, config)
    return train_and_report(training.train_preference, judge, config)


def judge_and_config(
    command: str, description: str, configs: Mapping[str, type], argv: list[str]
) -> Any:
    """The judge arguments and the settings of a training command.

    They depend on the readout, and on whether moments get LoRA.

    Raises:
        ValueError: for settings that do not go with it.
    """
    from transformers import HfArgumentParser

    from gtsvj_reward.training import JudgeArguments

    words = with_config(argv)
    readout = chosen_readout(words)
    kind = TUNED if readout == "moments" and wants_lora(words) else readout
    if kind == TUNED and TUNED not in configs:
        raise ValueError(
            "LoRA on moments is trained by `gtsvj train-discriminator`, and kept by later stages: "
            "leave --lora_rank out, and start from such a judge (--from_judge)"
        )
    parser = HfArgumentParser(
        (JudgeArguments, configs.get(kind, configs["mlp"])),
        prog=f"gtsvj {command}",
        description=f"{description} --config FILE.yaml holds defaults. The settings listed are "
        f"those of --readout {kind}; there are {', '.join(configs)}. The default readout is that "
        f"of the starting judge, or {DEFAULT_READOUT}.",
        allow_abbrev=False,
    )
    running(parser).set_defaults(readout=readout)
    if kind != "moments":
        parser.add_argument("--help_all", action="help", help="also transformers' own settings")
        if "--help_all" not in words:
            hide_settings_of_transformers(parser)
    *chosen, unknown = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    if unknown:
        raise ValueError(
            f"--readout {kind} has no settings {unknown}: see `gtsvj {command} --readout "
            f"{readout} --help`; mlp is the paper's recipe, moments the closed form"
        )
    return chosen


def hide_settings_of_transformers(parser: argparse.ArgumentParser) -> None:
    """Hide settings of `TrainingArguments` that we do not document."""
    from transformers import TrainingArguments

    from gtsvj_reward.training.arguments import JudgeTrainingConfig

    theirs = {item.name for item in fields(TrainingArguments)} - {
        *JudgeTrainingConfig.__annotations__
    }
    shown = {"output_dir", "seed", "max_steps", "num_train_epochs", "per_device_train_batch_size"}
    for action in parser._actions:
        if action.dest in theirs - shown:
            action.help = argparse.SUPPRESS


def chosen_readout(words: list[str]) -> str:
    """The given readout, else that of the starting judge on disk, else the default."""
    from gtsvj_reward.assets import folder_of
    from gtsvj_reward.judge import read_config
    from gtsvj_reward.judge.checkpoint import CONFIG_FILE

    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--readout")
    chooser.add_argument("--from_judge")
    given = chooser.parse_known_args(words)[0]
    if given.readout is not None:
        return str(given.readout)
    folder = folder_of(given.from_judge or "")
    if given.from_judge and Path(folder, CONFIG_FILE).is_file():
        return read_config(folder).readout
    return DEFAULT_READOUT


def wants_lora(words: list[str]) -> bool:
    """Whether a rank is given, and is not 0."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--lora_rank", type=int, default=0)
    return bool(chooser.parse_known_args(words)[0].lora_rank)


def fit_and_report(fit: Callable[..., "VideoJudge"], arguments: Any, config: "FitConfig") -> int:
    """Fit a judge in closed form, in all processes of this run, and report."""
    state = processes(config.device)
    judge = fit(arguments, config)
    if state.is_main_process:
        report(judge, judge.config.training["held out"], config.output_dir)
    return 0


def train_and_report(train: Callable[..., Any], arguments: Any, config: Any) -> int:
    """Train stage 2 or 3, draw its curves and report."""
    from gtsvj_reward.plotting import check_matplotlib, plot_stage

    check_matplotlib()
    trainer = train(arguments, config)
    if trainer.is_world_process_zero():
        history = trainer.state.log_history
        plot_stage(history, path=Path(config.output_dir) / "training.png")
        report(trainer.judge, last_metrics(history), config.output_dir)
    return 0


def last_metrics(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of the last evaluation on held-out clips."""
    entry = next((entry for entry in reversed(history) if "eval_loss" in entry), {})
    start = "eval_"
    return {name.removeprefix(start): v for name, v in entry.items() if name.startswith(start)}


def report(judge: "VideoJudge", held_out: Mapping[str, float], folder: str) -> None:
    """Print held-out metrics, the folder and the next steps."""
    for name, value in held_out.items():
        print(f"held out: {name:<32} {value:g}")
    print(f"\n{verdict(held_out)}\njudge: {folder}")
    for name, said in (("README.md", "its card"), ("training.png", "its curves")):
        if (Path(folder) / name).is_file():
            print(f"{said}: {Path(folder) / name}")
    then = NEXT[judge.config.stage]
    steps = [("score clips", "score {folder} LATENTS --out scores.csv"), *then]
    print("next:")
    for said, command in steps:
        print(f"  {said}:\n    gtsvj {command.format(folder=folder)}")


def verdict(held_out: Mapping[str, float]) -> str:
    """The held-out metrics of any stage, in a sentence."""
    kinds = {n: v for n, v in held_out.items() if n.startswith("accuracy/")}
    if kinds:
        worst = min(kinds, key=kinds.__getitem__)
        return (
            "On held-out pairs of a real and a faulty clip, it scores the real one higher in "
            f"{min(kinds.values()):.0%} ({worst.removeprefix('accuracy/')}, the worst) to "
            f"{max(kinds.values()):.0%}."
        )
    if "accuracy_without_ties" in held_out:
        pairs = held_out["pairs"] - held_out["human_ties"]
        return (
            f"It agrees with people on {held_out['accuracy_without_ties']:.0%} of "
            f"{pairs:g} held-out pairs without ties; chance is 50%."
        )
    ranks = {n: v for n, v in held_out.items() if n.startswith("spearman/")}
    if ranks:
        worst = min(ranks, key=ranks.__getitem__)
        return (
            "On held-out clips the rank correlation of its aspects with people's ratings is "
            f"{ranks[worst]:.2f} ({worst.removeprefix('spearman/')}, the worst) to "
            f"{max(ranks.values()):.2f}."
        )
    followed = {n: v for n, v in held_out.items() if n.startswith("correlation/")}
    if followed:
        worst = min(followed, key=followed.__getitem__)
        return (
            "On held-out clips its correlation with the teacher is "
            f"{followed[worst]:.2f} ({worst.removeprefix('correlation/')}, the worst) to "
            f"{max(followed.values()):.2f}."
        )
    return "There are no held-out metrics: give held-out clips or labels to evaluate the judge."


def calibrate_perturbations(argv: list[str]) -> int:
    """`gtsvj calibrate-perturbations`."""
    from transformers import HfArgumentParser

    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.locks import folder_lock
    from gtsvj_reward.plotting import check_matplotlib, plot_calibration
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
    parser.add_argument("--out", type=Path, required=True, help="folder for JSON and plot")
    parser.add_argument("--device", default="cpu", help="device for training")
    judge, settings, rest = running(parser).parse_args_into_dataclasses(with_config(argv))
    check_matplotlib()
    clips = LatentFolder(rest.real)
    with folder_lock(rest.out):
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
