"""`gtsvj label`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.scoring import refuse_given
from gtsvj_reward.dtypes import DTYPES, dtype_of

if TYPE_CHECKING:
    from gtsvj_reward.labelling import ClipSet
    from gtsvj_reward.labelling.fitting import Model

INPUTS = ("text_input", "image_input")
"""What a fresh judge reads besides latents."""

MODEL = ("judge", "base_model", *INPUTS, "features", "allow_missing_latents")
"""Flags that need latents."""


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = subparser("label")
    made.add_argument("videos", type=Path, nargs="?", help="folder of videos; not with --export")
    made.add_argument(
        "--out", type=Path, required=True, help="folder of the labels; resumed if it exists"
    )
    asked = made.add_argument_group("task")
    asked.add_argument("--task", choices=["compare", "rate"], default="compare")
    asked.add_argument("--question", default="", help="shown above the clips")
    asked.add_argument(
        "--aspects",
        nargs="+",
        help="aspects to rate from 1 to 5; default: the judge's, else overall",
    )
    asked.add_argument(
        "--prompts", type=Path, help="table with `video` and `prompt`; default: group by folder"
    )
    asked.add_argument(
        "--double_share", type=float, default=0.1, help="share of tasks given to a second rater"
    )
    judge = made.add_argument_group("judge that learns as you label")
    judge.add_argument("--latents", type=Path, help="folder of latent files of the videos")
    judge.add_argument("--judge", help="moment judge to start from; it needs no labels")
    judge.add_argument(
        "--base_model", help="the judge's base, if it moved; alone: start without a judge"
    )
    judge.add_argument(
        "--text_input",
        choices=["zeros", "prompt"],
        default="zeros",
        help="with --base_model alone: read the prompts stored beside the latents",
    )
    judge.add_argument(
        "--image_input",
        choices=["none", "image"],
        default="none",
        help="with --base_model alone: read the reference images stored beside the latents",
    )
    judge.add_argument(
        "--allow_missing_latents", action="store_true", help="leave out videos without latents"
    )
    judge.add_argument("--features", type=Path, help="folder of moments; `features` beside --out")
    judge.add_argument("--batch_size", type=int, default=8, help="clips per forward pass")
    judge.add_argument("--device", help="where clips are read; a GPU if there is one")
    judge.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the base weights; default: that of training"
    )
    choice = made.add_argument_group("choice of clips")
    choice.add_argument("--choice", choices=["random", "active"], default="random")
    choice.add_argument(
        "--random_share",
        type=float,
        default=0.25,
        help="share of random pairs with --choice active",
    )
    choice.add_argument("--seed", type=int, default=0, help="seed of all draws")
    network = made.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="any other address requires a token")
    network.add_argument("--port", type=int, default=8765, help="0 picks a free port")
    network.add_argument(
        "--token_file", type=Path, help="default: GTSVJ_SERVE_TOKEN, else a new token"
    )
    network.add_argument("--no_token", action="store_true", help="only on 127.0.0.1")
    export = made.add_argument_group("join folders of labels, without a page")
    export.add_argument("--export", type=Path, nargs="+", help="folders to join into --out")
    export.add_argument(
        "--conflicts",
        choices=["keep", "votes", "majority", "drop"],
        default="keep",
        help="pairs on which raters disagree; votes: share of votes as a probability",
    )
    return made


def label(argv: list[str]) -> int:
    """`gtsvj label`."""
    flags = parser()
    args = flags.parse_args(argv)
    if (args.videos is None) == (args.export is None):
        flags.error("give a folder of videos, or --export FOLDER ...")
    if args.export is not None:
        return join(args)
    if args.latents is None:
        refuse_given(flags, args, MODEL, "is for a judge, which needs --latents")
    elif args.judge is None and args.base_model is None:
        flags.error("--latents needs a judge: give --judge, or --base_model to start without one")
    elif args.judge is not None:
        refuse_given(flags, args, INPUTS, "has no use with --judge, which says itself")
    if args.no_token and args.token_file is not None:
        flags.error("give --no_token or --token_file, not both")

    from gtsvj_reward.labelling import Session, SessionSettings, read_clips
    from gtsvj_reward.labelling.app import create_app
    from gtsvj_reward.labelling.tokens import token_of
    from gtsvj_reward.serving import server
    from gtsvj_reward.serving.access import check_address

    settings = SessionSettings(
        kind=args.task,
        question=args.question,
        aspects=rated_aspects(args),
        choice=args.choice,
        random_share=args.random_share,
        double_share=args.double_share,
        seed=args.seed,
    )
    token = None if args.no_token else token_of(args.out, args.token_file)
    check_address(args.host, token)
    clips = read_clips(
        args.videos,
        prompts=args.prompts,
        latents=args.latents,
        allow_missing_latents=args.allow_missing_latents,
    )
    for reason, count in clips.left_out.items():
        print(f"left out {count}: {reason}")
    session = Session(
        args.out, clips, settings, None if args.latents is None else model(args, clips)
    )
    if session.journal.torn:
        print(
            f"{session.journal.path}: removed {session.journal.torn} bytes of an incomplete event"
        )

    def announce(address: str) -> None:
        known = "" if token is None else f"/?token={token}"
        print(f"{len(clips)} clips, {session.answered()} answers so far, in {args.out}")
        print(f"label at {address}{known}  (Ctrl-C stops; all answers are saved)", flush=True)

    app = create_app(session, token=token)
    server.serve(app, host=args.host, port=args.port, announce=announce)
    return 0


def rated_aspects(args: argparse.Namespace) -> tuple[str, ...]:
    """Aspects to rate: those given, else the judge's, else `overall`."""
    if args.aspects is not None:
        return tuple(args.aspects)
    if args.task == "compare" or args.judge is None:
        return ("overall",)
    from gtsvj_reward.judge import read_config, resolve_checkpoint

    aspects = read_config(resolve_checkpoint(args.judge)).aspects
    return tuple(aspect.name for aspect in aspects) or ("overall",)


def model(args: argparse.Namespace, clips: "ClipSet") -> "Model":
    """The judge to fit, and the clips that it reads."""
    from gtsvj_reward.cli.processes import processes
    from gtsvj_reward.judge import load_judge, resolve_checkpoint
    from gtsvj_reward.labelling.fitting import Model, latent_file
    from gtsvj_reward.training import JudgeArguments, build_judge

    device = processes(args.device).device
    if args.judge is not None:
        start = load_judge(
            resolve_checkpoint(args.judge),
            base_model=args.base_model,
            dtype=dtype_of(args.dtype) if args.dtype else None,
        )
    else:
        arguments = JudgeArguments(
            base_model=args.base_model,
            base_dtype=args.dtype or "auto",
            readout="moments",
            text_input=args.text_input,
            image_input=args.image_input,
            lora_rank=0,
        )
        start = build_judge(arguments, latent_file(clips[0]).space, seed=args.seed)
    return Model(
        start.to(device),
        clips,
        features=args.features or args.out.parent / "features",
        batch_size=args.batch_size,
        seed=args.seed,
    )


def join(args: argparse.Namespace) -> int:
    """Join folders of labels."""
    from gtsvj_reward.labelling import export

    done = export(args.export, args.out, conflicts=args.conflicts)
    print(f"{args.out}: {done.comparisons} comparisons, {done.ratings} rated clips")
    print(f"{done.raters} raters disagree on {done.pair_conflicts} pairs ({args.conflicts}) and on "
          f"{done.rating_conflicts} ratings of clips (mean)")  # fmt: skip
    if done.repeated:
        print(f"{done.repeated} answers were in several folders and are counted once")
    return 0
