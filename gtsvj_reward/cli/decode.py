"""`gtsvj decode`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.processes import processes
from gtsvj_reward.dtypes import DTYPES, dtype_of


def decode(argv: list[str]) -> int:
    """`gtsvj decode`."""
    parser = subparser("decode")
    parser.add_argument("latents", type=Path, help="folder of latent files")
    parser.add_argument("videos", type=Path, help="folder for the videos")
    parser.add_argument("--vae", required=True, help="bundled name, folder or hub id")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the VAE's weights")
    parser.add_argument("--device", help="device for decoding; default: a GPU if available")
    args = parser.parse_args(argv)

    from gtsvj_reward.assets.vae import load_vae
    from gtsvj_reward.latents import decode_folder

    state = processes(args.device)
    if state.num_processes > 1:
        parser.error("decoding runs in one process: start it without `accelerate launch`")
    vae = load_vae(args.vae, dtype=dtype_of(args.dtype), device=args.device or state.device)
    report = decode_folder(args.latents, args.videos, vae=vae)
    print(f"decoded {len(report.decoded)}, already done {len(report.already_done)}")
    return 0
