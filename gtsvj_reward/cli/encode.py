"""`gtsvj encode`."""

import sys
from pathlib import Path

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.dtypes import DTYPES, dtype_of


def encode(argv: list[str]) -> int:
    """`gtsvj encode`."""
    parser = subparser("encode")
    parser.add_argument("videos", type=Path, help="folder of videos, and of folders of frames")
    parser.add_argument("out", type=Path, help="folder for the latent files")
    parser.add_argument("--vae", required=True, help="bundled name, folder or hub id")
    parser.add_argument("--space_id", help="name of the latent space; read from the VAE by default")
    parser.add_argument("--fps", type=float, required=True, help="resample to this rate")
    parser.add_argument(
        "--height", type=int, required=True, help="pixels; whole latents, a multiple of 8 for most"
    )
    parser.add_argument(
        "--width", type=int, required=True, help="pixels; whole latents, a multiple of 8 for most"
    )
    parser.add_argument(
        "--num_frames", type=int, help="4f + 1 (LTX 8f, Mochi 6f); the longest that fits by default"
    )
    parser.add_argument("--max_frames", type=int, help="likewise; the longest, but no longer")
    parser.add_argument("--start", type=float, default=0.0, help="seconds to skip")
    parser.add_argument("--frames_fps", type=float, help="rate of folders of frames")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--device", help="where to encode; a GPU if there is one")
    parser.add_argument("--overwrite", action="store_true", help="replace files made otherwise")
    parser.add_argument(
        "--skip_unreadable", action="store_true", help="exit with 0 although videos were unreadable"
    )
    args = parser.parse_args(argv)

    from gtsvj_reward.assets.vae import load_vae
    from gtsvj_reward.latents import LatentSpace, encode_folder

    state = processes(args.device)
    vae = load_vae(args.vae, dtype=dtype_of(args.dtype), device=args.device or state.device)
    report = encode_folder(
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
    print(
        f"encoded {len(report.encoded)}, already done {len(report.already_done)}, "
        f"unreadable {len(report.unreadable)}"
    )
    for path, reason in report.unreadable:
        print(f"unreadable: {path}: {reason}", file=sys.stderr)
    return 1 if report.unreadable and not args.skip_unreadable else 0
