"""`gtsvj score` and `gtsvj rank`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.scoring import (
    JUDGE_FLAGS,
    VIDEO_FLAGS,
    add_scoring_flags,
    refuse_given,
    run_scoring,
)


def score(argv: list[str]) -> int:
    """`gtsvj score`."""
    parser = subparser("score")
    parser.add_argument("checkpoint", help="judge: folder, bundled name or hub id")
    parser.add_argument("folder", type=Path, help="folder of latent files or videos")
    parser.add_argument("--out", type=Path, required=True, help="table: .csv or .jsonl")
    parser.add_argument("--report", type=Path, help="folder for an HTML page where clips play")
    parser.add_argument(
        "--report_top", type=int, default=12, help="best and worst clips to show, each"
    )
    parser.add_argument(
        "--videos", type=Path, help="folder of videos that the latents were made from"
    )
    add_scoring_flags(parser)
    args = parser.parse_args(argv)

    from gtsvj_reward.scoring import encoding, pictures, report

    is_videos = args.folder.is_dir() and encoding.folder_kind(args.folder) == "videos"
    videos = args.folder if is_videos else args.videos
    if is_videos:
        refuse_given(parser, args, ["videos"], f"is not needed: {args.folder} holds the videos")
    if args.report and videos is None:
        parser.error("--report needs --videos, the folder that was encoded")
    if args.report_top < 1:
        parser.error(f"--report_top must be at least 1, got {args.report_top}")
    scored = run_scoring(parser, args, args.out)
    if scored is None:
        return 0
    if args.report:
        sources = pictures.Sources(
            latents=scored.latents,
            videos=videos,
            temporal_patch=scored.temporal_patch,
            temporal_stride=scored.temporal_stride,
        )
        title = f"{args.folder} scored by {args.checkpoint}"
        page = report.write_report(
            scored.clips,
            sources,
            args.report,
            title=title,
            top=args.report_top,
            spread=scored.spread,
        )
        print(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB, one file)")
    print(f"scored {len(scored.clips)} clips, written to {args.out}; higher is better")
    return 0


def rank(argv: list[str]) -> int:
    """`gtsvj rank`."""
    parser = subparser("rank")
    parser.add_argument(
        "checkpoint", nargs="?", help="judge, as for `gtsvj score`; not with --scores"
    )
    parser.add_argument(
        "folder", nargs="?", type=Path, help="as for `gtsvj score`; not with --scores"
    )
    parser.add_argument("--scores", type=Path, help="existing table of scores")
    parser.add_argument("--column", default="reward", help="column to rank by")
    parser.add_argument("--groups", type=Path, help="table with the columns `video` and `prompt`")
    parser.add_argument(
        "--group_by",
        choices=["folder", "prompt"],
        help="group by the first folder, or by the prompt that each clip was scored with",
    )
    parser.add_argument("--out", type=Path, required=True, help="table: .csv or .jsonl")
    parser.add_argument("--pairs", type=Path, help="best and worst of each group: .jsonl")
    parser.add_argument(
        "--min_margin", type=float, default=0.0, help="minimum score difference of a pair"
    )
    parser.add_argument("--allow_singletons", action="store_true", help="rank single clips too")
    add_scoring_flags(parser)
    args = parser.parse_args(argv)
    if (args.groups is None) == (args.group_by is None):
        parser.error("give --groups FILE, --group_by folder or --group_by prompt")
    if args.scores is None and args.folder is None:
        parser.error("give a judge and a folder, or --scores TABLE")
    if args.scores is not None:
        refuse_given(parser, args, JUDGE_FLAGS + VIDEO_FLAGS, "has no use with --scores")

    from gtsvj_reward.scoring import groups, ranking

    ranking.check_paths(args.out, args.pairs)
    prompts = None if args.groups is None else groups.read_groups(args.groups)
    scores = args.scores or args.out.with_name(f"{args.out.stem}-scores{args.out.suffix}")
    if args.scores is None and run_scoring(parser, args, scores) is None:
        return 0
    if args.group_by == "prompt":
        prompts = groups.read_groups(scores)
    rewards = groups.read_rewards(scores, args.column)
    result = ranking.rank_clips(
        rewards,
        groups.folder_groups(list(rewards)) if prompts is None else prompts,
        min_margin=args.min_margin,
        allow_singletons=args.allow_singletons,
    )
    settings = {"scores": str(scores), "column": args.column, "min_margin": args.min_margin}
    ranking.write_ranking(result, args.out, settings)
    if args.pairs:
        ranking.write_pairs(result, args.pairs)
    print(", ".join(f"{name}: {count}" for name, count in result.counts().items()))
    return 0
