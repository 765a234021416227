"""`gtsvj serve`."""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.cli.scoring import add_judge_flags, add_video_flags, refuse_given
from gtsvj_reward.dtypes import DTYPES

if TYPE_CHECKING:
    from gtsvj_reward.serving.settings import ServeSettings

READING = ("vae_dtype", "space_id", "fps", "height", "width", "num_frames",
           "max_megapixels", "text_encoder", "text_dtype", "image_encoder")  # fmt: skip


def serve(argv: list[str]) -> int:
    """`gtsvj serve`."""
    parser = subparser("serve")
    parser.add_argument("checkpoint", help="judge: folder, bundled name or hub id")
    judge = add_judge_flags(parser, "the answer")
    judge.add_argument("--aspects", nargs="+", help="score with the mean of these aspects")
    judge.add_argument("--pessimism", type=float, default=0.0, help="k in r - k * uncertainty")
    judge.add_argument(
        "--judges",
        nargs="+",
        default=[],
        metavar="NAME=CHECKPOINT",
        help="further judges; --aspects and --pessimism do not apply to them",
    )
    add_network_flags(parser)
    add_limit_flags(parser)
    videos = add_video_flags(parser, "UniRL's wire format at /score")
    videos.add_argument(
        "--max_megapixels", type=int, default=1024, help="decoded pixels per video before an error"
    )
    videos.add_argument(
        "--text_encoder", help="the generator's pipeline, for a judge that reads prompts"
    )
    videos.add_argument("--text_dtype", choices=DTYPES, default="float32")
    videos.add_argument(
        "--image_encoder",
        help="the same for a judge that reads reference images; in --vae_dtype",
    )
    args = parser.parse_args(argv)
    if args.replicas != 1 and args.engine != "ray":
        parser.error("--replicas needs --engine ray")
    if args.vae is None:
        refuse_given(parser, args, READING, "is for videos, which need --vae")

    from gtsvj_reward.serving import access, installed

    installed.require_server(*(["ray"] if args.engine == "ray" else []))
    token = access.read_token(args.token_file)
    access.check_address(args.host, token)
    settings = settings_of(args, token)

    def announce(address: str) -> None:
        print(f"serving {args.checkpoint} on {address}", flush=True)

    if args.engine == "ray":
        from gtsvj_reward.serving import ray_engine

        address = {"host": args.host, "port": args.port, "replicas": args.replicas}
        ray_engine.serve(settings, announce=announce, **address)
        return 0

    from gtsvj_reward.serving import server
    from gtsvj_reward.serving.settings import build_app

    server.serve(build_app(settings), host=args.host, port=args.port, announce=announce)
    return 0


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of address and access."""
    network = parser.add_argument_group("network")
    network.add_argument("--host", default="127.0.0.1", help="any other address requires a token")
    network.add_argument("--port", type=int, default=8000, help="0 picks a free port")
    network.add_argument(
        "--token_file", type=Path, help="file with the token; default: GTSVJ_SERVE_TOKEN, if set"
    )
    network.add_argument("--engine", choices=["uvicorn", "ray"], default="uvicorn")
    network.add_argument("--replicas", type=int, default=1, help="copies of the judge, for ray")


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each field of `Limits`."""
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max_batch_size", type=int, default=8, help="clips per forward pass")
    limits.add_argument("--max_wait_ms", type=float, default=10.0, help="wait for a fuller batch")
    limits.add_argument("--max_queue", type=int, default=256, help="queued clips before 429")
    limits.add_argument(
        "--max_queue_seconds", type=float, default=60.0, help="seconds of queued work before 429"
    )
    limits.add_argument("--max_clips", type=int, default=32, help="clips per request before 422")
    limits.add_argument(
        "--max_body_mib", type=float, default=64.0, help="size of a request before 413"
    )
    limits.add_argument(
        "--max_pending_mib", type=float, default=1024.0, help="size of all requests before 429"
    )
    limits.add_argument(
        "--max_connections", type=int, default=512, help="open connections before 503"
    )
    limits.add_argument(
        "--body_seconds", type=float, default=60.0, help="time for a body to arrive before 408"
    )
    limits.add_argument(
        "--head_seconds", type=float, default=20.0, help="time for a head to arrive before closing"
    )


def chosen(args: argparse.Namespace, kind: type, *other: str) -> dict[str, Any]:
    """Values of flags for the fields of a dataclass, except those with another name."""
    names = [item.name for item in fields(kind)]
    return {name: vars(args)[name] for name in names if name not in other}


def settings_of(args: argparse.Namespace, token: str | None) -> "ServeSettings":
    """All settings except the address."""
    from gtsvj_reward.serving.limits import Limits
    from gtsvj_reward.serving.settings import ServeSettings, VideoSettings

    judges = dict(entry.split("=", 1) for entry in args.judges if "=" in entry)
    if len(judges) < len(args.judges):
        raise ValueError(f"--judges takes NAME=CHECKPOINT with different names, got {args.judges}")
    videos = None
    if args.vae is not None:
        videos = VideoSettings(dtype=args.vae_dtype, **chosen(args, VideoSettings, "dtype"))
    return ServeSettings(
        checkpoint=args.checkpoint,
        judges=judges,
        base_model=args.base_model,
        device=args.device or str(processes(args.device).device),
        dtype=args.dtype,
        aspects=None if args.aspects is None else tuple(args.aspects),
        pessimism=args.pessimism,
        reloads=args.engine != "ray",
        allow_untrained_geometry=args.allow_untrained_geometry,
        check_statistics=not args.no_check_statistics,
        videos=videos,
        limits=Limits(**chosen(args, Limits)),
        token=token,
    )
