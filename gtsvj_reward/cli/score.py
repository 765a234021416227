"""`gtsvj score` and `gtsvj rank`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import subparser


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
