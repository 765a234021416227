"""`gtsvj negatives`."""

import argparse
from pathlib import Path
from typing import Any

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.dtypes import DTYPES, dtype_of

SIZE = ("num_frames", "height", "width", "fps")


def negatives(argv: list[str]) -> int:
    """`gtsvj negatives`."""
    args = parsed(argv)

    from gtsvj_reward.latents.encode import remove_torn
    from gtsvj_reward.reward import PromptEncoder
    from gtsvj_reward.reward.text_store import write_made
    from gtsvj_reward.sampling import NegativeSettings, make_negatives
    from gtsvj_reward.scoring.groups import read_groups
    from gtsvj_reward.training.processes import only_run

    settings = NegativeSettings(
        strengths=tuple(args.strengths),
        renoise_steps=tuple(args.renoise_steps),
        sample_steps=tuple(args.sample_steps),
        per_prompt=args.per_prompt,
        guidance_scale=args.guidance_scale,
        batch_size=args.batch_size,
        seed=args.seed,
    )
    captions = None if args.captions is None else read_groups(args.captions)
    prompted = prompts_of(args)
    state = processes(args.device)
    with only_run(args.out):
        if state.is_main_process:
            remove_torn(args.out)
        state.wait_for_everyone()
        pipe = pipeline(args.pipeline, args.dtype, args.device or state.device)
        report = make_negatives(
            pipe,
            args.out,
            real=args.real,
            captions=captions,
            prompted=prompted,
            settings=settings,
            overwrite=args.overwrite,
            process_index=state.process_index,
            num_processes=state.num_processes,
        )
        state.wait_for_everyone()
        if args.keep_prompts and state.is_main_process:
            print(f"prompts encoded {write_made(args.out, PromptEncoder(pipe))}")
    print(f"made {len(report.made)}, already done {len(report.already_done)}")
    if report.without_caption:
        print(f"{len(report.without_caption)} real clips have no caption and use the empty prompt")
    if report.captions_unused:
        print(
            f"{len(report.captions_unused)} videos of --captions are not below --real, the first "
            f"is {report.captions_unused[0]}"
        )
    return 0


def parsed(argv: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = subparser("negatives")
    parser.add_argument(
        "pipeline",
        help="bundled name, folder or hub id: CogVideoX, HunyuanVideo, LTX, Mochi or Wan",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the latent files")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--guidance_scale", type=float, help="default: the pipeline's own")
    parser.add_argument("--batch_size", type=int, default=1, help="clips per pipeline call")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="dtype of the weights")
    parser.add_argument("--device", help="device for sampling; default: a GPU if available")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files made with other settings"
    )
    parser.add_argument(
        "--keep_prompts", action="store_true", help="store the encoded prompts beside the clips"
    )
    real = parser.add_argument_group("noise and denoise real clips")
    real.add_argument("--real", type=Path, help="folder of latent files of the pipeline's VAE")
    real.add_argument("--captions", type=Path, help="table with the columns `video` and `prompt`")
    real.add_argument(
        "--strengths",
        type=float,
        nargs="+",
        default=[0.2, 0.4, 0.6, 0.8],
        help="noise levels, as fractions: 0.4 is timestep 400 of 1000",
    )
    real.add_argument(
        "--renoise_steps",
        type=int,
        nargs="+",
        default=[1, 2, 3],
        help="one of these is drawn per clip",
    )
    made = parser.add_argument_group(
        "generate clips from prompts in few steps; needs size and --fps"
    )
    made.add_argument(
        "--prompts", type=Path, help=".txt with one prompt per line, or a table with `prompt`"
    )
    made.add_argument(
        "--sample_steps",
        type=int,
        nargs="+",
        default=[2, 4, 8],
        help="all of these for every prompt",
    )
    made.add_argument(
        "--per_prompt", type=int, default=1, help="clips per prompt and number of steps"
    )
    kinds: dict[str, type] = {"num_frames": int, "height": int, "width": int, "fps": float}
    for name in SIZE:
        made.add_argument(f"--{name}", type=kinds[name], help="of the generated clips")
    args = parser.parse_args(argv)
    if args.real is None and args.prompts is None:
        parser.error("give --real LATENTS, --prompts FILE or both")
    if args.captions is not None and args.real is None:
        parser.error("--captions needs --real")
    given = [f"--{name}" for name in SIZE if vars(args)[name] is not None]
    if args.prompts is None and given:
        parser.error(f"{', '.join(given)} are for --prompts; clips of --real keep their size")
    if args.prompts is not None and len(given) < len(SIZE):
        parser.error(f"--prompts needs all of {', '.join(f'--{name}' for name in SIZE)}")
    return args


def prompts_of(args: argparse.Namespace) -> Any:
    """The prompts and the size of their clips; None without `--prompts`."""
    from gtsvj_reward.sampling import ClipSize, Prompted, read_prompts

    if args.prompts is None:
        return None
    return Prompted(
        prompts=read_prompts(args.prompts),
        size=ClipSize(num_frames=args.num_frames, height=args.height, width=args.width),
        fps=args.fps,
    )


def pipeline(name: str, dtype: str, device: Any) -> Any:
    """The pipeline of a name; the toy world's are made of several parts."""
    from gtsvj_reward.sampling.pipelines import load_pipeline
    from gtsvj_reward.toy import pipeline as toy

    if name in toy.BASES:
        return toy.load_pipeline(name, dtype=dtype_of(dtype)).to(device)
    return load_pipeline(name, dtype=dtype_of(dtype), device=device)
