"""`gtsvj split`."""

from pathlib import Path

from gtsvj_reward.cli.parsing import subparser


def split(argv: list[str]) -> int:
    """`gtsvj split`."""
    parser = subparser("split")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--comparisons", type=Path, help="file of comparisons")
    kind.add_argument("--ratings", type=Path, help="file of ratings")
    parser.add_argument("--comparisons_format", default="plain", help="as for train-preference")
    parser.add_argument("--ratings_format", default="plain", help="as for train-aspects")
    parser.add_argument("--labels", nargs="+", help="meaning of labels, e.g. 0=B; as for evaluate")
    parser.add_argument("--latents", type=Path, required=True, help="folder of the labelled clips")
    parser.add_argument("--out", type=Path, required=True, help="folder for train and held_out")
    parser.add_argument("--held_out_fraction", type=float, default=0.2, help="share of the rows")
    parser.add_argument(
        "--group_by", help="keep clips together in the split; as for train-preference"
    )
    parser.add_argument(
        "--allow_missing_videos", action="store_true", help="leave out rows without clips"
    )
    parser.add_argument("--seed", type=int, default=42, help="seed of the split")
    args = parser.parse_args(argv)

    from gtsvj_reward.annotations import (
        COMPARISON_FORMATS,
        RATING_FORMATS,
        Comparisons,
        Ratings,
        read_labelled_comparisons,
    )
    from gtsvj_reward.latents import LatentFolder
    from gtsvj_reward.training.arguments import SplitSettings
    from gtsvj_reward.training.labelled import chosen_reader
    from gtsvj_reward.training.split_labels import split_labels

    labels: Comparisons | Ratings
    if args.comparisons:
        chosen_reader(COMPARISON_FORMATS, args.comparisons_format, "--comparisons_format")
        labels = read_labelled_comparisons(args.comparisons, args.comparisons_format, args.labels)
    else:
        reader = chosen_reader(RATING_FORMATS, args.ratings_format, "--ratings_format")
        labels = reader(args.ratings)
    settings = SplitSettings(
        output_dir=str(args.out),
        seed=args.seed,
        held_out_fraction=args.held_out_fraction,
        group_by=args.group_by,
    )
    files = split_labels(
        labels, LatentFolder(args.latents), settings, allow_missing=args.allow_missing_videos
    )
    for file, rows in files.items():
        print(f"{rows} rows: {file}")
    return 0
