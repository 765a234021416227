"""`gtsvj quickstart`: one command that runs the others."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.dtypes import DTYPES
from gtsvj_reward.progress import duration

if TYPE_CHECKING:
    from gtsvj_reward.quickstart import Estimate, Quickstart

TOY_REAL, TOY_PROMPTS = 64, 12
"""Real clips and prompts of the toy world, if none are given."""


def quickstart(argv: list[str]) -> int:
    """`gtsvj quickstart`."""
    from gtsvj_reward.cli import main

    args = parser().parse_args(argv)
    plan, forecast = planned(args)
    steps = plan.commands()
    disk = size_text(forecast.latent_bytes + forecast.moment_bytes)
    print(f"{len(steps)} steps, about {duration(sum(forecast.seconds))}; {assumption(plan)}")
    print(f"disk: {disk} of latents and moments")
    for number, (step, seconds) in enumerate(zip(steps, forecast.seconds, strict=True), 1):
        print(f"  {number}. {step.title}: about {duration(seconds)}")
        if args.dry_run:
            print(f"     gtsvj {shlex.join(step.argv)}")
    if args.dry_run:
        return 0
    for number, step in enumerate(steps, 1):
        print(
            f"\n[{number}/{len(steps)}] {step.title}\n  gtsvj {shlex.join(step.argv)}", flush=True
        )
        if step.done is not None and step.done.exists():
            print(f"  already done: {step.done}")
        elif status := main(step.argv):
            print(f"stopped in step {number}: fix the error and run the same command again")
            return status
    print(f"\njudge: {plan.out}\nreport: {plan.work / 'report' / 'index.html'}\nnext, label:")
    print("\n".join(f"  {command}" for command in plan.next_commands()))
    return 0


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = subparser("quickstart")
    made.add_argument("--pipeline", required=True, help="bundled name, folder or hub id")
    made.add_argument("--real", type=Path, help="folder of real videos; optional for toy pipelines")
    made.add_argument(
        "--prompts", type=Path, help=".txt with one prompt per line; optional for toy pipelines"
    )
    made.add_argument("--out", type=Path, required=True, help="folder for the judge")
    made.add_argument(
        "--work", type=Path, help="folder for clips, moments and report; default: `OUT-work`"
    )
    made.add_argument("--per_prompt", type=int, default=4, help="clips per prompt")
    made.add_argument("--steps", type=int, default=50, help="denoising steps per clip")
    made.add_argument("--batch_size", type=int, default=1, help="clips per pipeline call")
    for name in ("num_frames", "height", "width"):
        made.add_argument(
            f"--{name}", type=int, help="of a clip; default for CogVideoX: as in training"
        )
    made.add_argument("--fps", type=float, default=8.0, help="frames per second of a clip")
    made.add_argument(
        "--dtype", choices=DTYPES, help="default: bfloat16 on a GPU, float32 on a CPU"
    )
    made.add_argument("--device", help="default: a GPU if available")
    made.add_argument(
        "--dry_run", action="store_true", help="print steps, time and disk space, then stop"
    )
    return made


def planned(args: argparse.Namespace) -> "tuple[Quickstart, Estimate]":
    """The plan and its estimate."""
    from gtsvj_reward.cli.negatives import pipeline
    from gtsvj_reward.latents import list_videos
    from gtsvj_reward.quickstart import Quickstart, estimate, measure, size_of
    from gtsvj_reward.sampling import read_prompts
    from gtsvj_reward.toy.pipeline import CALL, PIPELINE

    toy = is_toy(args.pipeline)
    state = processes(args.device)
    device = str(args.device or state.device)
    dtype = args.dtype or ("float32" if device == "cpu" else "bfloat16")
    work = args.work or args.out.with_name(f"{args.out.name}-work")
    real, prompts = sources(args, work)
    counts = len(list_videos(real)), len(read_prompts(prompts))
    pipe = pipeline(args.pipeline, dtype, device)
    own = CALL if toy else {}
    given = {name: vars(args)[name] or own.get(name) for name in ("num_frames", "height", "width")}
    plan = Quickstart(
        pipeline=args.pipeline,
        vae=PIPELINE if toy else args.pipeline,
        real=real,
        prompts=prompts,
        out=args.out,
        work=work,
        size=size_of(pipe, given),
        fps=args.fps,
        per_prompt=args.per_prompt,
        steps=args.steps,
        batch_size=args.batch_size,
        dtype=dtype,
        device=device,
    )
    return plan, estimate(plan, pipe, measure(plan, pipe), *counts)


def is_toy(pipeline: str) -> bool:
    """Whether a name is that of a toy generator.

    Raises:
        ValueError: for a bundled name of something else, such as an adapter of one.
    """
    from gtsvj_reward.assets import ASSETS
    from gtsvj_reward.toy.pipeline import FLOW, PIPELINE

    if pipeline in ASSETS and pipeline not in (PIPELINE, FLOW):
        raise ValueError(
            f"{pipeline} is no pipeline with weights of its own: of the bundled models, "
            f"quickstart takes {PIPELINE} and {FLOW}"
        )
    return pipeline in (PIPELINE, FLOW)


def sources(args: argparse.Namespace, work: Path) -> tuple[Path, Path]:
    """The folder of real videos and the file of prompts; the toy world makes its own.

    Raises:
        ValueError: if one is missing for a pipeline other than the toy world's.
    """
    if not is_toy(args.pipeline):
        for name in ("real", "prompts"):
            if vars(args)[name] is None:
                raise ValueError(f"--{name} is needed for {args.pipeline}")
        return args.real, args.prompts

    from gtsvj_reward.files import write_text
    from gtsvj_reward.latents import write_video
    from gtsvj_reward.toy.corpus import ClipSpec
    from gtsvj_reward.toy.world import FPS, captions

    real, prompts = args.real or work / "videos-real", args.prompts or work / "prompts.txt"
    if args.real is None:
        for number in range(TOY_REAL):
            video = real / f"{number:03d}.mp4"
            if not video.exists():
                write_video(video, ClipSpec(video.stem, (45, number), {}).draw(), FPS)
    if args.prompts is None:
        chosen = captions()[:: len(captions()) // TOY_PROMPTS][:TOY_PROMPTS]
        write_text(prompts, "".join(f"{caption}\n" for caption in chosen))
    return real, prompts


def assumption(plan: "Quickstart") -> str:
    """What the estimate assumes: the device, its threads, the batch size, the machine's load."""
    import torch

    if torch.device(plan.device).type != "cpu":
        return (
            f"measured on {torch.cuda.get_device_name(plan.device)}, batch size {plan.batch_size}"
        )
    said = f"measured with {torch.get_num_threads()} CPU threads, batch size {plan.batch_size}"
    if sys.platform == "win32":  # which has no load average
        return said
    return said + busy(os.getloadavg()[0], os.cpu_count() or 1)


def busy(load: float, cores: int) -> str:
    """A warning if other programs use the cores as well; else nothing."""
    if load <= cores:
        return ""
    return (
        f"\nother programs are running (load {load:.0f} on {cores} cores): it is faster without "
        "them. OMP_WAIT_POLICY=passive makes threads share the cores better"
    )


def size_text(count: int) -> str:
    """A number of bytes with a unit."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
