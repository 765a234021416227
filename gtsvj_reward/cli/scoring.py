"""Shared by `gtsvj score` and `gtsvj rank`: scoring flags and the run."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gtsvj_reward.cli.processes import processes
from gtsvj_reward.dtypes import DTYPES, dtype_of

if TYPE_CHECKING:
    from gtsvj_reward import GTSVJReward
    from gtsvj_reward.judge import JudgeConfig
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.scoring.shards import Shards
    from gtsvj_reward.scoring.table import ScoredClip

POSITIONAL = ("checkpoint", "folder")
JUDGE_FLAGS = ("checkpoint", "folder", "base_model", "device", "dtype", "batch_size",
               "allow_untrained_geometry", "no_check_statistics", "overwrite")  # fmt: skip
VIDEO_FLAGS = ("vae", "space_id", "vae_dtype", "fps", "height", "width", "num_frames",
               "frames_fps", "latents")  # fmt: skip


class Scored(NamedTuple):
    """Result of a scoring run, on its main process."""

    clips: "list[ScoredClip]"
    """One for each clip, in the order of the paths."""
    latents: Path
    """The folder of latent files."""
    temporal_patch: int
    """Latent frames that it reads per step."""
    temporal_stride: int
    """It reads every K-th latent frame."""
    spread: dict[str, tuple[float, float]]
    """Curve -> mean of the judge's training clips minus and plus one standard deviation."""


def add_judge_flags(parser: argparse.ArgumentParser, noted: str) -> Any:
    """Add the flags of a scoring judge, as a group."""
    judge = parser.add_argument_group("judge")
    judge.add_argument("--base_model", help="location of the base transformer, if it has moved")
    judge.add_argument("--device", help="device for scoring; default: a GPU if available")
    judge.add_argument(
        "--dtype", choices=DTYPES, help="dtype of the base weights; default: that of training"
    )
    judge.add_argument(
        "--allow_untrained_geometry",
        action="store_true",
        help=f"score clips outside the trained range and mark them in {noted}",
    )
    judge.add_argument(
        "--no_check_statistics",
        action="store_true",
        help="score latents whose statistics differ from those of training",
    )
    return judge


def load_reward(args: argparse.Namespace, checkpoint: str | Path, device: Any) -> "GTSVJReward":
    """The judge of a command, from its flags."""
    from gtsvj_reward import GTSVJReward

    return GTSVJReward.from_pretrained(
        checkpoint,
        base_model=args.base_model,
        device=args.device or device,
        dtype=args.dtype,
        batch_size=args.batch_size,
        allow_untrained_geometry=args.allow_untrained_geometry,
        check_statistics=not args.no_check_statistics,
    )


def add_video_flags(parser: argparse.ArgumentParser, what: str) -> Any:
    """Add the flags for reading and encoding videos, as a group."""
    videos = parser.add_argument_group("videos", f"{what}; needs --vae")
    videos.add_argument("--vae", help="the judge's VAE: bundled name, folder or hub id")
    videos.add_argument("--space_id", help="name of its latent space; default: read from the VAE")
    videos.add_argument("--vae_dtype", choices=DTYPES, default="float32")
    numbers: dict[str, type] = {"fps": float, "height": int, "width": int, "num_frames": int}
    for name, kind in numbers.items():
        videos.add_argument(
            f"--{name}", type=kind, help="default: that of training, if it is a single value"
        )
    return videos


def add_scoring_flags(parser: argparse.ArgumentParser) -> None:
    """Add the scoring flags of `score` and `rank`."""
    judge = add_judge_flags(parser, "the table")
    judge.add_argument("--batch_size", type=int, default=8, help="clips per forward pass")
    judge.add_argument(
        "--overwrite", action="store_true", help="discard finished scores and start again"
    )
    videos = add_video_flags(parser, "for a folder of videos")
    videos.add_argument("--frames_fps", type=float, help="frame rate of folders of frames")
    videos.add_argument(
        "--latents", type=Path, help="folder for latents; default: beside the table"
    )


def latents_for(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    config: "JudgeConfig",
    out: Path,
    state: Any,
) -> Path:
    """The folder of latents to score; videos are encoded first, by all processes together."""
    from accelerate.utils import gather_object

    from gtsvj_reward.assets.vae import load_vae
    from gtsvj_reward.latents.encode import remove_torn
    from gtsvj_reward.reward.encoding import reading_for
    from gtsvj_reward.reward.store import StoreError
    from gtsvj_reward.reward.stored import Stored
    from gtsvj_reward.scoring import encoding
    from gtsvj_reward.training.processes import only_run

    if encoding.folder_kind(args.folder) == "latents":
        refuse_given(
            parser, args, VIDEO_FLAGS, f"is for videos, but {args.folder} holds latent files"
        )
        return Path(args.folder)
    if args.vae is None:
        parser.error(f"{args.folder} holds videos: they need --vae, the judge's VAE")
    names = ("fps", "height", "width", "num_frames")
    given = {name: vars(args)[name] for name in names}
    reading = reading_for(config, **given, any_length=True)
    latents = Path(args.latents or out.with_name(f"{out.stem}-latents"))
    try:
        Stored.beside(config, latents)
    except StoreError as error:
        raise type(error)(
            f"{error}. --vae encodes videos alone: run `gtsvj encode` first, and give the folder "
            "of latents that it makes instead of the videos"
        ) from error
    device = args.device or state.device
    with only_run(latents):
        if state.is_main_process:
            remove_torn(latents)
        state.wait_for_everyone()
        report = encoding.encode_for(
            config,
            args.folder,
            latents,
            vae=load_vae(args.vae, dtype=dtype_of(args.vae_dtype), device=device),
            reading=reading,
            space_id=args.space_id,
            frames_fps=args.frames_fps,
            overwrite=args.overwrite,
            process_index=state.process_index,
            num_processes=state.num_processes,
        )
        encoding.refuse_left_out(gather_object([report]))
    encoding.check_complete(args.folder, latents)
    return latents


def refuse_given(
    parser: argparse.ArgumentParser, args: argparse.Namespace, names: Iterable[str], reason: str
) -> None:
    """Reject arguments that would be ignored."""
    for name in names:
        if vars(args)[name] != parser.get_default(name):
            parser.error(f"{name if name in POSITIONAL else f'--{name}'} {reason}")


def run_scoring(
    parser: argparse.ArgumentParser, args: argparse.Namespace, out: Path
) -> Scored | None:
    """Score this process's share; the main process waits for the others and writes the table."""
    from gtsvj_reward.judge import resolve_checkpoint
    from gtsvj_reward.judge.checkpoint import read_config
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.reward.stored import Stored
    from gtsvj_reward.scoring import folder, shards, table
    from gtsvj_reward.scoring.report import training_spread

    table.check_suffix(out)
    state = processes(args.device)
    checkpoint = resolve_checkpoint(args.checkpoint)
    latents = latents_for(parser, args, read_config(checkpoint), out, state)
    reward = load_reward(args, checkpoint, state.device)
    clips = LatentFolder(latents)
    finished = shards.Shards(
        folder=out.with_name(f"{out.stem}-shards"),
        header=shards.run_header(checkpoint, reward, Stored.beside(reward.config, latents)),
    )
    score_together(reward, clips, finished, state, overwrite=args.overwrite)
    if not state.is_main_process:
        return None
    scored = folder.collect_scores(clips, finished)
    table.write_scores(scored, out)
    judge = reward.judge
    return Scored(
        scored,
        latents,
        judge.backbone.patch_size_t,
        judge.config.temporal_stride,
        training_spread(judge.config),
    )


def score_together(
    reward: "GTSVJReward", clips: "LatentFolder", finished: "Shards", state: Any, *, overwrite: bool
) -> None:
    """Score a folder, each process its share; returns when all have finished."""
    from gtsvj_reward.scoring import folder
    from gtsvj_reward.training.processes import only_run

    with only_run(finished.folder):
        if overwrite and state.is_main_process:
            finished.clear()
        state.wait_for_everyone()
        folder.score_shard(
            reward,
            clips,
            finished,
            process_index=state.process_index,
            num_processes=state.num_processes,
        )
        state.wait_for_everyone()
