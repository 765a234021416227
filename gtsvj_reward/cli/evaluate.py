"""`gtsvj evaluate`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gtsvj_reward.cli.evaluated import notes_of, tables
from gtsvj_reward.cli.parsing import subparser
from gtsvj_reward.cli.scoring import add_judge_flags

if TYPE_CHECKING:
    from gtsvj_reward.evaluation import EvaluationSettings

FORMATS = {
    "genai-bench": "genai-bench",
    "monetbench": "monetbench",
    "videogen-rewardbench": "videogen-rewardbench",
    "rapidata": "rapidata",
    "datapoint": "datapoint",
    "rankings": "rankings",
    "videodpo": "videodpo",
    "pairs": "plain",
}
"""Benchmark -> the format of its file of comparisons."""

RATINGS = {
    "ratings": "plain",
    "visionreward-ratings": "visionreward",
    "videofeedback-ratings": "videofeedback",
    "videofeedback2-ratings": "videofeedback2",
}
"""Benchmark -> the format of its file of ratings."""


def evaluate(argv: list[str]) -> int:
    """`gtsvj evaluate`."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.compare:
        scoring = ("benchmark", "data", "scores", "judge")
        if any(vars(args)[name] is not None for name in scoring):
            parser.error("--compare does not score: leave out --benchmark, --data and the scores")
        return compare(args)
    for name in ("benchmark", "data", "out"):
        if vars(args)[name] is None:
            parser.error(f"--{name} is required (or --compare with result.json files)")
    if (args.scores is None) == (args.judge is None):
        parser.error("exactly one of --scores and --judge is required")
    if (args.latents is None) != (args.judge is None):
        parser.error("give --judge and --latents together")
    return measure_ratings(args) if args.benchmark in RATINGS else measure(args)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = subparser("evaluate")
    parser.add_argument(
        "--benchmark",
        choices=[*FORMATS, *RATINGS],
        help="pairs: your own comparisons; ratings: your own ratings of aspects",
    )
    parser.add_argument("--data", type=Path, help="file of comparisons (see docs/data.md)")
    parser.add_argument(
        "--labels", nargs="+", metavar="LABEL=A|B|tie", help="meaning of labels, e.g. 0=B"
    )
    parser.add_argument("--out", type=Path, help="folder for results")
    parser.add_argument(
        "--scores", type=Path, help="table with a column `video` and columns of scores"
    )
    parser.add_argument(
        "--judge", help="score with this judge first: folder, bundled name or hub id"
    )
    parser.add_argument("--latents", type=Path, help="folder of latent files, for --judge")
    judge = add_judge_flags(parser, "the table")
    judge.add_argument("--batch_size", type=int, default=8, help="clips per forward pass")
    parser.add_argument("--name", help="name of the scorer in results")
    parser.add_argument(
        "--column", help="column of scores; default reward, else score, else the only one"
    )
    parser.add_argument(
        "--column_for",
        action="append",
        default=[],
        metavar="LABEL=COLUMN[+COLUMN...]",
        help="another column for one label, e.g. VQ=aspect:clear; repeatable",
    )
    parser.add_argument(
        "--allow_missing_videos", action="store_true", help="evaluate the rest, and count them"
    )
    parser.add_argument("--calibration_fraction", type=float, default=0.5)
    parser.add_argument("--resamples", type=int, default=1000, help="number of bootstrap resamples")
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the intervals")
    parser.add_argument("--seed", type=int, default=0, help="seed of split and bootstrap")
    parser.add_argument(
        "--videos", type=Path, help="folder of the videos, to play on the page what it gets wrong"
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        metavar="RESULT",
        help="compare result.json files in a table",
    )
    return parser


def measure(args: argparse.Namespace) -> int:
    """Score with a judge if given, evaluate, write and print."""
    from gtsvj_reward import evaluation
    from gtsvj_reward.annotations import read_labelled_comparisons
    from gtsvj_reward.files import write_text

    columns = columns_for(args.column_for)
    settings = settings_of(args)
    comparisons = read_labelled_comparisons(args.data, FORMATS[args.benchmark], args.labels)
    results = {}
    for scored in tables(args, comparisons.videos()):
        seen = sum(
            not scored.trained.isdisjoint((row.video_a, row.video_b)) for row in comparisons.rows
        )
        table = evaluation.read_scores(scored.path, name=scorer_name(args) + scored.suffix)
        result = evaluation.evaluate_comparisons(
            comparisons,
            table,
            benchmark=args.benchmark,
            column=args.column,
            columns=columns,
            allow_missing=args.allow_missing_videos,
            settings=settings,
            progress=True,
            notes=notes_of(scored, seen, len(comparisons.rows), "comparisons have"),
        )
        name = f"result{scored.suffix}"
        write_text(args.out / f"{name}.json", result.to_json())
        write_text(args.out / f"{name}.md", evaluation.result_markdown(result))
        print(f"\n{evaluation.result_text(result)}\nwritten to {args.out / name}.json")
        results[result.scorer] = result
        if scored.suffix:
            continue
        page = evaluation.write_evaluation(result, comparisons, table, args.out, videos=args.videos)
        print(f"page: {page}")
    if len(results) > 1:
        print(f"\nwith and without prompts:\n{evaluation.comparison_text(results)}")
    return 0


def measure_ratings(args: argparse.Namespace) -> int:
    """The same for ratings of aspects."""
    from gtsvj_reward import evaluation
    from gtsvj_reward.annotations import RATING_FORMATS
    from gtsvj_reward.files import write_text

    if args.column or args.labels:
        raise ValueError("--column and --labels are for comparisons; set columns of aspects with "
                         "--column_for ASPECT=COLUMN")  # fmt: skip
    columns = columns_for(args.column_for)
    ratings = RATING_FORMATS[RATINGS[args.benchmark]](args.data)
    for scored in tables(args, ratings.videos()):
        seen = sum(row.video in scored.trained for row in ratings.rows)
        table = evaluation.read_scores(scored.path, name=scorer_name(args) + scored.suffix)
        result = evaluation.evaluate_ratings(
            ratings,
            table,
            columns=columns,
            allow_missing=args.allow_missing_videos,
            settings=settings_of(args),
            notes=notes_of(scored, seen, len(ratings.rows), "ratings are of"),
        )
        name = f"ratings{scored.suffix}"
        write_text(args.out / f"{name}.json", result.to_json())
        write_text(args.out / f"{name}.md", evaluation.ratings_markdown(result))
        print(f"\n{evaluation.ratings_text(result)}\nwritten to {args.out / name}.json")
        if not scored.suffix:
            page = evaluation.write_ratings(result, ratings, table, args.out, videos=args.videos)
            print(f"page: {page}")
    return 0


def settings_of(args: argparse.Namespace) -> "EvaluationSettings":
    """Settings of the evaluation, from the flags."""
    from gtsvj_reward.evaluation import EvaluationSettings

    return EvaluationSettings(
        calibration_fraction=args.calibration_fraction,
        resamples=args.resamples,
        confidence=args.confidence,
        seed=args.seed,
    )


def scorer_name(args: argparse.Namespace) -> str:
    """Name of the scorer in results."""
    return str(args.name or (Path(args.judge).name if args.judge else args.scores.name))


def columns_for(words: list[str]) -> dict[str, str]:
    """The `LABEL=COLUMN` words as a dictionary.

    Raises:
        ValueError: for a word of another form, or a repeated label.
    """
    columns: dict[str, str] = {}
    for word in words:
        label, equals, column = word.partition("=")
        if not (label and equals and column) or label in columns:
            raise ValueError(
                f"--column_for takes LABEL=COLUMN, once for each label, got {word!r} in {words}"
            )
        columns[label] = column
    return columns


def compare(args: argparse.Namespace) -> int:
    """Print results side by side with the paper's numbers, and write them if there is --out."""
    from gtsvj_reward import evaluation
    from gtsvj_reward.files import write_text

    results = evaluation.read_results(args.compare)
    print(evaluation.comparison_text(results))
    if args.out:
        path = args.out / "comparison.md"
        write_text(path, evaluation.comparison_markdown(results))
        print(f"written to {path}")
    return 0
