"""`gtsvj encode`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.dtypes import DTYPES, dtype_of

if TYPE_CHECKING:
    from gtsvj_reward.latents import EncodeReport


def encode(argv: list[str]) -> int:
    """`gtsvj encode`."""
    parser = subparser("encode")
    parser.add_argument("videos", type=Path, help="folder of videos or of folders of frames")
    parser.add_argument("out", type=Path, help="folder for the latent files")
    parser.add_argument("--vae", required=True, help="bundled name, folder or hub id")
    parser.add_argument("--space_id", help="name of the latent space; default: read from the VAE")
    parser.add_argument("--fps", type=float, required=True, help="resample to this frame rate")
    parser.add_argument(
        "--height", type=int, required=True, help="pixels; whole latents, a multiple of 8 for most"
    )
    parser.add_argument(
        "--width", type=int, required=True, help="pixels; whole latents, a multiple of 8 for most"
    )
    parser.add_argument(
        "--num_frames", type=int, help="4f + 1 (LTX 8f, Mochi 6f); default: the longest that fits"
    )
    parser.add_argument(
        "--max_frames", type=int, help="use the longest that fits, up to this number"
    )
    parser.add_argument("--start", type=float, default=0.0, help="seconds to skip")
    parser.add_argument("--frames_fps", type=float, help="frame rate of folders of frames")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", help="device for encoding; default: a GPU if available")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files made with other settings"
    )
    parser.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="exit with status 0 even if videos were unreadable",
    )
    parser.add_argument(
        "--prompts", type=Path, help="table of `video,prompt`: also encode the prompts"
    )
    parser.add_argument(
        "--wrong_prompts",
        type=Path,
        help="table of `video,prompt`: wrong prompts, for training",
    )
    parser.add_argument("--text_encoder", help="pipeline that encodes the prompts; default: --vae")
    seen = parser.add_mutually_exclusive_group()
    seen.add_argument(
        "--images",
        type=Path,
        help="reference images, encoded too: table of `video,image`, or folder of pictures "
        "named after the videos",
    )
    seen.add_argument(
        "--first_frame", action="store_true", help="use the first frame of each clip as its image"
    )
    parser.add_argument(
        "--image_encoder",
        help="image-to-video pipeline that encodes the images; default: --vae",
    )
    args = parser.parse_args(argv)
    for flag in ("text_encoder", "wrong_prompts"):
        if vars(args)[flag] and args.prompts is None:
            parser.error(f"--{flag} has no use without --prompts")
    with_images = args.images is not None or args.first_frame
    if args.image_encoder and not with_images:
        parser.error("--image_encoder has no use without --images or --first_frame")

    from accelerate.utils import gather_object

    from gtsvj_reward.assets.vae import load_vae
    from gtsvj_reward.latents import LatentSpace, encode_folder
    from gtsvj_reward.latents.encode import remove_torn
    from gtsvj_reward.training.processes import only_run

    state = processes(args.device)
    vae = load_vae(args.vae, dtype=dtype_of(args.dtype), device=args.device or state.device)
    with only_run(args.out):
        if state.is_main_process:
            remove_torn(args.out)
        state.wait_for_everyone()
        own = encode_folder(
            args.videos,
            args.out,
            vae=vae,
            space=LatentSpace.from_vae(vae, id=args.space_id),
            fps=args.fps,
            height=args.height,
            width=args.width,
            num_frames=args.num_frames,
            max_frames=args.max_frames,
            start=args.start,
            frames_fps=args.frames_fps,
            overwrite=args.overwrite,
            process_index=state.process_index,
            num_processes=state.num_processes,
        )
        reports = gather_object([own])
        if args.prompts is not None and state.is_main_process:
            keep_prompts(args, args.device or state.device)
        if with_images and state.is_main_process:
            keep_images(args, args.device or state.device)
    if state.is_main_process:
        print_reports(reports)
    unreadable = any(report.unreadable for report in reports)
    return 1 if unreadable and not args.skip_unreadable else 0


def keep_prompts(args: argparse.Namespace, device: Any) -> None:
    """Encode the prompts of the clips below `out` and print how many were new."""
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.reward.text_store import TextStore, write_texts
    from gtsvj_reward.reward.texts import load_prompt_encoder
    from gtsvj_reward.scoring.groups import read_groups, read_several

    prompts = read_groups(args.prompts)
    wrong = {} if args.wrong_prompts is None else read_several(args.wrong_prompts)
    sources = [str(info.source) for info in LatentFolder(args.out).infos]
    encoder = load_prompt_encoder(
        args.text_encoder or args.vae, dtype=dtype_of(args.dtype), device=device
    )
    new = write_texts(args.out, sources, prompts, encoder, wrong=wrong)
    left_out = TextStore.unmatched(sources, prompts)
    print_kept("prompts", new, args.prompts, len(prompts), len(sources), left_out)


def keep_images(args: argparse.Namespace, device: Any) -> None:
    """Encode the reference images of the clips below `out`; say how many were new."""
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.reward import image_store
    from gtsvj_reward.reward.images import load_image_encoder
    from gtsvj_reward.scoring.groups import read_groups

    infos = LatentFolder(args.out).infos
    sources = [str(info.source) for info in infos]
    if args.first_frame:
        pictures = image_store.first_frames(args.videos, infos)
    elif args.images.is_dir():
        pictures = image_store.pictures_in(image_store.pictures_of_folder(args.images))
    else:
        named = read_groups(args.images, "image")
        table = {video: args.images.parent / image for video, image in named.items()}
        pictures = image_store.pictures_in(table)
    encoder = load_image_encoder(
        args.image_encoder or args.vae, dtype=dtype_of(args.dtype), device=device
    )
    new = image_store.write_images(args.out, pictures, encoder)
    left_out = image_store.ImageStore.unmatched(sources, pictures)
    origin = args.videos if args.first_frame else args.images
    print_kept("images", new, origin, len(pictures), len(sources), left_out)


def print_kept(
    kind: str, new: int, origin: Path, videos: int, clips: int, left_out: list[str]
) -> None:
    """Print how many prompts or images were new, and which of them are of no clip."""
    print(f"{kind} encoded {new}; {videos} videos in {origin}, {clips} clips")
    if left_out:
        print(
            f"left out: {len(left_out)} of {videos} videos in {origin} have no latents in the "
            f"output folder, the first is {left_out[0]}",
            file=sys.stderr,
        )


def print_reports(reports: "list[EncodeReport]") -> None:
    """Print the results of all processes, and the files that were skipped."""
    counts = {
        "encoded": sum(len(report.encoded) for report in reports),
        "already done": sum(len(report.already_done) for report in reports),
        "too short": sum(len(report.too_short) for report in reports),
        "unreadable": sum(len(report.unreadable) for report in reports),
    }
    print(", ".join(f"{name} {count}" for name, count in counts.items()))
    for note in reports[0].passed_over:
        print(f"skipped: {note}", file=sys.stderr)
    for report in reports:
        for path, reason in report.too_short:
            print(f"too short: {path}: {reason}", file=sys.stderr)
        for path, reason in report.unreadable:
            print(f"unreadable: {path}: {reason}", file=sys.stderr)
